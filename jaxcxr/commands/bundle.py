"""`jaxcxr bundle`: a trained model in one file, with all that its outputs need to mean something.

    jaxcxr bundle --workdir=runs/demo --out=demo.jaxcxr --licence="CC BY 4.0"

`jaxcxr.deploy.bundle` says what is in the file.
"""

import argparse
import pathlib

from jaxcxr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr bundle`."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--out", required=True, metavar="FILE", help="such as model.jaxcxr")
    parser.add_argument(
        "--licence", default="", metavar="TEXT",
        help="licence of the weights: its name, or a file with its text (default: not stated)",
    )


def run(args: argparse.Namespace) -> None:
    """Makes the file and says what is in it."""
    from jaxcxr.deploy.bundle import from_run

    out = pathlib.Path(args.out).expanduser()
    if out.is_dir():
        raise UserError(f"{out} is a folder; give --out a file such as {out / 'model.jaxcxr'}.")
    workdir = pathlib.Path(args.workdir).expanduser()
    bundle = from_run.make(workdir, out, _licence(args.licence), print)
    monitored = bundle.config.checkpoint.monitor
    value = bundle.metrics["scalars"].get(monitored)
    print(bundle.description)
    measured = "n/a" if value is None else format(value, ".4f")
    print(f"{bundle.metrics['split'] or 'not evaluated,'} {monitored}: {measured}")
    print(f"Written: {out}, {out.stat().st_size / 1e6:.1f} MB, {bundle.digest}")


def _licence(text: str) -> str:
    path = pathlib.Path(text).expanduser()
    try:
        return path.read_text(encoding="utf-8") if text and path.is_file() else text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--licence {path} cannot be read as text ({error}).") from error
