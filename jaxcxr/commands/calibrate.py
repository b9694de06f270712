"""`jaxcxr calibrate`: probabilities and thresholds of each class, fitted on validation images.

A run does it at its end, as `config.calibration` says. This does it again in another way, or for
predictions of any framework:

    jaxcxr calibrate --workdir runs/demo --method isotonic --threshold sensitivity --target 0.95
    jaxcxr calibrate --labels val_labels.csv --predictions val.csv --out calibration.json
"""

import argparse
import pathlib

from jaxcxr.errors import UserError
from jaxcxr.statistics import reliability
from jaxcxr.xray.evaluation import calibration_fit
from jaxcxr.xray.evaluation.calibration import METHODS, NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr calibrate`."""
    parser.epilog = (
        "Labels and predictions are as `jaxcxr score` reads them, the scores between 0 and 1. Use "
        "validation images: thresholds chosen on test images make their figures too good."
    )
    parser.add_argument("--workdir", metavar="D", help="a run: its predictions/validation.csv")
    parser.add_argument("--labels", metavar="FILE", help="the true labels of validation images")
    parser.add_argument("--predictions", metavar="FILE", help="their scores")
    parser.add_argument("--split-list", metavar="TXT", help="use these images only")
    parser.add_argument("--out", metavar="FILE", help=f"default: {NAME} of the workdir")
    parser.add_argument("--method", choices=METHODS, default="platt", help="default: %(default)s")
    parser.add_argument(
        "--threshold", choices=reliability.THRESHOLD_RULES, default="f1",
        help="rule of the threshold that is shipped; all are stored; default: %(default)s",
    )
    parser.add_argument(
        "--target", type=float, default=0.9, metavar="X",
        help="of the rules sensitivity and specificity; default: %(default)s",
    )
    parser.add_argument(
        "--prevalence", nargs="+", default=[], metavar="CLASS=P",
        help="share of positives where the model is to be used",
    )


def run(args: argparse.Namespace) -> None:
    """Fits, writes the file, prints a line for each class."""
    labels, predictions, out = _files(args)
    if not 0 < args.target < 1:
        raise UserError(f"--target is {args.target}; allowed: above 0 and below 1")
    prevalences = dict(map(_prevalence, args.prevalence))
    calibration = calibration_fit.fit_files(
        labels, predictions, args.split_list, args.method, args.threshold, args.target
    ).with_prevalences(prevalences)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        calibration.save(out)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); give another --out"
        ) from error
    print(calibration_fit.to_text(calibration))
    print(f"Written: {out}")


def _files(args: argparse.Namespace) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """Returns labels, predictions and the file to write."""
    if args.workdir:
        if args.labels or args.predictions:
            raise UserError("--workdir has its own labels and predictions; leave the others out")
        workdir = pathlib.Path(args.workdir)
        path = workdir / "predictions" / "validation.csv"
        if not path.exists():
            raise UserError(
                f"{path} is missing; `jaxcxr evaluate --workdir={workdir}` of a chest X-ray run "
                "writes it if the data have a validation split"
            )
        return path, path, pathlib.Path(args.out) if args.out else workdir / NAME
    if not (args.labels and args.predictions and args.out):
        raise UserError("give --workdir, or all of --labels, --predictions and --out")
    return pathlib.Path(args.labels), pathlib.Path(args.predictions), pathlib.Path(args.out)


def _prevalence(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"--prevalence {text!r} is not like Effusion=0.1") from None
