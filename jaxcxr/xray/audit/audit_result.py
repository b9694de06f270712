"""Audits data sets: what leaks between them and their splits, and what a shortcut would score."""

from collections.abc import Sequence

import jaxcxr
from jaxcxr.xray.audit import audit_checks, audited_files, duplicates
from jaxcxr.xray.sources import rsna_pneumonia_table


def audit(
    data_sets: Sequence[audited_files.DataSet],
    bits: int = duplicates.BITS,
    shortcut: float = audit_checks.SHORTCUT,
) -> dict:
    """All checks, in the form of the JSON.

    Arguments:
      data_sets: what `audited_files.load` returned.
      bits: of a perceptual hash, that may differ in a near-duplicate.
      shortcut: AUROC of one attribute from which it is a warning.

    Returns:
      `findings`, the worst first, each with `kind`, `severity` ("leak", "warning", "info"),
      `count`, `text`, `between` (data set, split, `images` concerned `of` all), `advice` and
      `items` (names); `leaks`, their number; `tables` per data set and split with counts per class
      and, for each of `attributes`, `auroc` and `cramers_v`; `data_sets`; `settings`.
    """
    everything = audit_checks.join(data_sets)
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
            "map_mse_below": rsna_pneumonia_table.MAX_MSE,
        },
        "jaxcxr_version": jaxcxr.__version__,
    }


def _described(data_set: audited_files.DataSet) -> dict:
    return {
        "name": data_set.name, "images": len(data_set.rows),
        "hashes": bool((data_set.rows.sha256 != "").any()),
        "pixels": data_set.folder is not None, "notes": list(data_set.notes),
    }
