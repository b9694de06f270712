"""The one grain graph: shuffle -> repeat -> slice by process -> batch -> read and decode.

The order of the stream is a function of the seed alone: element k of the endless stream belongs to
global batch k // batch_size, whatever the number of processes. Indices are batched before anything
is read: grain then costs microseconds a batch, and a thread decodes a whole batch.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import grain
import jax
import numpy as np

from jaxcxr.errors import UserError


class Source(Protocol):
    """Random access to the decoded examples of one split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Several examples, stacked."""


def train_iterator(source: Source, config):
    """Endless shuffled batches of this process's share.

    Arguments:
      source: the training split.
      config: `seed`, `batch_size` (global), `data.threads`, `data.prefetch` (batches).

    Returns:
      A grain iterator of dicts of arrays `[batch / processes, ...]`. Its state can be saved and
      restored, also with another number of processes, and is that of the last batch handed out
      whatever lies in its buffers.

    Raises:
      UserError: the source is empty.
    """
    if not len(source):
        raise UserError("the training split is empty; prepare more data.")
    process, processes = jax.process_index(), jax.process_count()
    size = config.batch_size

    def read(batch: int, indices: np.ndarray) -> dict[str, np.ndarray]:
        positions = batch * size + process + processes * np.arange(len(indices))
        return {
            **source.read(indices),
            "index": indices.astype(np.int32),
            "position": (positions % 2**32).astype(np.uint32),
            "valid": np.ones(len(indices), np.bool_),
        }

    stream = grain.MapDataset.range(len(source)).seed(config.seed).shuffle().repeat()
    batches = stream[process::processes].batch(size // processes).map_with_index(read)
    return iter(batches.to_iter_dataset(_read_options(config)))


def eval_batches(source: Source, config) -> Iterator[dict[str, np.ndarray]]:
    """Every example of a split once, in order, the last batch padded with `valid` False.

    Every process yields the same number of batches.
    """
    size, processes = config.batch_size, jax.process_count()
    padded = math.ceil(len(source) / size) * size

    def read(positions: np.ndarray) -> dict[str, np.ndarray]:
        indices = np.minimum(positions, len(source) - 1)
        return {
            **source.read(indices),
            "index": indices.astype(np.int32),
            "position": positions.astype(np.uint32),
            "valid": positions < len(source),
        }

    stream = grain.MapDataset.range(padded)[jax.process_index() :: processes]
    yield from stream.batch(size // processes).map(read).to_iter_dataset(_read_options(config))


def _read_options(config) -> grain.ReadOptions:
    return grain.ReadOptions(
        num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch
    )
