"""The result of `jaxcxr audit` as one page without scripts, and its words and cells."""

import html
from collections.abc import Iterator, Sequence

from jaxcxr.xray.audit.audit_checks import WARNING
from jaxcxr.xray.audit.audited_files import UNSPLIT

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .5em 0 2em }
th, td { padding: .2em .7em; border-bottom: 1px solid #ccc; text-align: right; vertical-align: top }
th:first-child, td:first-child, .text td { text-align: left }
.leak { color: #b00020; font-weight: bold } .warning { color: #8a5a00 }
summary { cursor: pointer } ul { max-height: 20em; overflow: auto; overflow-wrap: anywhere }
"""


def verdict(result: dict) -> str:
    """The result of `audit.audit` in one line."""
    warnings = sum(finding["severity"] == WARNING for finding in result["findings"])
    unseen = [d["name"] for d in result["data_sets"] if not d["hashes"]]
    line = f"{_number_of(result['leaks'], 'leak')}, {_number_of(warnings, 'warning')}."
    if unseen:
        line += f" Without hashes, copies are known by name only: {', '.join(unseen)}."
    return line


def place(side: dict) -> str:
    """A split of a data set."""
    return " ".join([side["data_set"], *([] if side["split"] == UNSPLIT else [side["split"]])])


def counts(table: dict) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """One of the `tables`: title, header and rows of cells."""
    title = f"{place(table)}: {table['images']:,} images, {table['patients']:,} patients"
    header = ("class", "positive", "negative", "unknown", *(
        f"{name} AUROC" + ("" if name == "age" else " (V)") for name in table["attributes"]
    ))
    rows = [
        (entry["name"], *(f"{entry[n]:,}" for n in ("positive", "negative", "unknown")),
         *(_told(entry[name]) for name in table["attributes"]))
        for entry in table["classes"]
    ]
    return title, header, rows


def to_html(result: dict) -> str:
    """The whole result of `audit.audit`, every name in it, as a page."""
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        f"<title>jaxcxr audit</title><style>{_STYLE}</style></head><body>",
        "<h1>Audit</h1>", f"<p>{html.escape(verdict(result))}</p>",
        *_notes(result), *_findings(result["findings"]),
        "<h2>Counts, and what one attribute alone tells</h2>",
        "<p>AUROC of the best score that sees nothing but the attribute, on these very images; "
        "in brackets Cram&eacute;r&rsquo;s V.</p>",
        *(part for table in result["tables"] for part in _table(*counts(table))),
        f"<p>jaxcxr {html.escape(result['jaxcxr_version'])}</p>", "</body></html>", "",
    ])


def _notes(result: dict) -> Iterator[str]:
    yield "<ul>"
    for data_set in result["data_sets"]:
        for note in data_set["notes"]:
            yield f"<li>{html.escape(data_set['name'])}: {html.escape(note)}</li>"
    yield "</ul>"


def _findings(findings: Sequence[dict]) -> Iterator[str]:
    yield '<h2>Findings</h2><table class="text">'
    for finding in findings:
        names = "".join(f"<li>{html.escape(item)}</li>" for item in finding["items"])
        between = "<br>".join(html.escape(place(side)) for side in finding["between"])
        kind = html.escape(finding["kind"].replace("_", " "))
        yield (
            f'<tr><td class="{finding["severity"]}">{finding["severity"]}</td>'
            f"<td>{kind}: {finding['count']:,}</td><td>{between}</td>"
            f"<td>{html.escape(finding['text'])}; {html.escape(finding['advice'])}"
            + (f"<details><summary>names</summary><ul>{names}</ul></details>" if names else "")
            + "</td></tr>"
        )
    yield "</table>"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"<h3>{html.escape(title)}</h3><table>"
    yield "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _told(entry: dict) -> str:
    if entry["auroc"] is None:
        return "n/a"
    v = entry.get("cramers_v")
    return f"{entry['auroc']:.3f}" + ("" if v is None else f" ({v:.2f})")


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
