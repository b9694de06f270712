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
import contextlib
import json
import pathlib
import re
import sys
import time
from collections.abc import Sequence

import numpy as np

from jaxcxr.analysis import prediction_files
from jaxcxr.analysis.prediction_files import Person
from jaxcxr.data import cameras, joint_sets, keypoint_files, keypoint_windows, sources
from jaxcxr.data.keypoint_files import Track, Video
from jaxcxr.errors import RunError, UserError

FORMATS = ("npz", "csv", "bvh")
_MOST_WINDOWS = 64  # at once, where the run trained on more
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


def training_fps(config) -> float:
    """Frames per second of a run's training data: its option `fps`, or else its source's `FPS`.

    Arguments:
      config: the run's config.
    """
    return float(config.data.options.get("fps") or _module(config).FPS)


def _module(config):
    """That of a run's source."""
    return sys.modules[sources.builder_class(config.data.source).__module__]


class Lifter:
    """The best checkpoint of a pose run.

    Arguments:
      workdir: folder of the run.

    Raises:
      UserError: no run, no checkpoint, or a run of another task.
    """

    def __init__(self, workdir: pathlib.Path):
        from jaxcxr import config as config_lib
        from jaxcxr.train import checkpoint

        config = config_lib.from_saved(checkpoint.load_config(workdir))
        if config.task != "pose":
            raise UserError(
                f"{workdir} is a run of the task {config.task!r}; jaxcxr predict takes runs of "
                "the task 'pose' and 2D keypoints."
            )
        self._fps = training_fps(config)
        self._nominal_scale = getattr(_module(config), "nominal_scale", None)
        self._frames = config.data.frames
        self._run = _setup(config)
        self._step, self._state = _restore(workdir, self._run)
        self.about = {
            "run": workdir.resolve().name, "model": config.model.name, "checkpoint": self._step,
            "training_fps": self._fps, "training_frames": self._frames,
        }
        if self._nominal_scale:
            self.about["scale"] = "nominal: as if each person were 1.75 m tall"

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


def _windows(sequences, config):
    """Windows that overlap by half; of models that lift the middle frame, one for each frame."""
    from jaxcxr.data import clips

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
    from jaxcxr.data import clips

    return clips.Sequence(
        sequence_id=f"{number:06d}", subject="", action="", camera="", inputs=inputs,
        joints=np.zeros_like(inputs), fps=fps,
    )


def _setup(config):
    """What the trainer builds of a config, on the devices at hand and without prepared data.

    The data decides nothing but the shapes, and how many steps a stage has; `_stage` says which
    stage a checkpoint is of.
    """
    import jax

    from jaxcxr.tasks import pose
    from jaxcxr.train import parallel, setup
    from jaxcxr.train import state as state_lib

    devices = jax.device_count()
    with config.unlocked():
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, 1, 1
        config.parallel, config.accumulate = "jit", 1
        config.batch_size = -(-min(config.batch_size, _MOST_WINDOWS) // devices) * devices
    blank = np.zeros((config.data.frames, 17, 3), np.float32)
    one = _windows([_sequence(0, blank, training_fps(config))], config)
    task = pose.PoseTask(config, lambda split: one)
    return setup.Setup(
        config=config, task=task, model=setup.make_model(config, task),
        mesh=parallel.make_mesh(config), stages=state_lib.make_stages(config, len(one)),
        rules=(*config.sharding_rules, *parallel.DEFAULT_RULES), seconds={},
    )


def _restore(workdir: pathlib.Path, run_):
    """Step and state that `evaluate` would take."""
    from jaxcxr.train import checkpoint

    with contextlib.closing(checkpoint.Checkpoints(workdir, run_.config)) as checkpoints:
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
