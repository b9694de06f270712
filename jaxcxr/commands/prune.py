"""`jaxcxr prune`: a smaller run from one whose model has flexible heads.

    jaxcxr prune --workdir=RUN --out=NEW
    jaxcxr evaluate --workdir=NEW
    jaxcxr train --config=NEW/config.py --workdir=NEW

Takes the checkpoint that `evaluate` takes. Heads whose static gates are closed go, the other
static gates become part of the output weights. Learned spans that reach all tokens become global,
and those that can be computed by windows `ramped`, which is no longer learned; heads of equal
spans are a group. Outputs agree but for rounding, unless `--round-spans` makes spans longer, so
that more of them are equal. What is printed is measured on examples of the validation split.

NEW is a run at step 0. Trained, it goes through the last stage of RUN, or as long as `--duration`
says, with a fresh optimiser.
"""

import argparse
import pathlib

from jaxcxr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr prune`."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--out", required=True, metavar="NEW", help="folder of the smaller run")
    parser.add_argument(
        "--duration", metavar="D",
        help="how long the smaller run trains if it is trained, such as '2 epochs' (default: as "
        "the last stage of RUN)",
    )
    parser.add_argument(
        "--round-spans", type=float, default=0.0, metavar="W",
        help="round learned spans up to multiples of W, which changes outputs (default: do not)",
    )
    parser.add_argument(
        "--examples", type=int, default=8, help="of the validation split to measure on (default: 8)"
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="in which both are timed in turn (default: 30)"
    )


def run(args: argparse.Namespace) -> None:
    """Prunes, measures, writes and prints."""
    from jaxcxr.deploy import pruned_run

    for name in ("examples", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; give a number of at least 1.")
    if args.round_spans < 0:
        raise UserError(f"--round-spans is {args.round_spans}; give a number of at least 0.")
    workdir, out = (pathlib.Path(path).expanduser() for path in (args.workdir, args.out))
    result = pruned_run.prune(
        workdir, out, args.duration, args.round_spans, args.examples, args.rounds
    )
    print(result.to_text())
    print(f"\nwritten: {out}\nto go on: jaxcxr evaluate --workdir={out}, or jaxcxr train "
          f"--config={out / 'config.py'} --workdir={out}")
