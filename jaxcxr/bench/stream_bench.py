"""`jaxcxr bench stream`: a pose model frame by frame, and what waiting for later frames is worth.

    jaxcxr bench stream --config=F
    jaxcxr bench stream --workdir=RUN [--config=F]

Every row is the same weights in a stream of a latency: time of the compiled step for one frame of
one stream, its output on the host, median and 99th percentile; the batch model on a window of
`config.data.frames` frames, in turn with the steps, and the ratio of both. With a run, also the
errors of its best checkpoint on the test split, evaluated in such windows under the mask of that
latency, and last as it was trained. Without a run the weights are random: they take as long.

Only transformers choose their latency; convolutions have that of their receptive field.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from jaxcxr.errors import UserError
from jaxcxr.plan import measuring
from jaxcxr.report.result_file import Table

LATENCIES = (0, 1, 2, 4, 8)
# Steps between two calls of the batch model.
_STEPS = 20

COLUMNS = ("latency", "ms a frame", "p99", "ms a window", "frame/window")
_WIDTHS = (8, 12, 8, 13, 14)
ERRORS = ("MPJPE mm", "P-MPJPE mm")


@dataclasses.dataclass(frozen=True)
class StreamCost:
    """What a stream costs.

    Attributes:
      latency: frames by which a pose comes later than its frame.
      median, p99: milliseconds of a step.
      batch: milliseconds of the batch model on a window, median.
      ratio: of a step to the window, median over the rounds.
    """

    latency: int
    median: float
    p99: float
    batch: float
    ratio: float


def bench_stream(config, workdir: pathlib.Path | None, seconds: float) -> Table:
    """Prints what a stream costs at each latency, and with a run its errors.

    Arguments:
      workdir: a trained run of it, or None.
      seconds: time of each row.

    Returns:
      A row for each latency; with a run also one of the errors as it was trained.
    """
    from jaxcxr import models

    if config.task != "pose":
        raise UserError(f"bench stream takes models of poses, not of the task {config.task!r}.")
    model = models.create(config.model.name, **config.model.options.to_dict())
    variants = streamed(model, config.data.frames)
    head = f"{config.model.name}, 1 stream, windows of {config.data.frames} frames"
    print(head)
    print("".join(f"{c:>{w}}" for c, w in zip(COLUMNS, _WIDTHS, strict=True)))
    rows = []
    for variant in variants:
        cost = measure(variant, config.data.frames, seconds)
        times = (cost.median, cost.p99, cost.batch, cost.ratio)
        latency, *cells = str(cost.latency), *(f"{value:.3f}" for value in times)
        print("".join(f"{c:>{w}}" for c, w in zip((latency, *cells), _WIDTHS, strict=True)))
        rows.append((latency, *cells))
    if workdir is None:
        return Table(COLUMNS, rows, f"{head}.")
    errors = {name: cells for name, *cells in print_curve(config, workdir, model, variants)}
    rows = [(*row, *errors.pop(row[0], ("", ""))) for row in rows]
    rows += [(name, *[""] * (len(COLUMNS) - 1), *cells) for name, cells in errors.items()]
    return Table((*COLUMNS, *ERRORS), rows, f"{head}.")


def streamed(model: Any, frames: int) -> list[Any]:
    """The forms of a model that run on a stream, of rising latency shorter than a window."""
    from jaxcxr.models.pose import streaming

    if hasattr(model, "latency"):
        variants = [model.clone(causal=True, latency=k) for k in LATENCIES if k < frames]
    else:
        variants = [model]
    streaming.start(variants[0], {}, 1, frames=frames)
    return variants


def measure(model: Any, frames: int, seconds: float) -> StreamCost:
    """Times a stream beside the batch model, with random weights."""
    import jax
    import numpy as np

    from jaxcxr.models.pose import streaming

    rng = np.random.default_rng(0)
    clip = rng.normal(size=(1, frames, 17, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), clip)
    variables = jax.tree.map(lambda s: rng.uniform(0.01, 0.1, s.shape).astype(s.dtype), shapes)
    variables = jax.device_put(variables)
    stream, carry = streaming.start(model, variables, 1, frames=frames)
    step = jax.jit(
        lambda variables, carry, frame: dataclasses.replace(stream, variables=variables).step(
            carry, frame
        )
    )
    whole = jax.jit(model.apply)
    taken: list[float] = []

    def by_frame() -> float:
        nonlocal carry
        for number in range(_STEPS):
            clock = time.perf_counter()
            carry, pose = step(variables, carry, clip[:, number % frames])
            jax.device_get(pose)
            taken.append(time.perf_counter() - clock)
        return float(np.median(taken[-_STEPS:]))

    def by_window() -> float:
        clock = time.perf_counter()
        jax.device_get(whole(variables, clip))
        return time.perf_counter() - clock

    by_frame(), by_window()  # compile; not counted
    taken.clear()
    rounds = measuring.within({"stream": by_frame, "batch": by_window}, seconds, least=5)
    return StreamCost(
        stream.latency,
        float(np.median(taken)) * 1e3,
        float(np.quantile(taken, 0.99)) * 1e3,
        measuring.median(rounds, "batch") * 1e3,
        measuring.ratio(rounds, "stream", "batch"),
    )


def print_curve(
    config, workdir: pathlib.Path, model: Any, variants: Sequence[Any]
) -> list[tuple[str, str, str]]:
    """Prints the errors of a run on its test split at each latency, and as it was trained."""
    rows = []
    print(f"{'latency':>10}{'MPJPE mm':>10}{'P-MPJPE mm':>12}")
    for name, metrics in curve(config, workdir, model, variants):
        mpjpe, p_mpjpe = f"{metrics['mpjpe']:.1f}", f"{metrics['p_mpjpe']:.1f}"
        print(f"{name:>10}{mpjpe:>10}{p_mpjpe:>12}")
        rows.append((name, mpjpe, p_mpjpe))
    return rows


def curve(
    config, workdir: pathlib.Path, model: Any, variants: Sequence[Any]
) -> list[tuple[str, dict[str, float]]]:
    """Metrics of the best checkpoint on the test split, by latency, and at last as trained."""
    from jaxcxr.train import finished, loop

    with finished.open_best(workdir, config=config) as run_:
        found, test = [], run_.task.source("test")
        named = [(str(getattr(v, "latency", "of kind")), v) for v in variants if v != model]
        for name, variant in [*named, ("trained", model)]:
            # The mask is another, and the model computes in the dtype of the run.
            same = dataclasses.replace(run_.setup, model=variant.clone(dtype=run_.model.dtype))
            predictions = loop.predict(same, run_.variables, test)
            found.append((name, run_.task.evaluate("test", predictions).metrics))
    return found
