"""The one grain graph: source -> shuffle -> repeat -> slice by process -> decode -> batch.

The order of the stream is a function of the seed alone: element k of the endless stream belongs to
global batch k // batch_size, whatever the number of processes.
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


def train_iterator(source: Source, config):
    """Endless shuffled batches of this process's share.

    Arguments:
      source: the training split.
      config: `seed`, `batch_size` (global), `data.threads`, `data.prefetch`.

    Returns:
      A grain iterator of dicts of arrays `[batch / processes, ...]`; its state can be saved and
      restored, and is that of the last batch handed out whatever lies in its buffers.

    Raises:
      UserError: the source is empty.
    """
    if not len(source):
        raise UserError("the training split is empty; prepare more data.")
    stream = grain.MapDataset.range(len(source)).seed(config.seed).shuffle().repeat()
    stream = stream.map_with_index(lambda position, index: (position, index))
    stream = stream[jax.process_index() :: jax.process_count()]
    examples = stream.map(lambda pair: _example(source, pair[1], pair[0], valid=True))
    options = grain.ReadOptions(
        num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch
    )
    local = config.batch_size // jax.process_count()
    return iter(examples.to_iter_dataset(options).batch(local, drop_remainder=True))


def eval_batches(source: Source, config) -> Iterator[dict[str, np.ndarray]]:
    """Every example of a split once, in order, the last batch padded with `valid` False.

    Every process yields the same number of batches.
    """
    size, processes = config.batch_size, jax.process_count()
    padded = math.ceil(len(source) / size) * size
    stream = grain.MapDataset.range(padded)[jax.process_index() :: processes]
    last = len(source) - 1
    examples = stream.map(lambda i: _example(source, min(i, last), i, valid=i <= last))
    options = grain.ReadOptions(
        num_threads=config.data.threads, prefetch_buffer_size=config.data.prefetch
    )
    yield from examples.to_iter_dataset(options).batch(size // processes)


def _example(source, index, position, *, valid) -> dict[str, np.ndarray]:
    return {
        **source[int(index)],
        "index": np.int32(index),
        "position": np.uint32(int(position) % 2**32),
        "valid": np.bool_(valid),
    }
