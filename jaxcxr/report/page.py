"""Renders a report page: one file that opens offline and loads nothing.

The blocks of a page are plain data; `page.html` and `blocks.html` lay them out. Colours are safe
for any form of colour blindness, pictures have alternative text, and tables sort by keyboard too.
"""

import base64
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcxr.statistics.ranking import Curve

if TYPE_CHECKING:
    import jinja2

_BLUE = (0, 114, 178)  # of the palette
_SIDE, _LEFT, _TOP, _BELOW = 150, 34, 8, 30  # of a chart, pixels
# File in report/ -> its caption.
_TRAINING = {
    "curves.png": "Training loss, validation metric and learning rate over steps",
    "heads.png": "Span, order of entmax and gate of every attention head",
    "attention.png": "Attention maps of a few examples",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell that sorts by a number.

    Attributes:
      text: shown; an interval in brackets goes below the value.
      value: the number to sort by; None comes last.
      shade: how dark the background is, 0 to 1; None for none.
    """

    text: str
    value: float | None
    shade: float | None = None

    @property
    def sort_key(self) -> str:
        """The number as text, "" where there is none."""
        return "" if self.value is None or math.isnan(self.value) else f"{self.value:.8g}"

    @property
    def style(self) -> str:
        """Background from white to blue, with white text where it is dark."""
        if self.shade is None:
            return ""
        share = min(max(self.shade, 0.0), 1.0)
        color = ",".join(str(round(255 + share * (c - 255))) for c in _BLUE)
        return f"background:rgb({color})" + (";color:#fff" if share > 0.6 else "")


class Block:
    """A part of a section; `blocks.html` lays out each kind."""

    @property
    def kind(self) -> str:
        """Name of the class, by which the template chooses."""
        return type(self).__name__


@dataclasses.dataclass(frozen=True)
class Paragraph(Block):
    """Text; a warning is set off."""

    text: str
    warning: bool = False


@dataclasses.dataclass(frozen=True)
class Subtitle(Block):
    """A heading within a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Headline(Block):
    """Large values, each (value, its name)."""

    values: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class SortableTable(Block):
    """A table that sorts by a click on a heading; rows hold text and `Cell`s."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Picture(Block):
    """A PNG with its alternative text."""

    png: bytes
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class CurveChart:
    """A curve with its band in the unit square, drawn as SVG by `blocks.html`.

    Attributes:
      title: of the chart.
      names: of the axes, x first.
      curve, band, chance: SVG paths, the last of the line of chance.
    """

    title: str
    names: tuple[str, str]
    curve: str
    band: str
    chance: str

    side, left, top = _SIDE, _LEFT, _TOP
    width, height = _LEFT + _SIDE + 8, _TOP + _SIDE + _BELOW
    ticks = tuple((share, _LEFT + share * _SIDE, _TOP + (1 - share) * _SIDE)
                  for share in (0, 0.5, 1))

    @property
    def alt(self) -> str:
        """Alternative text."""
        return f"{self.title}: {self.names[1]} over {self.names[0]}"


def unit_chart(
    title: str, curve: Curve, names: tuple[str, str], chance: tuple[float, float]
) -> CurveChart:
    """Places a curve with its band in the unit square.

    Arguments:
      names: of the axes, x first.
      chance: y of the line of chance at x = 0 and 1.
    """
    around = np.append(curve.x, curve.x[::-1]), np.append(curve.low, curve.high[::-1])
    return CurveChart(
        title, names, _path(curve.x, curve.y), _path(*around) + "Z", _path((0, 1), chance)
    )


def _path(x: Iterable[float], y: Iterable[float]) -> str:
    points = ((_LEFT + a * _SIDE, _TOP + (1 - b) * _SIDE) for a, b in zip(x, y, strict=True))
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


@dataclasses.dataclass(frozen=True)
class Charts(Block):
    """Charts beside each other, under one caption."""

    charts: Sequence[CurveChart]
    caption: str


@dataclasses.dataclass(frozen=True)
class BeforeAfter(Block):
    """Two PNGs of one size with a slider between them, the second to the right."""

    before: bytes
    after: bytes
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class SideBySide(Block):
    """Blocks side by side, as many as fit the screen."""

    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Details(Block):
    """Blocks that open with a click."""

    summary: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Preformatted(Block):
    """Text as it is, lines and spaces kept."""

    text: str


@dataclasses.dataclass(frozen=True)
class EmbeddedPage(Block):
    """Another whole page inside this one, in a sandbox."""

    html: str
    title: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: the name of its anchor, its heading, its blocks."""

    name: str
    title: str
    blocks: Sequence[Block]


def render(title: str, top: Iterable[Block], sections: Iterable[Section]) -> str:
    """Renders the page.

    Arguments:
      top: blocks between the heading and the table of contents.
      sections: those without blocks are left out.
    """
    return render_template(
        "report/page.html", title=title, top=list(top),
        sections=[section for section in sections if section.blocks],
    )


def write(html: str, workdir: pathlib.Path) -> pathlib.Path:
    """Writes a page as `report/index.html` of a run, whole or not at all; returns the file."""
    path = workdir / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def pictures(folder: pathlib.Path, texts: Mapping[str, str]) -> list[Block]:
    """Reads the figures that exist in a folder; texts are captions and alternative texts."""
    return [
        Picture((folder / name).read_bytes(), text, text)
        for name, text in texts.items() if (folder / name).exists()
    ]


def not_run(command: str) -> Paragraph:
    """Names the command that fills a section still empty."""
    return Paragraph(f"Not run yet: `jaxcxr {command} --workdir=RUN`, then `jaxcxr report`.")


def about(workdir: pathlib.Path, task: Any, limits: Sequence[str]) -> list[Section]:
    """Builds training, data and config, and the model card with the `limits`, one sentence each."""
    record = json.loads((workdir / "config.json").read_text())
    config, packages = record["config"], record["packages"]
    data = [(key, value) for key, value in task.describe().items() if "\n" not in value]
    provenance = [
        SortableTable(("data", "contents"), data),
        SortableTable(("package", "version"), list(packages.items()),
                      f"Python {record['python']}, git {record['git']}"),
        Details("Full config", [Preformatted(json.dumps(config, indent=2))]),
    ]
    return [
        Section("training", "Training", pictures(workdir / "report", _TRAINING)),
        Section("provenance", "Data and config", provenance),
        Section("card", "Model card", list(_card(config, limits))),
    ]


def unevaluated(workdir: pathlib.Path, task: Any, title: str) -> str:
    """Renders the page of a run whose data have neither a validation nor a test split."""
    text = (
        "Nothing was evaluated: the data have neither a validation nor a test split, so no metric, "
        "calibration or threshold of this model is known."
    )
    limits = ["Not evaluated on any image, sequence or patient that it was not trained on."]
    return render(title, [Paragraph(text, warning=True)], about(workdir, task, limits))


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
    yield Subtitle("Limits")
    yield from map(Paragraph, limits)


def render_template(name: str, **values: Any) -> str:
    """Renders the template at a path in the package, such as "report/page.html"."""
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcxr", ""), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters["png_url"] = _png_url
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _png_url(png: bytes) -> str:
    """Encodes a picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
