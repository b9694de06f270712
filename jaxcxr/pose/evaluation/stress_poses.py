"""How the error of a pose lifter grows with detector errors, unseen joints, fewer frames.

A test for `jaxcxr stress`. Every frame of the split is lifted and counted once at each level, so
that levels differ in the input alone; draws are the same at all levels of a kind. The change from
the untouched input has an interval of its own: both errors are of the same motions.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_errors, pose_metrics
from jaxcxr.pose.evaluation.pose_metrics import MPJPE
from jaxcxr.pose.sources import clips
from jaxcxr.pose.sources.virtual import Detector
from jaxcxr.report import curves, tables
from jaxcxr.statistics import intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MM = 1000.0
# Pixels of half an image of 1,000 pixels: 1 in the inputs.
_HALF = 500.0
_STRIDES = (2, 3, 5, 10)
_SHARES, _PIXELS = (0.05, 0.1, 0.2, 0.4), (2.0, 5.0, 10.0, 20.0)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way in which the input gets worse.

    `field` is that of `Detector` which a level sets; None where frames are changed, not keypoints.
    """

    title: str
    unit: str
    field: str | None = None
    levels: tuple[float, ...] = ()


_PX = "SD in pixels of an image 1,000 wide"
_KINDS = {
    "noise": Kind("noise, new in each frame", _PX, "noise", _PIXELS),
    "drift": Kind("noise that lasts for 0.2 s", _PX, "drift", _PIXELS),
    "missing": Kind("joints missed in single frames", "share of joints", "dropout", _SHARES),
    "hidden": Kind("joints hidden for 0.3 s", "share of joints", "occlusion", _SHARES),
    "fps": Kind("fewer frames per second", "frames per second"),
    "window": Kind("shorter windows", "frames in a window"),
}
_CHANGE = dataclasses.replace(MPJPE, name="change", title="change", form="+.1f")
_ERROR = dataclasses.replace(MPJPE, form=".1f")
KINDS = tuple(_KINDS)


@dataclasses.dataclass(frozen=True)
class _Variant:
    """The split at one level, in windows that lift every frame once.

    `whole` turns the arrays of `source.stitch` into one for each sequence of the split.
    """

    level: float
    source: clips.Clips
    whole: Callable[[list[np.ndarray]], list[np.ndarray]] = list


def measure(
    task,
    split: str,
    predict: Callable[[clips.Clips], Mapping[str, np.ndarray]],
    kinds: Sequence[str] = KINDS,
    resamples: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = print,
    *,
    features: Callable | None = None,
) -> dict:
    """Measures MPJPE at each level of each kind, see `jaxcxr.task.StressTest`.

    The bootstrap is over whole motions with all their cameras.

    Returns:
      The content of stress.json: `mpjpe` and `mpjpe_interval` of the untouched input, `kinds` with
      `levels`, the first of each the untouched input, `left_out`, `counts`, `settings`. Errors in
      mm; an interval is None where there is a single motion.
    """
    del features
    source = task.source(split)
    sequences = source.sequences
    errors, places, left_out = _lift(source, predict, kinds, seed, say)
    entries = _entries(errors, sequences, resamples, seed)
    return {
        "task": "pose",
        "split": split,
        **{key: entries[0][key] for key in (MPJPE.name, MPJPE.interval)},
        "kinds": {
            name: {
                "title": _KINDS[name].title, "unit": _KINDS[name].unit,
                "levels": [{"level": level, **entries[place]} for level, place in found],
            }
            for name, found in places.items()
        },
        "left_out": left_out,
        "counts": {
            "sequences": len(sequences), "motions": len({s.motion for s in sequences}),
            "frames": sum(len(s.joints) for s in sequences),
        },
        "settings": {
            "resamples": resamples, "seed": seed, "level": intervals.LEVEL,
            "resampled": "motions, with all cameras", "person_height": _height(sequences),
        },
    }


def _lift(source: clips.Clips, predict, kinds, seed: int, say):
    """Errors of frames at each level, the untouched first; their places by kind; left out."""
    errors, places, left_out = [_frame_errors(source, predict, _Variant(0.0, source))], {}, []
    say(f"untouched: MPJPE {errors[0].mean():.1f} mm")
    for name in kinds:
        places[name] = [(_untouched(name, source), 0)]
        for variant in _variants(name, source, seed):
            label = f"{name} {variant.level:g}"
            try:
                found = _frame_errors(source, predict, variant)
            except UserError as error:
                if name != "window":  # a length is all that a model may be unable to take
                    raise
                left_out.append(f"{label}: {error}")
                say(f"{label} left out: {error}")
                continue
            places[name].append((variant.level, len(errors)))
            errors.append(found)
            say(f"{label}: MPJPE {found.mean():.1f} mm")
    return errors, places, left_out


def _untouched(name: str, source: clips.Clips) -> float:
    return {"fps": float(np.median([s.fps for s in source.sequences])),
            "window": float(source.frames)}.get(name, 0.0)


def _variants(name: str, source: clips.Clips, seed: int) -> Iterator[_Variant]:
    """The levels of a kind, the mildest first."""
    kind = _KINDS[name]
    if kind.field is not None:
        for level in kind.levels:
            detector = Detector(**{kind.field: level})
            changed = [
                seen_by(sequence, detector, np.random.default_rng([seed, number]))
                for number, sequence in enumerate(source.sequences)
            ]
            yield _Variant(level, _windows(changed, source, source.frames))
    elif name == "fps":
        for step in _STRIDES:
            parts, whole = every(source.sequences, step)
            level = round(_untouched(name, source) / step, 2)
            yield _Variant(level, _windows(parts, source, source.frames), whole)
    else:
        frames = source.frames
        while frames > 1:
            frames = max(1, round(frames / 3))
            yield _Variant(float(frames), _windows(source.sequences, source, frames))


def _windows(sequences, source: clips.Clips, frames: int) -> clips.Clips:
    """Windows that lift every frame once, as those of `source` do."""
    if source.center:
        return clips.Clips(sequences, frames, 1, "center")
    return clips.Clips(sequences, frames, frames)


def seen_by(
    sequence: clips.Sequence, detector: Detector, rng: np.random.Generator
) -> clips.Sequence:
    """Finds the keypoints of a sequence anew, in an image 1,000 pixels wide.

    The confidence of a joint that is still seen stays as it was.
    """
    x = sequence.inputs.astype(np.float64)
    places, found = detector.find(x[..., :2] * _HALF, x[..., 2] > 0, sequence.fps, rng)
    seen = found[..., None] > 0
    changed = np.where(seen, np.concatenate([places / _HALF, x[..., 2:]], -1), 0.0)
    return dataclasses.replace(sequence, inputs=changed.astype(np.float32))


def every(
    sequences: Sequence[clips.Sequence], step: int
) -> tuple[list[clips.Sequence], Callable[[list[np.ndarray]], list[np.ndarray]]]:
    """Takes every `step`-th frame from each of the first ones, so that none is lost.

    Returns:
      The sequences, whose ids are in their order, and a function from one array for each of them,
      `[frames, ...]`, to one for each of the given sequences.
    """
    parts, origins = [], []
    for number, one in enumerate(sequences):
        for phase in range(min(step, len(one.joints))):
            chosen = slice(phase, None, step)
            parts.append(dataclasses.replace(
                one, sequence_id=f"{number:08d}.{phase:08d}", fps=one.fps / step,
                inputs=one.inputs[chosen], joints=one.joints[chosen],
                root=None if one.root is None else one.root[chosen],
                scale=None if one.scale is None else one.scale[chosen],
            ))
            origins.append((number, chosen))

    def whole(arrays: list[np.ndarray]) -> list[np.ndarray]:
        shape = arrays[0].shape[1:]
        found = [np.empty((len(one.joints), *shape), arrays[0].dtype) for one in sequences]
        for (number, chosen), array in zip(origins, arrays, strict=True):
            found[number][chosen] = array
        return found

    return parts, whole


def _frame_errors(source: clips.Clips, predict, variant: _Variant) -> np.ndarray:
    """MPJPE of each frame of the split, mm, sequence by sequence."""
    parts = variant.whole(variant.source.stitch(predict(variant.source)["joints"]))
    values = np.concatenate([part * MM for part in parts])
    truth = np.concatenate([sequence.joints for sequence in source.sequences]) * MM
    return pose_errors.frame_errors(values, truth)


def _entries(
    errors: Sequence[np.ndarray], sequences: Sequence[clips.Sequence], resamples: int, seed: int
) -> list[dict]:
    """Of each level its MPJPE and its change from the first, with intervals."""
    lengths = [len(sequence.joints) for sequence in sequences]
    sums = np.add.reduceat(np.stack(errors, -1), np.cumsum([0, *lengths[:-1]]))
    counts = np.broadcast_to(np.array(lengths, float)[:, None], sums.shape)
    values = pose_metrics.bootstrap(
        sums, counts, np.zeros(len(lengths)), np.array([s.motion for s in sequences]),
        resamples=resamples, seed=seed,
    )

    first, untouched = errors[0].mean(), values[:, 0]
    return [
        MPJPE.entry(level.mean(), intervals.percentile_interval(column))
        | _CHANGE.entry(level.mean() - first, intervals.percentile_interval(column - untouched))
        for level, column in zip(errors, values.T, strict=True)
    ]


def _height(sequences: Sequence[clips.Sequence]) -> float:
    """Median size of a person, from the highest to the lowest joint seen, in the same pixels."""
    inputs = np.concatenate([sequence.inputs for sequence in sequences])
    inputs = inputs[(inputs[..., 2] > 0).any(-1)]
    y, seen = inputs[..., 1], inputs[..., 2] > 0
    size = np.where(seen, y, -np.inf).max(-1) - np.where(seen, y, np.inf).min(-1)
    return float(np.median(size)) * _HALF if len(size) else 0.0


def figure(result: Mapping) -> "Figure":
    """Draws the curves, see `curves.pose_figure`."""
    return curves.pose_figure(result, pose_metrics.MPJPE)


def to_text(result: Mapping) -> str:
    """Formats the result as aligned tables."""
    blocks = [
        "\n".join([kind["title"], *tables.aligned(lines(kind))])
        for kind in result["kinds"].values()
    ]
    return "\n\n".join([_title(result), *blocks])


def to_markdown(result: Mapping) -> str:
    """Formats the result as Markdown, with the figure in words."""
    blocks = ["# Stress test", _title(result)]
    for kind in result["kinds"].values():
        blocks += [f"## {kind['title'].capitalize()}", "\n".join(tables.markdown(lines(kind)))]
    if result["left_out"]:
        blocks += ["## Left out", "\n".join(f"- {line}" for line in result["left_out"])]
    last = [(kind, kind["levels"][-1]) for kind in result["kinds"].values()]
    worst = "; ".join(
        f"{kind['title']}: {entry['mpjpe']:.1f} mm at {entry['level']:g} {kind['unit']}"
        for kind, entry in last
    )
    shown = [("file", "what it shows"), ("stress.png", (
        "MPJPE in mm against the level of each kind, harder to the right, with 95% intervals; a "
        f"dotted line at the untouched input, {result['mpjpe']:.1f} mm. At the hardest: {worst}."
    ))]
    blocks += ["## Figure", "\n".join(tables.markdown(shown, left=2))]
    return "\n\n".join(blocks) + "\n"


def _title(result: Mapping) -> str:
    counts = result["counts"]
    return (
        f"{result['split']} split: {counts['frames']:,} frames of {counts['sequences']} sequences, "
        f"{counts['motions']} motions; people are {result['settings']['person_height']:.0f} pixels "
        "high in an image 1,000 pixels wide (median). In brackets 95% intervals over motions."
    )


def lines(kind: Mapping) -> list[tuple[str, str, str]]:
    """Formats the table of a kind of disturbance, the first line its header."""
    found = [(kind["unit"], *(f"{metric.title}, {metric.unit}" for metric in (_ERROR, _CHANGE)))]
    for entry in kind["levels"]:
        changed = entry is not kind["levels"][0]
        found.append((f"{entry['level']:g}", _ERROR.cell(entry),
                      _CHANGE.cell(entry) if changed else "untouched"))
    return found
