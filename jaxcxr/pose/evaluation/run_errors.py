"""Errors of runs from the predictions they left, with intervals over motions, and compared."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxcxr.errors import UserError, some
from jaxcxr.pose.evaluation import pose_arrays, pose_errors, pose_metrics
from jaxcxr.pose.evaluation.pose_metrics import IN_STUDIES, MPJPE
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.report import tables
from jaxcxr.report.tables import interval_or_none, number, span, value_or_none
from jaxcxr.statistics import intervals, paired

METRICS = tuple(metric.name for metric in IN_STUDIES)
_RESAMPLES = 2000
MM = 1000.0
_NOTE = (
    f"{MPJPE.title} in {MPJPE.unit} over all frames of the runs' own test split. [95 %] and p: "
    "bootstrap of whole motions with all their cameras, n - 1 of n, paired."
)
_PLACES = [pose_metrics.METRICS.index(metric) for metric in IN_STUDIES]
# "subject/action/camera" -> metric of METRICS -> [sum in mm, count].
Sums = Mapping[str, Mapping[str, Sequence[float]]]


def sequence_sums(folder: pathlib.Path, split: str = "test") -> dict[str, dict[str, list[float]]]:
    """Sums the errors of each sequence.

    Returns:
      `Sums`, ready for JSON.
    """
    truth, guess = (
        pose_arrays.read(folder / "predictions" / f"{split}{end}.npz").sequences
        for end in ("_labels", "")
    )
    found = {}
    for key, (_, joints) in truth.items():
        one = pose_metrics.statistics(
            guess[key][1].astype(np.float64) * MM, joints.astype(np.float64) * MM,
            parents=HUMAN36M.parents,
        )
        found[str(key)] = {
            name: [float(one.sums[place]), float(one.counts[place])]
            for name, place in zip(METRICS, _PLACES, strict=True)
        }
    return found


def overall(sequences: Sums) -> dict[str, np.ndarray]:
    """Computes the mean of each of `METRICS` over all frames and its 95 % interval, mm."""
    names = sorted(sequences)
    values, drawn = estimates(*pooled([sequences], names), names)
    ends = [intervals.percentile_interval(column) for column in drawn.T]
    return {name: np.array([value, *range_])
            for name, value, range_ in zip(METRICS, values, ends, strict=True)}


def pooled(runs: Iterable[Sums], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Adds up sums and counts of sequences over runs, each `[sequences, 3]`."""
    both = np.array([[[run[name][metric] for metric in METRICS] for name in names] for run in runs])
    return tuple(both.sum(axis=0).transpose(2, 0, 1))


def estimates(
    sums: np.ndarray, counts: np.ndarray, names: Sequence[str], resamples: int = _RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Computes means over all frames `[3]`, and of resamples of motions `[resamples, 3]`."""
    one = np.zeros(len(names))
    motions = np.array([pose_arrays.parse_key(name, "the study").motion for name in names])
    values = pose_metrics.estimate(sums, counts, one)
    if not resamples:
        return values, np.empty((0, len(METRICS)))
    # The same seed draws the same motions for every run.
    return values, pose_metrics.bootstrap(
        sums, counts, one, motions, resamples=resamples, seed=0
    )


def compare(
    models: Mapping[str, Mapping[str, tuple[pathlib.Path, pathlib.Path]]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Computes MPJPE of all models, and the difference of each from the first.

    Arguments:
      models: name -> workdir of each of its seeds -> files of its labels and predictions.
      resamples, seed: of the bootstrap.

    Returns:
      `of_models` (model -> `values` of its seeds, `mean`, `deviation`, `interval`), `differences`
      (model -> `difference`, `interval`, `p`), `counts`, `settings`. None where undefined.
    """
    columns: list[list[float]] = []
    for paths in models.values():
        for path, files in paths.items():
            labels, predictions = (pose_arrays.read(file).sequences for file in files)
            if not columns:
                truth, first_path = labels, path
            _check_same(labels, truth, path, first_path)
            columns.append([
                pose_errors.joint_errors(predictions[key][1] * MM, truth[key][1] * MM).sum()
                for key in truth
            ])
    joints = [truth[key][1].shape[0] * truth[key][1].shape[1] for key in truth]
    sums = np.array(columns, np.float64).T
    counts = np.repeat(np.array(joints, np.float64)[:, None], sums.shape[1], axis=1)
    strata, motions = np.zeros(len(truth)), np.array([key.motion for key in truth])
    values = pose_metrics.estimate(sums, counts, strata)
    drawn = pose_metrics.bootstrap(
        sums, counts, strata, motions, resamples=resamples, seed=seed
    )
    entries, differences = _entries(models, values, drawn)
    return {
        "task": "pose", "metric": MPJPE.name, "unit": MPJPE.unit, "of_models": entries,
        "differences": differences,
        "counts": {"sequences": len(truth), "motions": len(set(motions.tolist()))},
        "settings": {"resamples": resamples, "seed": seed, "level": intervals.LEVEL},
    }


def lines(result: Mapping) -> dict[str, list[tuple[str, ...]]]:
    """Formats the table as cells, by its title."""
    found: list[tuple[str, ...]] = [("model", "seeds", f"{MPJPE.head} [95 %]", "- A [95 %]", "p")]
    for name, entry in result["of_models"].items():
        one = result["differences"].get(name)
        mean = number(entry["mean"], ".2f")
        if entry["deviation"] is not None:
            mean += f" +- {number(entry['deviation'], '.2f')}"
        cells = [name, str(len(entry["values"])), f"{mean} {span(entry['interval'], '.2f')}"]
        if one is None:
            cells += ["", ""]
        else:
            difference = number(one["difference"], "+.2f")
            cells += [f"{difference} {span(one['interval'], '+.2f')}", number(one["p"])]
        found.append(tuple(cells))
    return {MPJPE.title: found}


def rows(result: Mapping) -> list[dict]:
    """Rows of metrics.csv: one for each model."""
    empty = {"difference": None, "interval": None, "p": None}
    return [
        tables.flat({
            "metric": MPJPE.name, "model": name, "mean": entry["mean"],
            "deviation": entry["deviation"], "mean_interval": entry["interval"],
            "difference": of["difference"], "difference_interval": of["interval"], "p": of["p"],
        })
        for name, entry in result["of_models"].items()
        for of in [result["differences"].get(name, empty)]
    ]


def remarks(result: Mapping) -> list[str]:
    """Notes that belong below the table."""
    del result
    return [_NOTE]


def _entries(models, values, drawn) -> tuple[dict, dict]:
    """Models and their differences from the first, of columns of runs."""
    entries, differences, start, first = {}, {}, 0, None
    for name, paths in models.items():
        mine = slice(start, start + len(paths))
        start += len(paths)
        mean, draws = values[mine].mean(), drawn[:, mine].mean(axis=1)
        entries[name] = {
            "values": values[mine].tolist(), "mean": float(mean),
            "deviation": float(values[mine].std(ddof=1)) if len(paths) > 1 else None,
            "interval": interval_or_none(intervals.percentile_interval(draws)),
        }
        if first is None:
            first = (mean, draws)
            continue
        found = paired.resampled(mean - first[0], draws - first[1])
        differences[name] = {
            "difference": float(found.value), "interval": interval_or_none(found.interval),
            "p": value_or_none(found.p),
        }
    return entries, differences


def _check_same(labels, truth, path: str, first_path: str) -> None:
    other = set(labels) ^ set(truth)
    if other:
        raise UserError(
            f"{path}: not the sequences of {first_path}; {len(other)} are in one of both only: "
            f"{some(map(str, sorted(other)))}"
        )
    for key, (_, poses) in truth.items():
        found = labels[key][1]
        if found.shape != poses.shape or not np.allclose(found, poses, atol=1e-6):
            raise UserError(f"{path}: not the labels of {first_path}; {key} differs")
