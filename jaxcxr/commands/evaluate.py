"""`jaxcxr evaluate --data`: a trained model on a data set that it was not made for.

    jaxcxr evaluate --workdir=RUN --data=PREPARED
    jaxcxr evaluate --model=FILE.jaxcxr --data=PREPARED

Classes meet by name; those that one side lacks are said and left out. Without `--data`,
`jaxcxr evaluate --workdir=RUN` evaluates a run on its own data.
"""

import argparse
import pathlib

from jaxcxr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr evaluate --data`."""
    parser.add_argument("--workdir", metavar="RUN", help="folder of the run")
    parser.add_argument("--model", metavar="FILE", help="bundle, in place of a run")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="prepared data set of radiographs"
    )
    parser.add_argument(
        "--split", default="", choices=("train", "validation", "test", "all"),
        help="default: test, or all where there is no test split",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write to (default: RUN/external/NAME, or one named "
        "after model and data)"
    )
    parser.add_argument(
        "--equalized", default="", choices=("none", "hist", "clahe"),
        help="how the images were equalised, where the data set does not record it",
    )


def run(args: argparse.Namespace) -> None:
    """Evaluates, writes and prints."""
    from jaxcxr.deploy.predict import external_validation
    from jaxcxr.train import workdir as workdir_lib

    if bool(args.workdir) == bool(args.model):
        raise UserError("give either --workdir=RUN or --model=FILE beside --data.")
    out = pathlib.Path(args.out).expanduser() if args.out else None
    more = args.data, args.split, out, print, args.equalized
    if args.model:
        table = external_validation.evaluate_bundle(args.model, *more)
    else:
        table = external_validation.evaluate_run(workdir_lib.parse(args.workdir), *more)
    print(table)
