"""Audits data sets for leaks, copies and shortcuts, and words the result for screen and page."""

from collections.abc import Iterator, Mapping, Sequence

import jaxcxr
from jaxcxr.report import page
from jaxcxr.report.result_file import Table
from jaxcxr.xray.audit import audit_checks, audited_sets, duplicates, patient_checks
from jaxcxr.xray.sources import rsna_pneumonia


def audit(
    data_sets: Sequence[audited_sets.DataSet],
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
      and `cramers_v`; `compared`, whether any two splits or data sets were;
      `not_compared`, what was not and why; `data_sets`; `settings`.
    """
    everything = audited_sets.join(data_sets)
    near, pairs = audit_checks.near(everything, bits)
    tables = audit_checks.tables(everything)
    findings = [
        *patient_checks.in_two_splits(everything),
        *audit_checks.identical(everything),
        *near,
        *audit_checks.same_file_names(everything),
        *audit_checks.conflicts(everything, pairs),
        *patient_checks.contradictions(everything),
        *audit_checks.shortcuts(tables, shortcut),
    ]
    findings.sort(key=lambda finding: audit_checks.SEVERITIES.index(finding["severity"]))
    return {
        "leaks": sum(finding["severity"] == audit_checks.LEAK for finding in findings),
        "findings": findings,
        "compared": any(True for _ in everything.across()),
        "not_compared": list(_not_compared(everything)),
        "data_sets": [_described(data_set) for data_set in data_sets],
        "tables": tables,
        "settings": {
            "bits": bits, "correlation": duplicates.CORRELATION, "shortcut": shortcut,
            "map_mse_below": rsna_pneumonia.MAX_MSE,
        },
        "jaxcxr_version": jaxcxr.__version__,
    }


def _described(data_set: audited_sets.DataSet) -> dict:
    return {
        "name": data_set.name, "images": len(data_set.rows),
        "hashes": int((data_set.rows.sha256 != "").sum()),
        "pixels": data_set.folder is not None or data_set.small is not None,
        "notes": list(data_set.notes),
    }


def _not_compared(everything: audited_sets.Everything) -> Iterator[str]:
    """Says which comparisons were impossible, and why; the first says that none was possible."""
    pairs = list(everything.across())
    parts = everything.parts
    known = {id(part): (everything.rows.patient_id[part.rows] != "").any() for part in parts}
    unsplit = [part.data_set for part in parts if part.split == audited_sets.UNSPLIT]
    if not pairs and not unsplit:
        split = parts[0].split if parts else ""
        yield (
            f"images with images of another split, as all are {split}: give the other splits too"
            if parts else "images, as there are none"
        )
    if unsplit:
        yield (
            f"splits of {', '.join(unsplit)}, whose images have none: a column split (train, "
            "validation, test) would make it possible, or a file or folder for each split with "
            "its name"
        )
    without = [part for part in parts if not known[id(part)]]
    if without and (pairs or unsplit):
        yield (
            f"patients of {', '.join(_named(part) for part in without)}, which are unknown: a "
            "column patient_id would make it possible"
        )


def _named(part: audited_sets.Part) -> str:
    return place({"data_set": part.data_set, "split": part.split})


def verdict(result: Mapping) -> str:
    """Sums up the result of `audit` in one line."""
    warnings = sum(finding["severity"] == audit_checks.WARNING for finding in result["findings"])
    unseen = [
        d["name"] + (f" ({d['images'] - d['hashes']:,} images)" if d["hashes"] else "")
        for d in result["data_sets"] if d["hashes"] < d["images"]
    ]
    number = f"{_number_of(result['leaks'], 'leak')}, "
    if not result["compared"]:
        number = "Nothing could be compared between splits; "
    elif result["not_compared"] and not result["leaks"]:
        number = "No leak in what could be compared, "
    line = f"{number}{_number_of(warnings, 'warning')}."
    line += "".join(f" Not compared: {text}." for text in result["not_compared"])
    if unseen and result["compared"]:
        line += f" Without hashes, copies are found by name only: {', '.join(unseen)}."
    return line


def place(side: Mapping) -> str:
    """Names a split of a data set."""
    unsplit = side["split"] == audited_sets.UNSPLIT
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
