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
    """Adds the options."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--split", default="test", choices=("validation", "test"), help="default: test"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page.

    Raises:
      UserError: no run, or it has not been evaluated.
    """
    import jax

    from jaxcxr import config as config_lib
    from jaxcxr.report import run_sections
    from jaxcxr.train import checkpoint, setup
    from jaxcxr.train import workdir as workdir_lib

    workdir = workdir_lib.parse(args.workdir)
    if workdir_lib.is_remote(workdir):
        raise UserError(f"{workdir}: copy the run to a folder of this machine first.")
    config = config_lib.from_saved(checkpoint.load_config(workdir))
    run_ = setup.make(config)
    with run_.mesh_context(), contextlib.closing(
        checkpoint.Checkpoints(workdir, config)
    ) as checkpoints:
        _, state = run_.best_state(checkpoints, workdir)
        variables = jax.device_get({"params": state.eval_params, "batch_stats": state.batch_stats})
        with contextlib.closing(workdir_lib.Local(workdir)) as local:
            path = run_sections.write(run_.task, run_.model, variables, args.split, local.path)
    print(f"written: {path}")
