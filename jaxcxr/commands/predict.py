"""`jaxcxr predict`: what a trained model says of radiographs, or of keypoints of people.

    jaxcxr predict --model=cxr.jaxcxr folder/ 'more/**/*.dcm' one.png --out=DIR --heatmaps

Findings in chest radiographs, by a bundle: PNG, JPEG, TIFF and DICOM mixed; see
`jaxcxr.deploy.predict.xray_predictor`. `DIR/predictions.csv` and `.jsonl` have a row for each file: calibrated
probabilities, the findings at the shipped thresholds, and what is flagged as no frontal chest
radiograph, by DICOM tags and by `jaxcxr.deploy.bundle.guard`. `--format=csv,sr` adds DICOM structured
reports in `DIR/sr`, `--heatmaps` pictures in `DIR/heatmaps`.

    jaxcxr predict --workdir=RUN walk.json dance.npz openpose_folder/ --fps=30 --size=1920x1080

3D poses from 2D keypoints of videos, by a run or a bundle (`--model`). Reads the files of
`jaxcxr.pose.keypoints.keypoint_files`, takes the checkpoint that `evaluate` takes, brings the keypoints to
the frame rate of its training data and the poses back to the video's, and fades long videos
together from windows that overlap by half. Written are `OUT/NAME.npz` (millimetres; x right, y
down, z forward; relative to the hip), `OUT/NAME.csv` and `OUT/NAME_PERSON.bvh` (centimetres, y up,
constant bone lengths).

A file that cannot be read is a row with its error, the others go on, and the exit code is then 1.
"""

import argparse
import pathlib
import re
import time
from collections.abc import Sequence

from jaxcxr.deploy.predict import xray_predictor
from jaxcxr.deploy.predict.lifter import Lifter
from jaxcxr.errors import RunError, UserError
from jaxcxr.pose.formats import prediction_files
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.keypoints import keypoint_files
from jaxcxr.pose.keypoints.keypoint_files import Track, Video

FORMATS = ("npz", "csv", "bvh")
_SIZE = re.compile(r"(\d+)x(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="radiographs: files, folders or patterns; or 2D keypoints: .json of COCO or "
        "AlphaPose, .npz, or a folder of OpenPose's files",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="BUNDLE", help="file that `jaxcxr bundle` wrote")
    model.add_argument("--workdir", metavar="RUN", help="folder of a run of poses")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--format", default=None, metavar="A,B",
        help="radiographs: of csv,jsonl,sr (default: csv,jsonl); poses: of "
        f"{','.join(FORMATS)} (default: npz)",
    )
    xray_predictor.add_arguments(parser)
    group = parser.add_argument_group("of poses")
    group.add_argument("--fps", type=float, help="frames per second of the videos")
    group.add_argument(
        "--size", metavar="WxH", help="size of the image in pixels, where the file does not say it"
    )
    group.add_argument(
        "--joints", default="", metavar="SET",
        help=f"joint set of the keypoints: {', '.join(joint_sets.JOINT_SETS)} (default: told by "
        "the number of points)",
    )
    group.add_argument(
        "--person", action="append", metavar="ID", help="only this person; may be given again"
    )
    group.add_argument(
        "--symmetric", action="store_true", help="left and right bones of a .bvh of equal length"
    )


def run(args: argparse.Namespace) -> None:
    """Predict for every file.

    Raises:
      UserError: a mistake in the arguments, no model, or a model of another task.
      RunError: some of the files could not be used.
    """
    source = pathlib.Path(args.workdir or args.model).expanduser()
    if args.model:
        from jaxcxr.deploy.bundle.bundled_model import Bundle

        source = Bundle.load(source)
        if source.task == "cxr":
            _refuse(args, ("fps", "size", "joints", "person", "symmetric"), "radiographs")
            xray_predictor.run(args, source, _folder(args.out))
            return
    _refuse(args, ("heatmaps", "refuse"), "poses")
    _lift(args, source)


def _refuse(args: argparse.Namespace, options: Sequence[str], what: str) -> None:
    """A UserError for the first option given that is not for the model."""
    for name in options:
        if getattr(args, name):
            raise UserError(f"--{name} is not for models of {what}; leave it out.")


def _folder(text: str) -> pathlib.Path:
    out = pathlib.Path(text).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    return out


def _lift(args: argparse.Namespace, source) -> None:
    """Lifts every file and prints a line for each."""
    formats = _formats(args.format or "npz")
    size = _size(args.size)
    if args.fps is not None:
        keypoint_files.check_fps(args.fps, "--fps")
    if args.joints:
        joint_sets.joint_set(args.joints)
    paths = [pathlib.Path(path).expanduser() for path in args.inputs]
    for path in paths:
        if not path.exists():
            raise UserError(f"no keypoints at {path}; check the path.")
    out, names, failed = _folder(args.out), prediction_files.Names(), 0
    lifter = Lifter(source)
    print(lifter.description)
    for number, path in enumerate(paths, start=1):
        begun, stem = time.perf_counter(), names.new(path.resolve())
        try:
            video = keypoint_files.read(path, fps=args.fps, size=size, joints=args.joints)
            people = lifter.lift(video, _chosen(video, args.person))
            lines = _write(out, stem, video, people, formats, args.symmetric, lifter)
        except UserError as error:
            failed += 1
            lines = [f"failed: {error}"]
        else:
            frames = sum(len(person.joints) for person in people)
            lines.insert(0, f"{len(people)} people, {frames:,} poses at {video.fps:g} fps from "
                            f"{video.joint_set}, {time.perf_counter() - begun:.1f} s")
        print(f"[{number}/{len(paths)}] {path.name}: " + "\n    ".join(lines), flush=True)
    if failed:
        raise RunError(f"{failed} of {len(paths)} files could not be used; see above.")


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--format {name!r} is not known; formats: {', '.join(FORMATS)}.")
    return formats


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if not match:
        raise UserError(f"--size {text!r} is not width x height in pixels, such as 1920x1080.")
    return int(match[1]), int(match[2])


def _chosen(video: Video, people: Sequence[str] | None) -> list[Track]:
    there = {track.person: track for track in video.tracks}
    for person in people or ():
        if person not in there:
            shown = ", ".join(list(there)[:20])
            raise UserError(f"{video.path}: no person {person!r}; its people: {shown}.")
    return [track for track in video.tracks if people is None or track.person in people]


def _write(out, stem, video, people, formats, symmetric, lifter) -> list[str]:
    lines = []
    if "npz" in formats:
        path = out / f"{stem}.npz"
        lines.append(str(prediction_files.write_npz(path, video, people, lifter.about)))
    if "csv" in formats:
        lines.append(str(prediction_files.write_csv(out / f"{stem}.csv", video, people)))
    if "bvh" in formats:
        for person in people:
            path = out / f"{stem}_{prediction_files.file_name(person.track.person)}.bvh"
            _, fit = prediction_files.write_bvh(path, video, person, symmetric)
            lines.append(
                f"{path}: with constant bone lengths {fit.residual.mean():.1f} mm from the poses "
                f"on average, {fit.residual.max():.0f} mm at most"
            )
    return lines
