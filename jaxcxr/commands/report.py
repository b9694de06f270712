"""`jaxcxr report`: the page `RUN/report/index.html` anew, with what commands have added.

    jaxcxr stress --workdir=RUN
    jaxcxr explain --workdir=RUN
    jaxcxr report --workdir=RUN

Every run writes the page at its end; this command adds the tables of `stress` and `explain`. The
page is one file that opens offline.
"""

import argparse
import contextlib

from jaxcxr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr report`."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--split", default="test", choices=("validation", "test"), help="default: test"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the page."""
    import jax

    from jaxcxr.train import finished
    from jaxcxr.train import workdir as workdir_lib

    workdir = workdir_lib.parse(args.workdir)
    if workdir_lib.is_remote(workdir):
        raise UserError(f"{workdir}: copy the run to a folder of this machine first.")
    if not any((workdir / "predictions").glob(f"{args.split}.*")):
        finished.load_config(workdir)
        raise UserError(
            f"{workdir} holds no predictions of the {args.split} split; run jaxcxr evaluate first, "
            "which writes those of the splits that the data have."
        )
    with finished.open_best(workdir) as run_, contextlib.closing(
        workdir_lib.Local(workdir)
    ) as local:
        variables = jax.device_get(run_.variables)
        path = run_.task.page(args.split, run_.model, variables, local.path)
    print(f"written: {path}")
