"""Feeds batches with grain: batch number -> indices -> read and decode -> prefetch.

The order of the stream is a function of the seed alone: element k of the endless stream belongs to
global batch k // batch_size, whatever the number of processes. NumPy draws the order of a whole
epoch at once, and grain counts batches: its work per batch is microseconds, and its state is one
number. A thread reads and decodes a whole batch.
"""

import functools
import math
import sys
from collections.abc import Iterator
from typing import Protocol

import grain
import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.errors import UserError


class Source(Protocol):
    """Random access to the decoded examples of one split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads several examples, stacked."""


def train_iterator(
    source: Source, config, probabilities: np.ndarray | None = None, rows: np.ndarray | None = None
):
    """Yields endless shuffled batches: this process's share of them.

    Arguments:
      source: the training split.
      config: `seed`, `batch_size` (global), `data.threads`, `data.prefetch` (batches).
      probabilities: `[n]`, with which examples are drawn, with replacement; None: every example
        once an epoch.
      rows: of a global batch, those that this process reads, see `parallel.local_rows`; None: all.

    Returns:
      A grain iterator of dicts of arrays `[rows, ...]`. Its state is that of the last
      batch handed out, and can be restored with another number of processes.

    Raises:
      UserError: the source is empty.
    """
    count, size = len(source), config.batch_size
    if not count:
        raise UserError("the training split is empty; prepare more data.")
    rows = np.arange(size) if rows is None else rows

    @functools.lru_cache(maxsize=4)  # a batch spans two epochs, prefetching reaches ahead
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng((config.seed, epoch))
        if probabilities is None:
            return rng.permutation(count)
        return rng.choice(count, count, p=probabilities)

    def read(batch: int) -> dict[str, np.ndarray]:
        positions = batch * size + rows
        epochs, places = np.divmod(positions, count)
        indices = np.empty_like(positions)
        for epoch in range(epochs[0], epochs[-1] + 1):
            mine = epochs == epoch
            indices[mine] = order(epoch)[places[mine]]
        return {
            **source.read(indices),
            "index": indices.astype(np.int32),
            "position": (positions % 2**32).astype(np.uint32),
            "valid": np.ones(len(indices), np.bool_),
        }

    batches = grain.MapDataset.range(sys.maxsize // size).map(read)
    return iter(batches.to_iter_dataset(_read_options(config)))


def eval_batches(
    source: Source, config, rows: np.ndarray | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yields every example of a split once, in order; the last batch is padded, `valid` False.

    Every process yields the same number of batches; `rows` as in `train_iterator`.
    """
    size = config.batch_size
    rows = np.arange(size) if rows is None else rows

    def read(batch: int) -> dict[str, np.ndarray]:
        positions = batch * size + rows
        indices = np.minimum(positions, len(source) - 1)
        return {
            **source.read(indices),
            "index": indices.astype(np.int32),
            "position": positions.astype(np.uint32),
            "valid": positions < len(source),
        }

    batches = grain.MapDataset.range(math.ceil(len(source) / size)).map(read)
    yield from batches.to_iter_dataset(_read_options(config))


def _read_options(config) -> grain.ReadOptions:
    return grain.ReadOptions(
        num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch
    )


def position_keys(key: jax.Array, count: int, positions: jax.Array | None) -> jax.Array:
    """Derives one PRNG key per example of a step, from the example's position.

    The augmentation of an example then does not depend on its batch, nor on how that is laid out
    over devices, hosts and micro-batches.

    Arguments:
      key: PRNG key of the step.
      count: number of examples, B.
      positions: integers `[B]` that tell the examples of a step apart: their position in the
        global batch or in the stream. None: 0 to B-1, right only for a whole global batch under
        jit.

    Returns:
      PRNG keys `[B]`.
    """
    positions = jnp.arange(count) if positions is None else positions
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
