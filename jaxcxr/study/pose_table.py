"""The table of poses of a study: errors of every row on every data set, intervals over motions.

A row's error is the mean over all frames of the test split and over its seeds. Its interval is that
of other motions: the bootstrap draws whole motions, with all cameras and seeds. Differences from
the reference are of the same resamples. What a seed does is shown beside it, as the standard
deviation over seeds; the t intervals of `study_table` are about that alone.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.pose.evaluation.pose_metrics import IN_STUDIES
from jaxcxr.pose.evaluation.run_errors import METRICS, estimates, pooled
from jaxcxr.report import tables
from jaxcxr.statistics import intervals


@dataclasses.dataclass(frozen=True)
class PoseRow:
    """One row on one data set.

    Attributes:
      values: of `METRICS`, mm, MPJVE mm per frame.
      ranges: their 95 % intervals over motions, `[3, 2]`; NaN with fewer than two motions.
      spread: standard deviation of MPJPE over seeds, mm; NaN with one.
      validation: MPJPE of the validation split, mm.
      difference, difference_range: of MPJPE from the reference's; NaN for itself.
      flops: of a forward pass over one window.
      milliseconds: of the same, the median over calls and seeds.
      seconds: of the training steps, the mean over seeds.
    """

    data: str
    row: str
    frames: int
    seeds: int
    values: np.ndarray
    ranges: np.ndarray
    spread: float
    validation: float
    difference: float
    difference_range: tuple[float, float]
    reference: bool
    parameters: int
    flops: float
    milliseconds: float
    seconds: float


def make(
    data: str, frames: int, results: Mapping[str, Mapping[int, Mapping]], reference: str
) -> list[PoseRow]:
    """The rows of one data set, the best on the validation split first.

    Arguments:
      results: row -> seed -> result with `sequences` as `run_errors.sequence_sums` gives it,
        `validation`, `parameters`, `flops`, `milliseconds`, `steps`, `batch_size`,
        `examples_per_second`.
      reference: name of the row compared with, "" for none.
    """
    names = sorted({n for runs in results.values() for run in runs.values()
                    for n in run["sequences"]})
    of_row = {
        row: pooled([run["sequences"] for run in runs.values()], names)
        for row, runs in results.items() if runs
    }
    rows = [
        _row(data, frames, row, results[row], of_row, reference, names) for row in of_row
    ]
    return sorted(rows, key=lambda row: (math.isnan(row.validation), row.validation))


def _row(data, frames, row, runs, of_row, reference, names) -> PoseRow:
    sums, counts = of_row[row]
    values, resamples = estimates(sums, counts, names)
    difference, range_ = math.nan, (math.nan, math.nan)
    if reference in of_row and row != reference:
        sums, counts = of_row[reference]
        other, others = estimates(sums, counts, names)
        difference = float(values[0] - other[0])
        low, high = intervals.percentile_interval(resamples[:, 0] - others[:, 0])
        range_ = float(low), float(high)
    by_seed = [
        estimates(*pooled([run["sequences"]], names), names, 0)[0][0] for run in runs.values()
    ]

    def mean(key: str) -> float:
        return float(np.mean([run[key] for run in runs.values()]))

    pace = [run["steps"] * run["batch_size"] / run["examples_per_second"] for run in runs.values()]
    return PoseRow(
        data, row, frames, len(runs), values,
        np.array([intervals.percentile_interval(column) for column in resamples.T]),
        float(np.std(by_seed, ddof=1)) if len(runs) > 1 else math.nan,
        float(np.mean([run["validation"]["mpjpe"] for run in runs.values()])),
        difference, range_, row == reference, round(mean("parameters")),
        mean("flops"), float(np.median([run["milliseconds"] for run in runs.values()])),
        float(np.mean(pace)),
    )


def to_csv(rows: Sequence[PoseRow]) -> str:
    """One line for each row; what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    writer.writerow((
        "data", "row", "frames", "seeds", *ends, "mpjpe_seed_sd", "validation_mpjpe",
        "difference", "difference_low", "difference_high", "reference", "parameters", "flops",
        "milliseconds", "training_seconds",
    ))
    for row in rows:
        numbers = [
            *np.column_stack([row.values, row.ranges]).ravel(), row.spread, row.validation,
            row.difference, *row.difference_range, int(row.reference), row.parameters, row.flops,
            row.milliseconds, row.seconds,
        ]
        writer.writerow((
            row.data, row.row, row.frames, row.seeds,
            *("" if math.isnan(number) else f"{number:.8g}" for number in numbers),
        ))
    return out.getvalue()


def to_markdown(rows: Sequence[PoseRow]) -> str:
    """The table for people, with what its columns mean."""
    head = ("data", "row", "T", "seeds", *(f"{metric.title} mm" for metric in IN_STUDIES),
            "from the reference", "sd of seeds", "parameters", "MFLOPs", "ms", "training s")
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        errors = [_shown(value, ends, metric.study)
                  for metric, value, ends in zip(IN_STUDIES, row.values, row.ranges, strict=True)
                  if metric.study is not None]
        compared = "reference" if row.reference else _shown(
            row.difference, row.difference_range, 1, "+")
        cells = (
            row.data, row.row, row.frames, row.seeds, *errors, compared, _number(row.spread, 1),
            f"{row.parameters:,}", _number(row.flops / 1e6, 1), _number(row.milliseconds, 1),
            _number(row.seconds, 0),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", (
        "Means over all frames and seeds [95 % interval, bootstrap of whole motions with all "
        "cameras]; MPJVE in mm per frame. From the reference: difference of MPJPE, on the same "
        "resamples. Rows are in the order of MPJPE on validation. MFLOPs and ms (median): "
        "forward pass of one window of T frames. Training s: the steps alone, at the median pace. "
        "Times compare rows only where nothing else ran on the machine."
    )]
    return "\n".join(lines) + "\n"


def _number(value: float, digits: int, sign: str = "") -> str:
    return tables.number(value, f"{sign},.{digits}f", "")


def _shown(value: float, ends: Sequence[float], digits: int, sign: str = "") -> str:
    if math.isnan(value):
        return ""
    low, high = (_number(end, digits, sign) for end in ends)
    return f"{_number(value, digits, sign)} [{low}, {high}]"
