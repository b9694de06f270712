"""`jaxcxr predict`: 3D poses from the 2D keypoints of videos, by a trained run.

    jaxcxr predict --workdir=RUN walk.json dance.npz openpose_folder/ --fps=30 --size=1920x1080

Reads the files of `jaxcxr.data.keypoint_files`, loads the checkpoint that `evaluate` takes (the
average of the parameters where one was kept), brings the keypoints to the frame rate of its
training data and the poses back to the video's, and fades long videos together from windows that
overlap by half. The prepared data of the run is not needed.

Written are `OUT/NAME.npz` (millimetres; x right, y down, z forward; relative to the hip),
`OUT/NAME.csv` and `OUT/NAME_PERSON.bvh` (centimetres, y up, constant bone lengths). A file that
cannot be read is a row of the summary, and the exit code is then 1.
"""

import argparse
import pathlib
import re
import time
from collections.abc import Sequence

from jaxcxr.analysis import prediction_files
from jaxcxr.data import joint_sets, keypoint_files
from jaxcxr.data.keypoint_files import Track, Video
from jaxcxr.errors import RunError, UserError
from jaxcxr.lifter import Lifter

FORMATS = ("npz", "csv", "bvh")
_SIZE = re.compile(r"(\d+)x(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "keypoints", nargs="+", metavar="KEYPOINTS",
        help="2D keypoints: .json of COCO or AlphaPose, .npz, or a folder of OpenPose's files",
    )
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--fps", type=float, help="frames per second of the videos")
    parser.add_argument(
        "--size", metavar="WxH", help="size of the image in pixels, where the file does not say it"
    )
    parser.add_argument(
        "--joints", default="", metavar="SET",
        help=f"joint set of the keypoints: {', '.join(joint_sets.JOINT_SETS)} (default: told by "
        "the number of points)",
    )
    parser.add_argument(
        "--format", default="npz", metavar="A,B", help=f"of {','.join(FORMATS)} (default: npz)"
    )
    parser.add_argument(
        "--person", action="append", metavar="ID", help="only this person; may be given again"
    )
    parser.add_argument(
        "--symmetric", action="store_true", help="left and right bones of a .bvh of equal length"
    )


def run(args: argparse.Namespace) -> None:
    """Lift every file and print a line for each.

    Raises:
      UserError: a mistake in the arguments, no run, or a run of another task.
      RunError: some of the files could not be used.
    """
    formats = _formats(args.format)
    size = _size(args.size)
    if args.fps is not None:
        keypoint_files.check_fps(args.fps, "--fps")
    if args.joints:
        joint_sets.joint_set(args.joints)
    paths = [pathlib.Path(path).expanduser() for path in args.keypoints]
    for path in paths:
        if not path.exists():
            raise UserError(f"no keypoints at {path}; check the path.")
    out = pathlib.Path(args.out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    lifter = Lifter(pathlib.Path(args.workdir).expanduser())
    print(lifter.description)
    failed = 0
    for number, (path, stem) in enumerate(zip(paths, _stems(paths), strict=True), start=1):
        begun = time.perf_counter()
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


def _stems(paths: Sequence[pathlib.Path]) -> list[str]:
    """Names for the files to write; those of equal names get numbers."""
    names: list[str] = []
    for path in paths:
        stem = name = prediction_files.file_name(path.resolve().stem)
        number = 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return names


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
