"""Audits data sets for leaks, copies and shortcuts, and words the result for screen and page."""

from collections.abc import Mapping, Sequence

import jaxcxr
from jaxcxr.report import page
from jaxcxr.report.result_file import Table
from jaxcxr.xray.audit import audit_checks, audited_files, duplicates
from jaxcxr.xray.sources import rsna_pneumonia


def audit(
    data_sets: Sequence[audited_files.DataSet],
    bits: int = duplicates.BITS,
    shortcut: float = audit_checks.SHORTCUT,
) -> dict:
    """Runs all checks and returns the result as it is written to JSON.

    Arguments:
      data_sets: from `audited_files.load`.
      bits: of a perceptual hash that may differ in a near-duplicate.
      shortcut: warn about an attribute that predicts a label with at least this AUROC.

    Returns:
      `findings`, the worst first, as `audit_checks.finding` makes them; `leaks`, their number;
      `tables` per data set and split with counts per class and, for each of `attributes`, `auroc`
      and `cramers_v`; `data_sets`; `settings`.
    """
    everything = audited_files.join(data_sets)
    near, pairs = audit_checks.near(everything, bits)
    tables = audit_checks.tables(everything)
    findings = [
        *audit_checks.patients(everything),
        *audit_checks.identical(everything),
        *near,
        *audit_checks.conflicts(everything, pairs),
        *audit_checks.shortcuts(tables, shortcut),
    ]
    findings.sort(key=lambda finding: audit_checks.SEVERITIES.index(finding["severity"]))
    return {
        "leaks": sum(finding["severity"] == audit_checks.LEAK for finding in findings),
        "findings": findings,
        "data_sets": [_described(data_set) for data_set in data_sets],
        "tables": tables,
        "settings": {
            "bits": bits, "correlation": duplicates.CORRELATION, "shortcut": shortcut,
            "map_mse_below": rsna_pneumonia.MAX_MSE,
        },
        "jaxcxr_version": jaxcxr.__version__,
    }


def _described(data_set: audited_files.DataSet) -> dict:
    return {
        "name": data_set.name, "images": len(data_set.rows),
        "hashes": bool((data_set.rows.sha256 != "").any()),
        "pixels": data_set.folder is not None, "notes": list(data_set.notes),
    }


def verdict(result: Mapping) -> str:
    """Sums up the result of `audit` in one line."""
    warnings = sum(finding["severity"] == audit_checks.WARNING for finding in result["findings"])
    unseen = [d["name"] for d in result["data_sets"] if not d["hashes"]]
    line = f"{_number_of(result['leaks'], 'leak')}, {_number_of(warnings, 'warning')}."
    if unseen:
        line += f" Without hashes, copies are found by name only: {', '.join(unseen)}."
    return line


def place(side: Mapping) -> str:
    """Names a split of a data set."""
    unsplit = side["split"] == audited_files.UNSPLIT
    return side["data_set"] if unsplit else f"{side['data_set']} {side['split']}"


def counts(table: Mapping) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Formats one of the `tables` as title, header and rows of cells."""
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


def to_table(result: Mapping) -> Table:
    """Returns a row for each finding, and the verdict, for a result file."""
    rows = [
        (finding["severity"], finding["kind"].replace("_", " "), f"{finding['count']:,}",
         ", ".join(map(place, finding["between"])), finding["text"])
        for finding in result["findings"]
    ]
    return Table(("", "finding", "count", "between", "what"), rows, verdict(result))


def to_html(result: Mapping) -> str:
    """Renders the result of `audit`, every name included, as a page without scripts."""
    return page.render_template(
        "xray/audit/audit.html", result=result, verdict=verdict(result), place=place,
        tables=map(counts, result["tables"]),
    )


def _told(entry: Mapping) -> str:
    if entry["auroc"] is None:
        return "n/a"
    v = entry.get("cramers_v")
    return f"{entry['auroc']:.3f}" + ("" if v is None else f" ({v:.2f})")


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
