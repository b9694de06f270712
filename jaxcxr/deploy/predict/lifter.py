"""Lifts 2D keypoints of people in videos to 3D poses, by a run or a bundle, and writes them.

The prepared data of the run are not needed.
"""

import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxcxr import registry
from jaxcxr.deploy import pose_runs
from jaxcxr.deploy.bundle.bundled_model import Bundle, check_shapes
from jaxcxr.errors import RunError, UserError
from jaxcxr.pose.formats import prediction_files
from jaxcxr.pose.formats.prediction_files import Person
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.keypoints import frame_rates, keypoint_files
from jaxcxr.pose.keypoints.keypoint_files import Track, Video
from jaxcxr.pose.sources import clips
from jaxcxr.train import finished, loop, setup


class Lifter:
    """Lifts by the best checkpoint of a run (its folder), by a bundle, or by a bundle's file.

    Raises:
      UserError: no run, no checkpoint, a damaged bundle, or a model of another task.
    """

    def __init__(self, source: pathlib.Path | Bundle):
        if isinstance(source, pathlib.Path) and not source.is_file():
            self._open_run(source)
        else:
            self._open_bundle(source)
        config = self._run.config
        self._frames = config.data.frames
        self.about = {
            "run": self._name, "model": config.model.name, "checkpoint": self._step,
            "training_fps": self._fps, "training_frames": self._frames,
        }
        if self._nominal_scale:
            self.about["scale"] = "nominal: as if each person were 1.75 m tall"

    def _open_run(self, workdir: pathlib.Path) -> None:
        config = finished.load_config(workdir)
        if config.task != "pose":
            raise UserError(_of_another_task(workdir, config.task))
        self._name, self._fps = workdir.resolve().name, pose_runs.training_fps(config)
        self._nominal_scale = pose_runs.nominal_scale(config)
        with finished.open_best(workdir, config=pose_runs.one_batch(config), data=False) as run:
            self._run, self._step, self._variables = run.setup, run.step, run.variables

    def _open_bundle(self, source: pathlib.Path | Bundle) -> None:
        from jaxcxr.pose.sources import motionbert

        bundle = Bundle.load(source) if isinstance(source, pathlib.Path) else source
        if bundle.task != "pose":
            raise UserError(_of_another_task(bundle.path, bundle.task))
        facts, training = bundle.facts["pose"], bundle.facts["training"]
        self._name, self._step, self._fps = training["run"], training["step"], facts["fps"]
        self._nominal_scale = motionbert.nominal_scale if facts["nominal_scale"] else None
        config = pose_runs.one_batch(bundle.config)
        self._run = setup.make(config, registry.task(config.task).without_data(config))
        self._variables = _placed(self._run, bundle)

    @property
    def description(self) -> str:
        """Describes the model in one line."""
        return (f"{self.about['model']} of {self.about['run']}, checkpoint of step {self._step}, "
                f"windows of {self._frames} frames at {self._fps:g} fps")

    def lift(self, video: Video, tracks: Sequence[Track]) -> list[Person]:
        """Lifts the `tracks` of a video to 3D poses."""
        sequences = [
            _sequence(number, _inputs(track, video, self._fps), self._fps)
            for number, track in enumerate(tracks)
        ]
        source = _windows(sequences, self._run.config)
        with self._run.mesh_context():
            predictions = loop.predict(self._run, self._variables, source)
        lifted = {name: _joined(predictions[name], source) for name in
                  {"joints", "sigma", "root"} & predictions.keys()}
        if self._nominal_scale:
            lifted = _enlarged(lifted, self._nominal_scale)
        whole = {}
        for name, parts in lifted.items():
            whole[name] = [
                frame_rates.resample_positions(part, len(track.keypoints), video.fps, self._fps)
                for track, part in zip(tracks, parts, strict=True)
            ]
        return [
            Person(track, **{name: parts[number] for name, parts in whole.items()})
            for number, track in enumerate(tracks)
        ]


def _of_another_task(path: pathlib.Path, task: str) -> str:
    return (
        f"{path} is a model of the task {task!r}, which lifts no 2D keypoints. For radiographs "
        "make a bundle (`jaxcxr bundle --workdir=RUN --out=FILE`) and give it as --model."
    )


def _windows(sequences, config):
    """Cuts windows that overlap by half; for models of the middle frame, one around each frame."""
    frames = config.data.frames
    if config.data.get("target", "sequence") == "center":
        return clips.Clips(sequences, frames, 1, "center")
    return clips.Clips(sequences, frames, max(1, frames // 2))


def _enlarged(lifted, nominal_scale) -> dict[str, list[np.ndarray]]:
    """Scales poses and their uncertainty from units of the image to nominal metres; drops root."""
    scales = [nominal_scale(joints) for joints in lifted["joints"]]
    return {
        name: [part * scale.reshape(-1, *[1] * (part.ndim - 1))
               for part, scale in zip(parts, scales, strict=True)]
        for name, parts in lifted.items() if name != "root"
    }


def _joined(values: np.ndarray, source) -> list[np.ndarray]:
    """Joins values of windows into one array for each sequence."""
    if values.shape[1] == 1 < source.frames:
        return source.stitch(values)
    return source.cross_fade(values)


def _inputs(track: Track, video: Video, training_fps: float) -> np.ndarray:
    """Makes screen coordinates with confidence, `[training frames, 17, 3]`."""
    keypoints, confidence = frame_rates.resample_keypoints(
        track.keypoints, track.confidence, video.fps, training_fps
    )
    screen = cameras.normalize_screen(keypoints, *video.size)
    seen = confidence[..., None] > 0
    inputs = np.concatenate([np.where(seen, screen, 0.0), confidence[..., None]], -1)
    return inputs.astype(np.float32)


def _sequence(number: int, inputs: np.ndarray, fps: float):
    return clips.Sequence(
        sequence_id=f"{number:06d}", subject="", action="", camera="", inputs=inputs,
        joints=np.zeros_like(inputs), fps=fps,
    )


def _placed(run_, bundle):
    """Copies the variables of a bundle to every device."""
    try:
        check_shapes(bundle.variables, jax.eval_shape(run_.init_variables))
    except ValueError as error:
        raise UserError(f"{bundle.path} is damaged: {error}") from error
    whole = jax.sharding.NamedSharding(run_.mesh, jax.sharding.PartitionSpec())
    return jax.device_put(dict(bundle.variables), whole)


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
      paths: files and folders for `keypoint_files.read`, as are `fps`, `size` and `joints`.
      out: existing folder to write to.
      formats: of `prediction_files.FORMATS`.
      say: gets a line for each file.
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
