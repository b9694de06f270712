"""Your own radiographs and labels: ResNet50 at 224 px, its classes those of the prepared set.

    jaxcxr prepare images --images DIR --labels labels.csv --size 512 --dry-run
    jaxcxr prepare images --images DIR --labels labels.csv --size 512
    python -m jaxcxr.main --config=configs/own_images.py --workdir=runs/own \\
      --config.model.pretrained=resnet50.safetensors

`--dry-run` prints what the table is understood to say. What was prepared with another `--dataset`,
`--size`, `--equalize` or `--encoding` is named likewise: `--config.data.options.size=1024`. Without
pretrained weights, a few thousand images are too few for good results.

`:quick` trains a narrow ResNet18 at 64 px for 16 steps, to try the machinery; its metrics mean
nothing.

Hardware: any accelerator. Not measured: the result depends on your data.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError


def get_config(arg: str = ""):
    if arg not in ("", "quick"):
        raise UserError(f"configs/own_images.py takes quick, not {arg!r}.")
    config = base.default("cxr")
    base.set_source(config, "images", dataset="own", size=512, equalize="hist")
    base.set_model(config, "resnet50")
    config.data.image_size = 224
    config.batch_size = 32
    config.ema_decay = 0.99
    base.add_stage(
        config, "all", "20 epochs",
        learning_rate=1e-4, optimizer__name="adamw", optimizer__weight_decay=1e-2,
        warmup__name="linear", warmup__steps=200, decay__name="cosine",
    )
    if arg == "quick":
        shrink(config)
    return config


def shrink(config):
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=8, head_width=0)
    config.data.image_size = 64
    config.batch_size = 8
    config.log_every = 4
    config.evaluate_every = "8 steps"
    config.ema_decay = 0.9
    config.stages.all.duration = "16 steps"
    config.stages.all.learning_rate = 3e-3
    config.stages.all.warmup.steps = 4
