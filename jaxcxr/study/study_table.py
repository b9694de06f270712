"""Makes the tables of a study: one for each data set, and one of lifted poses.

With few seeds the interval of a mean is wide, and says how a row does for another seed on the same
test data; it says nothing about other test data. The paired difference takes row and reference with
the same seed, hence the same order of batches, and so leaves out what a seed does to both.

In the table of poses a row's error is the mean over all frames of the test split and over its
seeds. Its interval is that of other motions: the bootstrap draws whole motions, with all cameras
and seeds. Differences from the reference are of the same resamples.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import special

from jaxcxr.models.attention.head_parts import HIGH, LOW
from jaxcxr.pose.evaluation.pose_metrics import IN_STUDIES
from jaxcxr.pose.evaluation.run_errors import METRICS, estimates, pooled
from jaxcxr.report import tables
from jaxcxr.statistics import intervals, paired

# "Equal parameters": rows that differ from the reference by more are flagged.
EQUAL = 1e-3
_NONE = math.nan


@dataclasses.dataclass(frozen=True)
class StudyRow:
    """One row of the table.

    Attributes:
      value, interval: mean of the monitored metric on the test split, and its t interval.
      validation: its mean on the validation split.
      difference: from the reference, over the seeds that both have.
      p: that of the difference, adjusted by `paired.holm`.
      parameters_off: by how much they differ from the reference's, as a share.
      flops: of a forward pass over one example.
      seconds: of the training steps alone, the mean over seeds.
    """

    name: str
    seeds: int
    value: float
    interval: tuple[float, float]
    validation: float
    difference: paired.Difference
    p: float
    parameters: int
    parameters_off: float
    flops: float
    seconds: float

    @property
    def unequal(self) -> bool:
        """Whether the parameters differ by more than `EQUAL`."""
        return abs(self.parameters_off) > EQUAL


@dataclasses.dataclass(frozen=True)
class StudyTable:
    """The rows of one data set.

    Attributes:
      higher: whether more of it is better.
      reference: name of the row compared with.
      candidates: rows among which the reference was chosen.
      rows: those with at least one finished run.
      missing: names of the others.
      learned: row -> what its heads learned, in words; rows whose heads learn nothing are absent.
    """

    data: str
    metric: str
    higher: bool
    reference: str
    candidates: tuple[str, ...]
    rows: tuple[StudyRow, ...]
    missing: tuple[str, ...]
    learned: Mapping[str, str]


def make(
    data: str,
    results: Mapping[str, Mapping[int, Mapping]],
    references: Sequence[str],
    higher: bool,
) -> StudyTable:
    """The table of one data set.

    Arguments:
      results: row -> seed -> result: `monitor`, `test`, `validation`, `parameters`, `flops`,
        `steps`, `batch_size`, `examples_per_second`, `learned`.
      references: rows among which the reference is chosen: the best by the mean of the monitored
        metric on the validation split among those with most seeds, so that the test split chooses
        nothing.
    """
    finished = {row: by_seed for row, by_seed in results.items() if by_seed}
    monitor = next(iter(next(iter(finished.values())).values()))["monitor"]
    test, validation = (
        {row: {seed: result[split].get(monitor, _NONE) for seed, result in by_seed.items()}
         for row, by_seed in finished.items()}
        for split in ("test", "validation")
    )
    means = {row: float(np.mean(list(by_seed.values()))) for row, by_seed in validation.items()}
    most = max((len(finished[row]) for row in references if row in finished), default=0)
    candidates = [row for row in references if len(finished.get(row, ())) == most > 0
                  and not math.isnan(means[row])]
    best = max if higher else min
    reference = best(candidates, key=means.__getitem__) if candidates else ""
    compared = {row: paired.same_seeds(test.get(reference, {}), test[row]) for row in finished}
    others = [row for row in finished if row not in references]
    p_values = paired.holm([compared[row].p for row in others])
    adjusted = dict(zip(others, p_values, strict=True))
    size = _parameters(finished[reference]) if reference else 0
    rows = []
    for row, by_seed in finished.items():
        parameters = _parameters(by_seed)
        values = list(test[row].values())
        rows.append(StudyRow(
            name=row, seeds=len(by_seed), value=float(np.mean(values)),
            interval=paired.t_interval(values),
            validation=means[row], difference=paired.NONE if row == reference else compared[row],
            p=adjusted.get(row, _NONE), parameters=parameters,
            parameters_off=parameters / size - 1 if size else _NONE,
            flops=float(np.mean([result["flops"] for result in by_seed.values()])),
            seconds=float(np.mean([_seconds(result) for result in by_seed.values()])),
        ))
    missing = tuple(row for row in results if row not in finished)
    learned = {row: learned_text(by_seed.values()) for row, by_seed in finished.items()}
    return StudyTable(
        data, monitor, higher, reference, tuple(references), tuple(rows), missing,
        {row: text for row, text in learned.items() if text},
    )


def learned_text(results: Iterable[Mapping]) -> str:
    """What the heads of a row learned, over layers and seeds; "" where they learn nothing.

    Arguments:
      results: of the seeds; each entry `learned` maps parameter paths that end in `span`, `alpha`
        or `gate` to a number for each head: the span as a share of its limit, the log odds of the
        order of entmax over 1, and the log odds of a static gate.
    """
    found: dict[str, list[float]] = {}
    for result in results:
        for path, values in result["learned"].items():
            found.setdefault(path.rpartition("/")[2], []).extend(values)
    parts = []
    if "span" in found:
        parts.append(f"spans over the limit {_spread(np.clip(found['span'], 0, 1))}")
    if "alpha" in found:
        parts.append(f"orders of entmax {_spread(1 + special.expit(found['alpha']))}")
    if "gate" in found:
        gates = special.expit(found["gate"]) * (HIGH - LOW) + LOW
        parts.append(
            f"gates closed {(gates <= 0).sum()}, fully open {(gates >= 1).sum()} of {len(gates)}"
        )
    return "; ".join(parts)


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return f"{low:.2f} to {high:.2f}, median {middle:.2f}"


def _parameters(by_seed: Mapping[int, Mapping]) -> int:
    """Of a row; its seeds may differ where the row depends on another's result."""
    return round(float(np.mean([result["parameters"] for result in by_seed.values()])))


def _seconds(result: Mapping) -> float:
    return result["steps"] * result["batch_size"] / result["examples_per_second"]


def to_csv(table: StudyTable) -> str:
    """One line for each row; what is not known is empty."""
    return _csv((
        "data", "row", "reference", "metric", "seeds", "mean", "low", "high", "validation",
        "difference", "difference_low", "difference_high", "p_holm", "parameters",
        "parameters_off", "unequal", "flops", "seconds",
    ), [
        (table.data, row.name, table.reference, table.metric, row.seeds,
         *map(_exact, (row.value, *row.interval, row.validation, row.difference.value,
                       *row.difference.interval, row.p, row.parameters, row.parameters_off,
                       int(row.unequal), row.flops, row.seconds)))
        for row in table.rows
    ])


def header(table: StudyTable) -> tuple[str, ...]:
    """Returns the heads of the columns of `cells`."""
    better = "more" if table.higher else "less"
    return ("row", "seeds", f"{table.metric} ({better} is better)", "difference", "p",
            "parameters", "MFLOPs", "training s")


def cells(table: StudyTable) -> list[tuple[str, ...]]:
    """Formats the rows."""
    digits = _digits(table)
    lines: list[tuple[str, ...]] = []
    for row in table.rows:
        difference = "reference" if row.name == table.reference else _shown(
            row.difference.value, row.difference.interval, digits, "+")
        flag = " (unequal)" if row.unequal else ""
        lines.append((
            row.name, str(row.seeds), _shown(row.value, row.interval, digits), difference,
            _number(row.p, 2), f"{row.parameters:,}{flag}", _number(row.flops / 1e6, 2),
            _number(row.seconds, 1),
        ))
    return lines


def to_markdown(table: StudyTable) -> str:
    """The table for people, with what its columns mean."""
    lines = [
        f"**{table.data}**, reference {table.reference or 'not finished'}", "",
        *tables.markdown([header(table), *cells(table)]), "",
        "Mean over seeds [95 % t interval]; difference from the reference paired by seed; p of its "
        "paired t test, Holm-adjusted over the rows that are no candidates for the reference. "
        f"(unequal): parameters differ by more than {EQUAL:.1%}. MFLOPs: forward pass of one "
        "example. Training s: the steps alone, at the median pace; it compares rows only where "
        "nothing else ran on the machine.",
    ]
    if len(table.candidates) > 1 and table.reference:
        lines.append(f"Reference: the best on validation of {', '.join(table.candidates)}.")
    lines += [f"Learned by {name}: {text}." for name, text in table.learned.items()]
    if table.missing:
        lines.append(f"Not finished: {', '.join(table.missing)}.")
    return "\n".join(lines) + "\n"


def _digits(table: StudyTable) -> int:
    """Decimals that show four significant digits of the largest mean."""
    largest = max(abs(row.value) for row in table.rows)
    if not math.isfinite(largest) or largest <= 0:
        return 3
    return max(0, min(4, 3 - math.floor(math.log10(largest))))


def _number(value: float, digits: int, sign: str = "", undefined: str = "n/a") -> str:
    return tables.number(value, f"{sign},.{digits}f", undefined)


def _shown(
    value: float, ends: Sequence[float], digits: int, sign: str = "", undefined: str = "n/a"
) -> str:
    """A value and its interval."""
    if math.isnan(value):
        return undefined
    both = undefined if undefined else ", "
    span = tables.span(ends, f"{sign},.{digits}f", f"[{both}]")
    return f"{_number(value, digits, sign)} {span}"


def _exact(value: float) -> str:
    return tables.number(value, ".8g", "")


def _csv(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


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


def make_poses(
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
        _pose_row(data, frames, row, results[row], of_row, reference, names) for row in of_row
    ]
    return sorted(rows, key=lambda row: (math.isnan(row.validation), row.validation))


def _pose_row(data, frames, row, runs, of_row, reference, names) -> PoseRow:
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


def poses_csv(rows: Sequence[PoseRow]) -> str:
    """One line for each row; what is not known is empty."""
    ends = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    return _csv((
        "data", "row", "frames", "seeds", *ends, "mpjpe_seed_sd", "validation_mpjpe",
        "difference", "difference_low", "difference_high", "reference", "parameters", "flops",
        "milliseconds", "training_seconds",
    ), [
        (row.data, row.row, row.frames, row.seeds,
         *map(_exact, (*np.column_stack([row.values, row.ranges]).ravel(), row.spread,
                       row.validation, row.difference, *row.difference_range, int(row.reference),
                       row.parameters, row.flops, row.milliseconds, row.seconds)))
        for row in rows
    ])


def poses_markdown(rows: Sequence[PoseRow]) -> str:
    """The table of poses for people, with what its columns mean."""
    cells = [("data", "row", "T", "seeds", *(f"{metric.title} mm" for metric in IN_STUDIES),
              "from the reference", "sd of seeds", "parameters", "MFLOPs", "ms", "training s")]
    for row in rows:
        errors = [_shown(value, ends, metric.study, undefined="")
                  for metric, value, ends in zip(IN_STUDIES, row.values, row.ranges, strict=True)
                  if metric.study is not None]
        compared = "reference" if row.reference else _shown(
            row.difference, row.difference_range, 1, "+", "")
        cells.append((
            row.data, row.row, f"{row.frames}", f"{row.seeds}", *errors, compared,
            _number(row.spread, 1, undefined=""), f"{row.parameters:,}",
            _number(row.flops / 1e6, 1), _number(row.milliseconds, 1), _number(row.seconds, 0),
        ))
    return "\n".join([
        *tables.markdown(cells, 2), "",
        "Means over all frames and seeds [95 % interval, bootstrap of whole motions with all "
        "cameras]; MPJVE in mm per frame. From the reference: difference of MPJPE, on the same "
        "resamples. Rows are in the order of MPJPE on validation. MFLOPs and ms (median): "
        "forward pass of one window of T frames. Training s: the steps alone, at the median pace. "
        "Times compare rows only where nothing else ran on the machine.",
    ]) + "\n"
