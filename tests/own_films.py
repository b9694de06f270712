"""A data set of one's own, small enough to train on in seconds."""

import cv2
import numpy as np

from jaxcxr import config as base
from jaxcxr.data import preparation


def prepared(folder, labels, seed=0, **options):
    """Prepares 24 drawn films of 12 patients; `labels` maps classes to a cell for each film."""
    films = folder / "films"
    films.mkdir(exist_ok=True, parents=True)
    rng = np.random.default_rng(seed)
    rows = [["image", "patient", *labels]]
    for i in range(24):
        pixels = rng.integers(0, 60, (32, 32)).astype(np.uint8)
        pixels[4:12, 4 + 8 * (i % 2) :] += 120
        cv2.imwrite(str(films / f"{i}.png"), pixels)
        rows.append([f"{i}.png", f"P{i // 2}", *(cells[i] for cells in labels.values())])
    table = folder / "labels.csv"
    table.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    options = {"size": 32, "equalize": "none", **options}
    options |= {"images": str(films), "labels": str(table)}
    preparation.prepare("images", folder / "data", **options)
    return table


def config_of(folder, **changes):
    config = base.default("cxr")
    base.set_source(config, "images", size=32, equalize="none")
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=4, head_width=0)
    base.add_stage(config, "all", "4 steps", learning_rate=1e-3)
    config.data.dir, config.data.image_size, config.data.threads = str(folder / "data"), 32, 0
    config.batch_size, config.evaluate_every, config.log_every = 8, "2 steps", 2
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config
