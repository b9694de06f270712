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
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import frame_rates, gaps, keypoint_files
from jaxcxr.pose.keypoints.keypoint_files import Options, Track, Video
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
        self._confidence = pose_runs.confidence(config)
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
        self._confidence = facts.get("confidence") or pose_runs.confidence(bundle.config)
        config = pose_runs.one_batch(bundle.config)
        self._run = setup.make(config, registry.task(config.task).without_data(config))
        self._variables = _placed(self._run, bundle)

    @property
    def description(self) -> str:
        """Describes the model in one line."""
        return (f"{self.about['model']} of {self.about['run']}, checkpoint of step {self._step}, "
                f"windows of {self._frames} frames at {self._fps:g} fps")

    def check(self, video: Video, tracks: Sequence[Track]) -> None:
        """Raises a UserError if a joint was never seen and the model learned whole bodies alone."""
        if self._confidence["unseen"]:
            return
        for track in tracks:
            for begin, end in gaps.runs(track.states != gaps.ABSENT):
                lacking = ~track.known[begin:end].any(0)
                if lacking.any():
                    names = ", ".join(np.array(HUMAN36M.joints)[lacking])
                    raise UserError(
                        f"{video.path}, person {track.person}: {names} not seen in frames "
                        f"{video.frames(track)[begin]} to {video.frames(track)[end - 1]}; this "
                        "model learned from whole bodies alone. Use one that was trained with "
                        "missed joints (--dropout, --occlusion of the source), or choose others "
                        "with --person."
                    )

    def lift(self, video: Video, tracks: Sequence[Track]) -> list[Person]:
        """Lifts the `tracks` of a video to 3D poses."""
        stretches = [
            (track, begin, end) for track in tracks for begin, end in
            gaps.runs(track.states != gaps.ABSENT) or [(0, len(track.keypoints))]
        ]
        sequences = [
            _sequence(number, self._inputs(video, *stretch), self._fps)
            for number, stretch in enumerate(stretches)
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
            whole[name] = {
                id(track): np.full((len(track.keypoints), *parts[0].shape[1:]), np.nan, np.float32)
                for track in tracks
            }
            for (track, begin, end), part in zip(stretches, parts, strict=True):
                whole[name][id(track)][begin:end] = frame_rates.resample_positions(
                    part, end - begin, video.fps, self._fps
                )
        return [
            Person(track, **{name: parts[id(track)] for name, parts in whole.items()})
            for track in tracks
        ]

    def _inputs(self, video: Video, track: Track, begin: int, end: int) -> np.ndarray:
        """Makes screen coordinates with confidence, `[training frames, 17, 3]`.

        Detectors measure their confidence in different ways, and none as the training data do:
        what was seen gets the usual confidence of training.
        """
        part = slice(begin, end)
        known = track.known[part]
        certain = np.where(known, np.float32(self._confidence["usual"]), np.float32(0))
        keypoints, confidence = frame_rates.resample_keypoints(
            track.keypoints[part], certain, video.fps, self._fps
        )
        screen = cameras.normalize_screen(keypoints, *video.size_of(track))
        seen = confidence[..., None] > 0
        inputs = np.concatenate([np.where(seen, screen, 0.0), confidence[..., None]], -1)
        return inputs.astype(np.float32)



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
    options: Options | None = None,
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
      options: how to read the files.
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
            video = keypoint_files.read(path, options)
            chosen = _chosen(video, people)
            lifter.check(video, chosen)
            lifted = lifter.lift(video, chosen)
            lines = _write(out, stem, video, lifted, formats, symmetric, lifter)
        except UserError as error:
            failed += 1
            lines = [f"failed: {error}"]
        else:
            lines.insert(0, f"{_counted(video, lifted)}, {time.perf_counter() - begun:.1f} s")
            lines[1:1] = video.notes
        say(f"[{number}/{len(paths)}] {path.name}: " + "\n    ".join(lines))
    if failed:
        raise RunError(f"{failed} of {len(paths)} files could not be used; see above.")


def _counted(video: Video, people: Sequence[Person]) -> str:
    """Says how many people and poses there are, and how many of these were seen."""
    states = np.concatenate([person.track.states for person in people])
    count = [int((states == state).sum()) for state in (gaps.SEEN, gaps.FILLED, gaps.ABSENT)]
    text = f"{len(people)} people, {count[0] + count[1]:,} poses at {video.fps:.5g} fps"
    if count[1] or count[2]:
        text += (f" ({count[0]:,} frames seen, {count[1]:,} filled, {count[2]:,} absent in gaps)")
    return f"{text} from {video.joint_set}"


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
            stem_ = f"{stem}_{prediction_files.file_name(person.track.person)}"
            for path, fit in prediction_files.write_bvhs(out, stem_, video, person, symmetric):
                lines.append(
                    f"{path}: with constant bone lengths {fit.residual.mean():.1f} mm from the "
                    f"poses on average, {fit.residual.max():.0f} mm at most"
                )
    return lines
