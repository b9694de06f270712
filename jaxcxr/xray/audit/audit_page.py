"""The result of `jaxcxr audit` as one page without scripts, and its words and cells."""

from jaxcxr.report import templates
from jaxcxr.xray.audit.audit_checks import WARNING
from jaxcxr.xray.audit.audited_files import UNSPLIT


def verdict(result: dict) -> str:
    """The result of `audit.audit` in one line."""
    warnings = sum(finding["severity"] == WARNING for finding in result["findings"])
    unseen = [d["name"] for d in result["data_sets"] if not d["hashes"]]
    line = f"{_number_of(result['leaks'], 'leak')}, {_number_of(warnings, 'warning')}."
    if unseen:
        line += f" Without hashes, copies are found by name only: {', '.join(unseen)}."
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
    """Renders the whole result of `audit.audit`, every name in it, as a page."""
    return templates.render(
        "xray/audit/audit.html", result=result, verdict=verdict(result), place=place,
        tables=map(counts, result["tables"]),
    )


def _told(entry: dict) -> str:
    if entry["auroc"] is None:
        return "n/a"
    v = entry.get("cramers_v")
    return f"{entry['auroc']:.3f}" + ("" if v is None else f" ({v:.2f})")


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
