"""Parts of `report/index.html`: one page that opens offline and needs nothing but itself.

Everything that comes from data is escaped; the page may load nothing (its content security policy
says so). Colours are told apart with any form of colour blindness, pictures have alternative text,
and tables are sorted with the keyboard too.
"""

import base64
import dataclasses
import html
import importlib.resources
import math
from collections.abc import Iterable, Sequence

# Characters; longer texts in cells take several lines.
_SENTENCE = 40


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      name: of its anchor, letters.
      title: heading.
      blocks: HTML, of the functions below.
    """

    name: str
    title: str
    blocks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell that is sorted by a number.

    Attributes:
      text: what is shown.
      value: the number, None last.
      shade: 0 to 1, how dark its background is; None for none.
    """

    text: str
    value: float | None
    shade: float | None = None


def whole(title: str, top: Iterable[str], sections: Sequence[Section]) -> str:
    """The page.

    Arguments:
      title: heading.
      top: HTML between the heading and the table of contents.
      sections: those without blocks are left out.
    """
    sections = [section for section in sections if section.blocks]
    links = "".join(
        f'<li><a href="#{html.escape(one.name)}">{html.escape(one.title)}</a></li>'
        for one in sections
    )
    parts = [f"<h1>{html.escape(title)}</h1>", *top,
             f'<nav aria-label="contents"><ul>{links}</ul></nav>']
    for one in sections:
        parts.append(
            f'<section id="{html.escape(one.name)}"><h2>{html.escape(one.title)}</h2>'
            + "\n".join(one.blocks) + "</section>"
        )
    template = importlib.resources.files("jaxcxr.report").joinpath("page.html")
    text = template.read_text(encoding="utf-8")
    return text.replace("@TITLE@", html.escape(title)).replace("@BODY@", "\n".join(parts))


def paragraph(text: str, kind: str = "") -> str:
    """Text, with `kind="warning"` set off."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def headline(figures: Iterable[tuple[str, str]]) -> str:
    """Large figures, each (value, what it is)."""
    boxes = "".join(
        f"<div><b>{html.escape(value)}</b>{html.escape(what)}</div>" for value, what in figures
    )
    return f'<div class="headline">{boxes}</div>'


def table(
    header: Sequence[str], rows: Iterable[Sequence[str | Cell]], caption: str = ""
) -> str:
    """A table that sorts by a click on a heading.

    Arguments:
      header: of the columns.
      rows: text, or cells that sort by a number.
      caption: above it.
    """
    head = "".join(map(_heading, header))
    body = "".join(
        f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows
    )
    said = f"<caption><span>{html.escape(caption)}</span></caption>" if caption else ""
    return (f'<div class="scroll"><table>{said}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def _heading(name: str) -> str:
    if not name:
        return "<td></td>"
    return f'<th scope="col"><button type="button">{html.escape(name)}</button></th>'


def _shown(text: str) -> str:
    """Escaped, an interval in brackets below its figure."""
    figure, bracket, interval = text.partition(" [")
    if not bracket or not interval.endswith("]"):
        return html.escape(text)
    return f"{html.escape(figure)}<small>[{html.escape(interval)}</small>"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        kind = ' class="text"' if len(cell) > _SENTENCE else ""
        return f"<td{kind}>{_shown(cell)}</td>"
    number = "" if cell.value is None or math.isnan(cell.value) else f"{cell.value:.8g}"
    style = ""
    if cell.shade is not None:
        # White to the palette's blue; text turns white where the blue is dark.
        share = min(max(cell.shade, 0.0), 1.0)
        red, green, blue = (round(255 + share * (c - 255)) for c in (0, 114, 178))
        ink = ";color:#fff" if share > 0.6 else ""
        style = f' style="background:rgb({red},{green},{blue}){ink}"'
    return f'<td data-value="{number}"{style}>{_shown(cell.text)}</td>'


def picture(png: bytes, alt: str, caption: str = "") -> str:
    """A figure with its alternative text."""
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{data_url(png)}" alt="{html.escape(alt)}">{said}</figure>'


def drawing(svg: str, caption: str = "") -> str:
    """An SVG of `charts`."""
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{said}</figure>"


def grid(blocks: Iterable[str]) -> str:
    """Figures side by side, as many as the screen is wide."""
    return f'<div class="grid">{"".join(blocks)}</div>'


def before_after(before: bytes, after: bytes, alt: str, caption: str) -> str:
    """Two pictures of the same size and a slider between them, the second one to the right."""
    return (
        f'<figure><div class="case"><img src="{data_url(before)}" alt="{html.escape(alt)}">'
        f'<img class="over" src="{data_url(after)}" alt=""><i></i></div>'
        f'<input type="range" data-case min="0" max="100" value="50" '
        f'aria-label="heat map over {html.escape(alt)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def details(summary: str, *blocks: str) -> str:
    """Blocks that open with a click."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(blocks)}</details>"


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def subtitle(text: str) -> str:
    """A heading in a section."""
    return f"<h3>{html.escape(text)}</h3>"


def frame(page: str, title: str) -> str:
    """Another whole page inside this one."""
    return (
        f'<iframe sandbox="allow-scripts" title="{html.escape(title)}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def data_url(png: bytes) -> str:
    """PNG, as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
