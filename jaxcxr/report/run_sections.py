"""Builds the sections that every report page has: training, provenance, model card."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcxr.report import page
from jaxcxr.report.page import Block, Section, SortableTable

# File in report/ -> its caption.
_TRAINING = {
    "curves.png": "Training loss, validation metric and learning rate over steps",
    "heads.png": "Span, order of entmax and gate of every attention head",
    "attention.png": "Attention maps of a few examples",
}


def write(html: str, workdir: pathlib.Path) -> pathlib.Path:
    """Writes a page as `report/index.html` of a run, whole or not at all; returns the file."""
    path = workdir / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def pictures(folder: pathlib.Path, texts: Mapping[str, str]) -> list[Block]:
    """Reads the figures that exist in a folder.

    Arguments:
      folder: of the figures.
      texts: file name -> caption, also the alternative text.
    """
    return [
        page.Picture((folder / name).read_bytes(), text, text)
        for name, text in texts.items() if (folder / name).exists()
    ]


def not_run(command: str) -> page.Paragraph:
    """Names the command that fills a section still empty."""
    return page.Paragraph(f"Not run yet: `jaxcxr {command} --workdir=RUN`, then `jaxcxr report`.")


def about(workdir: pathlib.Path, task: Any, limits: Sequence[str]) -> list[Section]:
    """Builds training, data and config, and the model card with the `limits`, one sentence each."""
    record = json.loads((workdir / "config.json").read_text())
    config, packages = record["config"], record["packages"]
    data = [(key, value) for key, value in task.describe().items() if "\n" not in value]
    provenance = [
        SortableTable(("data", "contents"), data),
        SortableTable(("package", "version"), list(packages.items()),
                      f"Python {record['python']}, git {record['git']}"),
        page.Details("Full config", [page.Preformatted(json.dumps(config, indent=2))]),
    ]
    return [
        Section("training", "Training", pictures(workdir / "report", _TRAINING)),
        Section("provenance", "Data and config", provenance),
        Section("card", "Model card", list(_card(config, limits))),
    ]


def _card(config: dict, limits: Sequence[str]) -> Iterable[Block]:
    stages = ", ".join(f"{name}: {config['stages'][name]['duration']}"
                       for name in config["stage_order"])
    rows = [
        ("model", config["model"]["name"]),
        ("initial weights", config["model"]["pretrained"] or "random"),
        ("data", config["data"]["source"]),
        ("training", f"{stages}; batches of {config['batch_size']}, seed {config['seed']}"),
        ("intended use", "research on the data and the method"),
        ("not for", "diagnosis, triage or any other clinical use; people or data unlike those "
         "evaluated"),
    ]
    yield SortableTable(("", ""), rows)
    yield page.Subtitle("Limits")
    yield from map(page.Paragraph, limits)
