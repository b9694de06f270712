"""Lifts files of 2D keypoints and writes the 3D poses."""

import pathlib
import time
from collections.abc import Callable, Sequence

from jaxcxr.deploy.predict.lifter import Lifter
from jaxcxr.errors import RunError, UserError
from jaxcxr.pose.formats import prediction_files
from jaxcxr.pose.formats.prediction_files import Person
from jaxcxr.pose.keypoints import keypoint_files
from jaxcxr.pose.keypoints.keypoint_files import Track, Video


def lift_files(
    lifter: Lifter,
    paths: Sequence[pathlib.Path],
    out: pathlib.Path,
    formats: Sequence[str],
    say: Callable[[str], None],
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    joints: str = "",
    people: Sequence[str] | None = None,
    symmetric: bool = False,
) -> None:
    """Lifts every file and writes its poses.

    Arguments:
      lifter: the model.
      paths: files and folders for `keypoint_files.read`.
      out: existing folder to write to.
      formats: of `prediction_files.FORMATS`.
      say: gets a line for each file.
      fps, size, joints: as in `keypoint_files.read`.
      people: names of those to lift; None: all.
      symmetric: gives left and right bones of a `.bvh` equal lengths.

    Raises:
      RunError: some files could not be used; all others were lifted and written.
    """
    names, failed = prediction_files.Names(), 0
    say(lifter.description)
    for number, path in enumerate(paths, start=1):
        begun, stem = time.perf_counter(), names.new(path.resolve())
        try:
            video = keypoint_files.read(path, fps=fps, size=size, joints=joints)
            lifted = lifter.lift(video, _chosen(video, people))
            lines = _write(out, stem, video, lifted, formats, symmetric, lifter)
        except UserError as error:
            failed += 1
            lines = [f"failed: {error}"]
        else:
            frames = sum(len(person.joints) for person in lifted)
            lines.insert(0, f"{len(lifted)} people, {frames:,} poses at {video.fps:g} fps from "
                            f"{video.joint_set}, {time.perf_counter() - begun:.1f} s")
        say(f"[{number}/{len(paths)}] {path.name}: " + "\n    ".join(lines))
    if failed:
        raise RunError(f"{failed} of {len(paths)} files could not be used; see above.")


def _chosen(video: Video, people: Sequence[str] | None) -> list[Track]:
    there = {track.person: track for track in video.tracks}
    for person in people or ():
        if person not in there:
            shown = ", ".join(list(there)[:20])
            raise UserError(f"{video.path}: no person {person!r}; its people: {shown}.")
    return [track for track in video.tracks if people is None or track.person in people]


def _write(
    out: pathlib.Path, stem: str, video: Video, people: Sequence[Person], formats: Sequence[str],
    symmetric: bool, lifter: Lifter,
) -> list[str]:
    """Writes the files of a video; returns a line for each."""
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
