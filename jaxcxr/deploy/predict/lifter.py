"""Trained models of poses at work: 3D poses of people of a video, from a run or a bundle.

The prepared data of the run are not needed.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcxr import registry
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import motionbert_files
from jaxcxr.pose.formats.prediction_files import Person
from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.keypoints import keypoint_windows
from jaxcxr.pose.keypoints.keypoint_files import Track, Video

if TYPE_CHECKING:
    from jaxcxr.deploy.bundle.bundled_model import Bundle

_MOST_WINDOWS = 64  # at once, where the run trained on more


def training_fps(config) -> float:
    """Frames per second of a run's training data: its option `fps`, or else its source's `FPS`.

    Arguments:
      config: the run's config.
    """
    return float(config.data.options.get("fps") or _module(config).FPS)


def nominal_scale(config) -> Callable | None:
    """What brings poses of a run to a nominal scale, where its source knows no true one."""
    return getattr(_module(config), "nominal_scale", None)


def _module(config):
    """That of a run's source."""
    return sys.modules[registry.builder_class(config.data.source).__module__]


class Lifter:
    """A trained model of poses: the best checkpoint of a run, or a bundle.

    Arguments:
      source: folder of the run; or the bundle, or its file.

    Raises:
      UserError: no run, no checkpoint, a damaged bundle, or a model of another task.
    """

    def __init__(self, source: "pathlib.Path | Bundle"):
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
        from jaxcxr import config as config_lib
        from jaxcxr.train import checkpoint

        config = config_lib.from_saved(checkpoint.load_config(workdir))
        if config.task != "pose":
            raise UserError(_of_another_task(workdir, config.task))
        self._name, self._fps = workdir.resolve().name, training_fps(config)
        self._nominal_scale = nominal_scale(config)
        self._run = setup_of(config, self._fps)
        with contextlib.closing(checkpoint.Checkpoints(workdir, config)) as checkpoints:
            self._step, self._state = restore(workdir, self._run, checkpoints)

    def _open_bundle(self, source: "pathlib.Path | Bundle") -> None:
        from jaxcxr.deploy.bundle.bundled_model import Bundle

        bundle = Bundle.load(source) if isinstance(source, pathlib.Path) else source
        if bundle.task != "pose":
            raise UserError(_of_another_task(bundle.path, bundle.task))
        facts, training = bundle.facts["pose"], bundle.facts["training"]
        self._name, self._step, self._fps = training["run"], training["step"], facts["fps"]
        self._nominal_scale = motionbert_files.nominal_scale if facts["nominal_scale"] else None
        self._run = setup_of(bundle.config, self._fps)
        self._state = _placed(self._run, bundle)

    @property
    def description(self) -> str:
        """The run in one line."""
        return (f"{self.about['model']} of {self.about['run']}, checkpoint of step {self._step}, "
                f"windows of {self._frames} frames at {self._fps:g} fps")

    def lift(self, video: Video, tracks: Sequence[Track]) -> list[Person]:
        """3D poses of people of a video.

        Arguments:
          video: their video.
          tracks: which of its people.
        """
        from jaxcxr.train import loop

        sequences = [
            _sequence(number, _inputs(track, video, self._fps), self._fps)
            for number, track in enumerate(tracks)
        ]
        source = _windows(sequences, self._run.config)
        self._run.task.source = lambda split: source
        with self._run.mesh_context():
            predictions = loop.predict(self._run, self._state, "video")
        lifted = {name: _joined(predictions[name], source) for name in
                  {"joints", "sigma", "root"} & predictions.keys()}
        if self._nominal_scale:
            lifted = _enlarged(lifted, self._nominal_scale)
        whole = {}
        for name, parts in lifted.items():
            whole[name] = [
                keypoint_windows.resample_positions(
                    part, len(track.keypoints), video.fps, self._fps
                )
                for track, part in zip(tracks, parts, strict=True)
            ]
        return [
            Person(track, **{name: parts[number] for name, parts in whole.items()})
            for number, track in enumerate(tracks)
        ]


@dataclasses.dataclass(frozen=True)
class _Weights:
    """As much of a state as predictions need."""

    eval_params: Any
    batch_stats: Any


def _of_another_task(path: pathlib.Path, task: str) -> str:
    return (
        f"{path} is a model of the task {task!r}, which lifts no 2D keypoints. For radiographs "
        "make a bundle (`jaxcxr bundle --workdir=RUN --out=FILE`) and give it as --model."
    )


def _windows(sequences, config):
    """Windows that overlap by half; of models that lift the middle frame, one for each frame."""
    from jaxcxr.pose import clips

    frames = config.data.frames
    if config.data.get("target", "sequence") == "center":
        return clips.Clips(sequences, frames, 1, "center")
    return clips.Clips(sequences, frames, max(1, frames // 2))


def _enlarged(lifted, nominal_scale) -> dict[str, list[np.ndarray]]:
    """Poses in a unit of the image, and their uncertainty, in nominal metres; no root."""
    scales = [nominal_scale(joints) for joints in lifted["joints"]]
    return {
        name: [part * scale.reshape(-1, *[1] * (part.ndim - 1))
               for part, scale in zip(parts, scales, strict=True)]
        for name, parts in lifted.items() if name != "root"
    }


def _joined(values: np.ndarray, source) -> list[np.ndarray]:
    """Values of windows as one array for each sequence."""
    if values.shape[1] == 1 < source.frames:
        return source.stitch(values)
    lengths = [len(sequence.inputs) for sequence in source.sequences]
    return keypoint_windows.cross_fade(values, source.windows, lengths)


def _inputs(track: Track, video: Video, training_fps: float) -> np.ndarray:
    """Screen coordinates and confidence `[training frames, 17, 3]`."""
    keypoints, confidence = keypoint_windows.resample_keypoints(
        track.keypoints, track.confidence, video.fps, training_fps
    )
    screen = cameras.normalize_screen(keypoints, *video.size)
    seen = confidence[..., None] > 0
    inputs = np.concatenate([np.where(seen, screen, 0.0), confidence[..., None]], -1)
    return inputs.astype(np.float32)


def _sequence(number: int, inputs: np.ndarray, fps: float):
    from jaxcxr.pose import clips

    return clips.Sequence(
        sequence_id=f"{number:06d}", subject="", action="", camera="", inputs=inputs,
        joints=np.zeros_like(inputs), fps=fps,
    )


def setup_of(config, fps: float):
    """What the trainer builds of a config, on the devices at hand and without prepared data.

    Arguments:
      config: of a run of poses; its mesh and batch size are changed.
      fps: frames per second of its training data.

    The data decides nothing but the shapes, and how many steps a stage has; `_stage` says which
    stage a checkpoint is of.
    """
    import jax

    from jaxcxr.pose import task as pose_task
    from jaxcxr.train import parallel, setup
    from jaxcxr.train import state as state_lib

    devices = jax.device_count()
    with config.unlocked():
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, 1, 1
        config.parallel, config.accumulate = "jit", 1
        config.batch_size = -(-min(config.batch_size, _MOST_WINDOWS) // devices) * devices
    blank = np.zeros((config.data.frames, 17, 3), np.float32)
    one = _windows([_sequence(0, blank, fps)], config)
    task = pose_task.PoseTask(config, lambda split: one)
    return setup.Setup(
        config=config, task=task, model=setup.make_model(config, task),
        mesh=parallel.make_mesh(config), stages=state_lib.make_stages(config, len(one)),
        rules=(*config.sharding_rules, *parallel.DEFAULT_RULES), seconds={},
    )


def _placed(run_, bundle):
    """Weights of a bundle as `loop.predict` asks for them, whole on every device."""
    import jax

    from jaxcxr.deploy.bundle.bundled_model import check_shapes

    try:
        check_shapes(bundle.variables, jax.eval_shape(run_.init_variables))
    except ValueError as error:
        raise UserError(f"{bundle.path} is damaged: {error}") from error
    whole = jax.sharding.NamedSharding(run_.mesh, jax.sharding.PartitionSpec())
    placed = jax.device_put(dict(bundle.variables), whole)
    return _Weights(placed["params"], placed["batch_stats"])


def restore(workdir: pathlib.Path, run_, checkpoints):
    """Step and state that `evaluate` would take.

    Arguments:
      workdir: folder of the run.
      run_: as `setup_of` returns it.
      checkpoints: of the workdir.

    Raises:
      UserError: there is no checkpoint.
    """
    step = checkpoints.best_step or checkpoints.latest_step
    if step is None:
        raise UserError(f"{workdir} holds no checkpoint; train first.")
    stage = _stage(workdir, run_.stages, step)
    with run_.mesh_context():
        return step, checkpoints.restore(step, run_.abstract_state(stage))


def _stage(workdir: pathlib.Path, stages, step: int):
    """The stage whose optimiser a checkpoint holds: the last that the log saw begin by its step."""
    names = [stages[0].name]
    path = workdir / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # an interruption may have cut the last
            record = json.loads(line)
            if record["kind"] == "stage" and record["step"] <= step:
                names.append(record["name"])
    return next(stage for stage in stages if stage.name == names[-1])
