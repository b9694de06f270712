"""`jaxcxr relabel`: adds the positives that networks see which never saw the patient.

    jaxcxr relabel --config=F --members=5 --out=DIR [--adjudicated=CSV]
    jaxcxr train --config=F --config.data.labels=DIR/labels.csv --workdir=D

The training split is divided by patient into as many folds as there are members. Each member is
trained as the config says, without `--held-out` of the folds, and scores these; its checkpoint is
chosen on the ordinary validation split. A finished member is not trained again, and an interrupted
one goes on from its last checkpoint. The validation and test splits keep their labels, and no test
image is scored. DIR then holds `member_K/` (the workdirs), `labels.csv` (which `data.labels`
reads), `changes.csv` (each changed label), `summary.json` and the table that is printed.

Where networks are weak, the threshold of greatest F1 adds far more false positives than true ones:
look at the table, and at `--adjudicated` labels where there are any, before training on the result.
"""

import argparse
import pathlib

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import UserError

TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options; `--config=FILE[:ARG]` and its overrides are as for training."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the result")
    parser.add_argument(
        "--members", type=int, default=5, help="networks, and folds of patients (default: 5)"
    )
    parser.add_argument(
        "--held-out", type=int, default=2,
        help="folds each network is not trained on: so many networks score each image (default: 2)",
    )
    parser.add_argument(
        "--adjudicated", metavar="CSV",
        help="expert labels of some training images, to compare with before and after",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Trains the members, relabels, writes and prints."""
    from jaxcxr import main
    from jaxcxr.study import out_of_fold

    config = main.load_config(args.config)
    _check(config, args.members, args.held_out)
    out = pathlib.Path(args.out).expanduser()
    table = out_of_fold.relabel(
        config, out, args.members, args.held_out, args.adjudicated, print
    )
    if table is not None:
        write_json(args, table)


def _check(config, members: int, held_out: int) -> None:
    if config.task != "cxr":
        raise UserError(f"relabel serves the task 'cxr', but config.task is {config.task!r}.")
    if config.data.folds or config.data.labels:
        raise UserError(
            "relabel starts from the recorded labels and sets data.folds, data.left_out and "
            "data.labels itself; leave them out of the config."
        )
    if not 2 <= members <= 1000:
        raise UserError(f"--members is {members}; allowed: 2 to 1000.")
    if not 1 <= held_out < members:
        raise UserError(f"--held-out is {held_out}; allowed: 1 to {members - 1} (--members - 1).")
