"""`jaxcxr study`: a grid of rows x seeds x data sets, resumable, and one table for each data set.

    jaxcxr study --config=configs/study_flex.py --workdir=runs/study

`jaxcxr.study` says what a study file holds, and what is written.
"""

import argparse
import pathlib

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import RunError, UserError
from jaxcxr.report.result_file import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr study`."""
    parser.add_argument("--config", dest="file", required=True, metavar="FILE", help="study file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of all runs")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN",
        help="runs to do, a pattern over DATA/ROW/seed_N, such as 'cmu_mocap/plain-*'",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only write and print the table")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Does the runs that are missing, then writes and prints the tables."""
    from jaxcxr.study import grid, runner

    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; give at least 1.")
    study, config_of = grid.load(pathlib.Path(args.file))
    root = pathlib.Path(args.workdir).expanduser().absolute()
    failed: dict[grid.Cell, str] | None = {}
    if not args.table:
        failed = runner.Runner(study, config_of, root, args.jobs).run(args.only)
        if failed is None:
            return
    found = []
    for text, table in grid.write_tables(study, config_of, root):
        print(f"\n{text}", flush=True)
        found += [table] if table else []
    note = " ".join(dict.fromkeys(table.note for table in found))
    rows = [row for table in found for row in table.rows]
    write_json(args, Table(found[0].columns, rows, note))
    if failed:
        raise RunError(f"{len(failed)} of the runs were not done:\n  " + "\n  ".join(
            f"{cell}: {why}" for cell, why in failed.items()))
