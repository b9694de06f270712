"""`jaxcxr audit`: what leaks between splits and data sets, and what a shortcut would score.

    jaxcxr audit train_COVIDx9B.txt test_COVIDx9B.txt chestxray14 \
        --map rsna_to_chestxray14.csv --json audit.json --html audit.html
    jaxcxr audit train.csv test.csv --images DIR
    jaxcxr audit DIR_WITH_TRAIN_AND_TEST

On the published label files this finds 3,234 training images of COVIDx 9B (3,185 of 8B) that are
official test images of ChestX-ray14; 129 test images of COVIDx whose patients are trained on; that
the source alone tells COVIDx's test set perfectly; and that AP or PA alone tells Edema in
ChestX-ray14 with AUROC 0.745, in its official test split with 0.681. The 112,120 rows of
ChestX-ray14 with hashes take 19 s and 0.7 GiB on two cores.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import rich.box
import rich.console
import rich.markup
import rich.table

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import UserError
from jaxcxr.xray.audit import audit_checks, audit_result, audited_files, duplicates

_STYLES = {audit_checks.LEAK: "bold red", audit_checks.WARNING: "yellow"}
_SHOWN = 3  # names per finding on the screen; the file of --json has all
_WIDTH = 120  # columns, where the output is no terminal
_EPILOG = (
    "A MANIFEST is a prepared data set (its folder or manifest.parquet); the folder of a published "
    "data set (ChestX-ray14, CheXpert, MIMIC-CXR-JPG, PadChest, VinDr-CXR, Open-I, Kaggle's "
    "pneumonia folders) or of any images, with or without folders train, val and test, which are "
    "read once and remembered; COVIDx lists, train_NAME.txt and test_NAME.txt as two arguments; or "
    "any csv, Parquet or xlsx table with a column image_id and, if known, patient_id, split, "
    "source, view, sex, age, sha256, phash and one column per label (1, 0; empty, -1 or n/a: "
    "unknown), with or without the prefix label_. Without a column split, train, val or test in "
    "the name of the file is the split of its rows. Rows without a source are compared with all "
    "others; patients of two sources never are the same. Exit code 1: something leaks; 0: nothing "
    "that could be compared does; 2: a file is wrong."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr audit`."""
    parser.epilog = _EPILOG
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="data sets, see below")
    parser.add_argument(
        "--map", metavar="CSV", help="which image of ChestX-ray14 each image of the RSNA is: "
        "columns rsna_patientId, chestxray14_image, mse",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the images of the tables, to compare them too"
    )
    parser.add_argument(
        "--labels-only", action="store_true", help="read no image file of a folder, only tables "
        "and names",
    )
    add_json(parser)
    parser.add_argument("--html", metavar="F", help="write a page to read")
    parser.add_argument(
        "--bits", type=int, default=duplicates.BITS,
        help="of the 64 of a perceptual hash, that may differ in a near-duplicate (default: "
        "%(default)s; 0 to 16)",
    )
    parser.add_argument(
        "--shortcut", type=float, default=audit_checks.SHORTCUT, metavar="AUROC",
        help="warn where source, view, sex or age alone tells a label so well (default: "
        "%(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Audits, prints the tables, writes the files, and exits with code 1 if anything leaks."""
    if not 0 <= args.bits <= 16:
        raise UserError(f"--bits is {args.bits}; allowed: 0 to 16")
    if not 0.5 <= args.shortcut <= 1:
        raise UserError(f"--shortcut is {args.shortcut}; allowed: 0.5 to 1")
    data_sets = audited_files.load(args.manifests, args.map, args.images, args.labels_only)
    result = audit_result.audit(data_sets, args.bits, args.shortcut)
    write_json(args, audit_result.to_table(result), **result)
    if args.html:
        _write(pathlib.Path(args.html), audit_result.to_html(result))
    width = None if sys.stdout.isatty() else _WIDTH
    _show(result, rich.console.Console(width=width, highlight=False))
    if result["leaks"]:
        sys.exit(1)


def _show(result: dict, console: rich.console.Console) -> None:
    """Prints the result of `audit`: tables of counts, then the findings, then the verdict."""
    for data_set in result["data_sets"]:
        for note in data_set["notes"]:
            console.print(f"{data_set['name']}: {note}", markup=False)
    for table in result["tables"]:
        title, columns, rows = audit_result.counts(table)
        shown = _table(title, columns)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    if result["findings"]:
        console.print(_findings(result["findings"]))
    unsure = result["not_compared"] and not result["leaks"]
    style = "bold red" if result["leaks"] else "bold yellow" if unsure else "bold green"
    console.print(audit_result.verdict(result), style=style)


def _table(title: str, columns: Sequence[str]) -> rich.table.Table:
    table = rich.table.Table(
        *columns, title=rich.markup.escape(title), title_justify="left", box=rich.box.SIMPLE_HEAD
    )
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _findings(findings: Sequence[dict]) -> rich.table.Table:
    table = rich.table.Table(
        "", "finding", "between", "what, for example, what to do", title="Findings",
        title_justify="left", box=rich.box.SIMPLE_HEAD, show_lines=True,
    )
    for finding in findings:
        shown = finding["items"][:_SHOWN]
        more = len(finding["items"]) - len(shown)
        names = "; ".join(shown) + (f"; {more:,} more" if more else "")
        cells = (
            finding["severity"], f"{finding['kind'].replace('_', ' ')}: {finding['count']:,}",
            "\n".join(map(audit_result.place, finding["between"])),
            "\n".join(filter(None, (finding["text"], names, f"-> {finding['advice']}"))),
        )
        style = _STYLES[finding["severity"]]
        table.add_row(f"[{style}]{cells[0]}", *map(rich.markup.escape, cells[1:]))
    return table


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that exists"
        ) from error
