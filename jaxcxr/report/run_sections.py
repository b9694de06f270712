"""Parts of the report page that all runs have: training, provenance, model card."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxcxr.report import page
from jaxcxr.report.page import Section

# File in report/ -> its alternative text.
_TRAINING = {
    "curves.png": "Training loss, validation metric and learning rate over steps",
    "heads.png": "Span, order of entmax and gate of every attention head",
    "attention.png": "Where attention looks in a few examples",
}


def write(html: str, workdir: pathlib.Path) -> pathlib.Path:
    """Writes `report/index.html`, whole or not at all.

    Arguments:
      html: the page.
      workdir: folder of the run.

    Returns:
      The file.
    """
    path = workdir / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def picture_of(path: pathlib.Path, alt: str) -> Iterable[str]:
    """A figure that may have been drawn; nothing where it was not."""
    if path.exists():
        yield page.picture(path.read_bytes(), alt, alt)


def about(workdir: pathlib.Path, task: Any, limits: Sequence[str]) -> list[Section]:
    """Training, data and config, and the model card.

    Arguments:
      workdir: folder of the run.
      task: its task.
      limits: sentences for the model card.
    """
    record = json.loads((workdir / "config.json").read_text())
    config, packages = record["config"], record["packages"]
    training = [
        block for name, alt in _TRAINING.items()
        for block in picture_of(workdir / "report" / name, alt)
    ]
    data = [(key, value) for key, value in task.describe().items() if "\n" not in value]
    provenance = [
        page.table(["what", "how many"], data),
        page.table(["package", "version"], list(packages.items()),
                   f"Python {record['python']}, git {record['git']}"),
        page.details("The whole config", page.code(json.dumps(config, indent=2))),
    ]
    return [
        Section("training", "Training", tuple(training)),
        Section("provenance", "Data and config", tuple(provenance)),
        Section("card", "Model card", tuple(_card(config, limits))),
    ]


def _card(config: dict, limits: Sequence[str]) -> Iterable[str]:
    stages = ", ".join(f"{name}: {config['stages'][name]['duration']}"
                       for name in config["stage_order"])
    rows = [
        ("model", config["model"]["name"]),
        ("weights before training", config["model"]["pretrained"] or "random"),
        ("data", config["data"]["source"]),
        ("training", f"{stages}; batches of {config['batch_size']}, seed {config['seed']}"),
        ("intended use", "research on the data and the method"),
        ("not for", "diagnosis, triage or any other clinical use; people or data unlike those "
         "evaluated"),
    ]
    yield page.table(["", ""], rows)
    yield page.subtitle("Limits")
    for line in limits:
        yield page.paragraph(line)
