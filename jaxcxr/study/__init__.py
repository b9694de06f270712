"""`jaxcxr study`: a grid of rows x seeds x data sets, resumable, and one table for each data set.

    jaxcxr study --config=configs/study_flex.py --workdir=runs/study

A study file has `get_config(ARG)`, as every config file, which for the name of a data set returns
the config that all rows start from, and `get_study()`, which returns a `Study`. Each run is the
ordinary trainer in a process of its own, so that memory stays flat and a crash costs one run, and
all processes share one cache of compiled programs. A finished run is not done again; an
interrupted one goes on from its last checkpoint; one that fails is reported and the rest goes on.
`--table` prints the table of what is finished at any time.

WORKDIR holds `DATA/ROW/seed_N/`, each an ordinary workdir with `config.json`, besides `log.txt`
(the screen of the run) and `result.json`; `table_DATA.csv` and `table_DATA.md`; and where poses are
lifted, `poses.csv` and `poses.md`, with P-MPJPE, MPJVE and intervals over motions.
"""

import argparse
import pathlib

from jaxcxr.errors import RunError, UserError
from jaxcxr.study.grid import Cell, Context, Study, load, read_result
from jaxcxr.study.runner import Runner

__all__ = ["Context", "Study", "add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--config", dest="file", required=True, metavar="FILE", help="study file")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of all runs")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN",
        help="runs to do, a pattern over DATA/ROW/seed_N, such as 'cmu_mocap/plain-*'",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only write and print the table")


def run(args: argparse.Namespace) -> None:
    """Do the runs that are missing, then write and print the tables.

    Raises:
      UserError: a mistake in the options or the study.
      RunError: a run failed; the others were done.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; give at least 1.")
    study, config_of = load(pathlib.Path(args.file))
    root = pathlib.Path(args.workdir).expanduser().absolute()
    if args.table:
        tables(study, config_of, root)
        return
    runner = Runner(study, config_of, root, args.jobs)
    failed = runner.run(args.only)
    if failed is None:
        return
    tables(study, config_of, root)
    if failed:
        raise RunError(f"{len(failed)} of the runs were not done:\n  " + "\n  ".join(
            f"{cell}: {why}" for cell, why in failed.items()))


def tables(study: Study, config_of, root: pathlib.Path) -> None:
    """Write and print the table of each data set that has a finished run.

    Raises:
      UserError: no run of the study is finished.
    """
    from jaxcxr.study import pose_table, study_table

    found, poses = False, []
    for data in study.data:
        results = {
            row: {
                seed: result for seed in study.seeds
                if (result := read_result(root / str(Cell(data, row, seed)))) is not None
            }
            for row in study.rows
        }
        if not any(results.values()):
            continue
        config = config_of(data)
        found, higher = True, config.checkpoint.mode == "max"
        table = study_table.make(data, results, study.references, higher)
        (root / f"table_{data}.csv").write_text(study_table.to_csv(table), encoding="utf-8")
        text = study_table.to_markdown(table)
        (root / f"table_{data}.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)
        scored = {row: {seed: result for seed, result in runs.items() if "sequences" in result}
                  for row, runs in results.items()}
        if any(scored.values()):
            poses += pose_table.make(data, config.data.frames, scored, table.reference)
    if poses:
        (root / "poses.csv").write_text(pose_table.to_csv(poses), encoding="utf-8")
        text = pose_table.to_markdown(poses)
        (root / "poses.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)
    if not found:
        raise UserError(f"no run of the study is finished in {root}.")
