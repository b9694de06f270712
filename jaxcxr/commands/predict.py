"""`jaxcxr predict`: what a trained model says of radiographs, or of keypoints of people.

    jaxcxr predict --model=cxr.jaxcxr folder/ 'more/**/*.dcm' one.png --out=DIR --heatmaps

Findings in chest radiographs, by a bundle: PNG, JPEG, TIFF and DICOM mixed.
`DIR/predictions.csv` and `.jsonl` have a row for each file: calibrated probabilities, the findings
at the shipped thresholds, and what is flagged as no frontal chest radiograph, by DICOM tags and by
the bundle's guard; of that, no findings are stated. `--format=csv,sr` adds DICOM structured reports
in `DIR/sr`, `--heatmaps` pictures in `DIR/heatmaps`.

    jaxcxr predict --workdir=RUN walk.json dance.npz openpose_folder/ --fps=30 --size=1920x1080

3D poses from 2D keypoints of videos, by a run or a bundle (`--model`). Reads the files of
`jaxcxr.pose.keypoints.keypoint_files`, takes the checkpoint that `evaluate` takes, brings the
keypoints to the frame rate of its training data and the poses back to the video's, and fades long
videos together from windows that overlap by half. Written are `OUT/NAME.npz` (millimetres; x right,
y down, z forward; relative to the hip), `OUT/NAME.csv` and `OUT/NAME_PERSON.bvh` (centimetres, y
up, constant bone lengths).

A file that cannot be read is a row with its error, the others go on, and the exit code is then 1.
"""

import argparse
import functools
import pathlib
import re
from collections.abc import Sequence

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import prediction_files
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import frame_numbers, gaps, keypoint_files, plausibility

_SIZE = re.compile(r"(\d+)\s*[x×X,]\s*(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr predict`."""
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="radiographs: files, folders or patterns; or 2D keypoints: .json of COCO, AlphaPose, "
        "mmpose, Ultralytics or MediaPipe, .npz, .csv or .h5, or a folder of files per frame",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="BUNDLE", help="file that `jaxcxr bundle` wrote")
    model.add_argument("--workdir", metavar="RUN", help="folder of a run of poses")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--format", default=None, metavar="A,B",
        help="radiographs: of csv,jsonl,sr (default: csv,jsonl); poses: of "
        f"{','.join(prediction_files.FORMATS)} (default: npz)",
    )
    _add_xray_arguments(parser)
    _add_pose_arguments(parser)


def _add_xray_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of radiographs")
    group.add_argument(
        "--heatmaps", nargs="?", const="auto", default="", metavar="METHOD",
        help="draw where the model looks, for each finding; METHOD as in `jaxcxr explain`",
    )
    group.add_argument(
        "--refuse", action="store_true",
        help="no probabilities for what is flagged as no frontal chest radiograph",
    )
    group.add_argument("--batch", type=int, default=32, metavar="N", help="default: 32")
    group.add_argument("--threads", type=int, default=0, help="that read (default: one per core)")


def _add_pose_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of poses")
    group.add_argument("--fps", help="frames per second of the videos, such as 25 or 30000/1001")
    group.add_argument(
        "--size", metavar="WxH", help="size of the image in pixels, where the file does not say it"
    )
    group.add_argument(
        "--joints", default="", metavar="SET",
        help=f"joint set of the keypoints: {', '.join(joint_sets.JOINT_SETS)} (default: told by "
        "the number of points)",
    )
    group.add_argument(
        "--fill", type=float, default=gaps.LONGEST, metavar="SECONDS",
        help=f"longest gap to fill (default: {gaps.LONGEST:g}); longer ones stay gaps",
    )
    group.add_argument(
        "--rotate", type=int, choices=plausibility.ROTATIONS,
        help="clockwise turn that brings the image upright, degrees",
    )
    group.add_argument(
        "--min-seconds", type=float, metavar="SECONDS", help="leave out people seen for less "
        "(default: 0.2, if that is below a tenth of the longest)",
    )
    group.add_argument(
        "--min-score", type=float, metavar="SCORE", help="leave out people whose points have a "
        "lower mean confidence (default: a quarter of the highest)",
    )
    group.add_argument(
        "--person", action="append", metavar="ID", help="only this person; may be given again"
    )
    group.add_argument(
        "--symmetric", action="store_true", help="left and right bones of a .bvh of equal length"
    )


def run(args: argparse.Namespace) -> None:
    """Predicts for every file."""
    path, bundle = pathlib.Path(args.workdir or args.model).expanduser(), None
    if args.model:
        from jaxcxr.deploy.bundle.bundled_model import Bundle

        bundle = Bundle.load(path)
        if bundle.task == "cxr":
            _refuse(args, ("fps", "size", "joints", "rotate", "min_seconds", "min_score", "person",
                           "symmetric"), "radiographs")
            _predict_xrays(args, bundle)
            return
    _refuse(args, ("heatmaps", "refuse"), "poses")
    _lift(args, bundle or path)


def _predict_xrays(args: argparse.Namespace, bundle) -> None:
    from jaxcxr.deploy.predict import xray_files, xray_predictor

    out = _folder(args.out)
    formats = _formats(args.format or "csv,jsonl", xray_files.FORMATS, "formats of radiographs")
    if args.batch < 1 or args.threads < 0:
        raise UserError("--batch must be at least 1, --threads at least 0.")
    paths = xray_predictor.find(args.inputs)
    xray_files.predict_files(
        bundle, paths, out, formats, print, heatmaps=args.heatmaps, refuse=args.refuse,
        batch=args.batch, threads=args.threads,
    )


def _lift(args: argparse.Namespace, source) -> None:
    from jaxcxr.deploy.predict.lifter import Lifter, lift_files

    formats = _formats(args.format or "npz", prediction_files.FORMATS, "formats of poses")
    options = keypoint_files.Options(
        _fps(args.fps), _size(args.size), args.joints, _positive(args.fill, "--fill") or 0.0,
        args.rotate,
        _positive(args.min_seconds, "--min-seconds"), _positive(args.min_score, "--min-score"),
    )
    if args.joints:
        joint_sets.joint_set(args.joints)
    paths = [pathlib.Path(path).expanduser() for path in args.inputs]
    for path in paths:
        if not path.exists():
            raise UserError(f"no keypoints at {path}; check the path.")
    out = _folder(args.out)
    lift_files(
        Lifter(source), paths, out, formats, functools.partial(print, flush=True), options=options,
        people=args.person, symmetric=args.symmetric,
    )


def _refuse(args: argparse.Namespace, options: Sequence[str], what: str) -> None:
    """Raises a UserError for the first option given that is not for the model."""
    for name in options:
        if getattr(args, name):
            option = name.replace("_", "-")
            raise UserError(f"--{option} is not for models of {what}; leave it out.")


def _folder(text: str) -> pathlib.Path:
    out = pathlib.Path(text).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    return out


def _formats(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in formats:
        if name not in known:
            raise UserError(f"--format {name!r} is not known; {what}: {', '.join(known)}.")
    return formats


def _fps(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return keypoint_files.check_fps(frame_numbers.rate(text), "--fps")
    except ValueError as error:
        raise UserError(f"--fps {text!r} is no rate, such as 25 or 30000/1001.") from error


def _positive(value: float | None, option: str) -> float | None:
    if value is not None and not 0 <= value < float("inf"):
        raise UserError(f"{option} must be a number from 0.")
    return value


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    width, height = map(int, match.groups()) if match else (0, 0)
    if not width or not height:
        raise UserError(f"--size {text!r} is not width x height in pixels, such as 1920x1080.")
    return width, height
