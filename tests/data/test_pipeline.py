"""The grain graph: order, process independence, padding, and the saved position."""

import numpy as np
import pytest

from jaxcxr.data import pipeline
from jaxcxr.errors import UserError
from tests import toys


@pytest.fixture
def config():
    return toys.xray_config()


def share(config, index, count):
    """Rows of one of several processes."""
    return np.array_split(np.arange(config.batch_size), count)[index]


def take(source, config, count, rows=None):
    stream = pipeline.train_iterator(source, config, rows=rows)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_the_union_over_processes_is_the_one_process_stream(config, count):
    source = toys.ToyXrays(21, 0)
    alone = take(source, config, 5)
    shares = []
    for index in range(count):
        shares.append(take(source, config, 5, share(config, index, count)))
    for step, whole in enumerate(alone):
        for key in ("position", "index", "image", "labels"):
            joined = np.concatenate([part[step][key] for part in shares])
            np.testing.assert_array_equal(joined, whole[key])


def test_every_epoch_holds_each_example_once_in_a_new_order(config):
    source = toys.ToyXrays(32, 0)
    indices = [batch["index"] for batch in take(source, config, 4)]
    first, second = np.concatenate(indices[:2]), np.concatenate(indices[2:])
    assert sorted(first) == sorted(second) == list(range(32))
    assert list(first) != list(second)


def test_batches_that_span_epochs_hold_each_example_once_an_epoch(config):
    indices = np.concatenate([batch["index"] for batch in take(toys.ToyXrays(7, 0), config, 7)])
    for epoch in indices.reshape(16, 7):
        assert sorted(epoch) == list(range(7))


@pytest.mark.parametrize("count", [1, 2])
def test_probabilities_decide_how_often_an_example_is_drawn(config, count):
    rows = share(config, 0, count)
    chances = np.array([0.7, 0.0, 0.2, 0.1])
    stream = pipeline.train_iterator(toys.ToyXrays(4, 0), config, chances, rows)
    drawn = np.concatenate([next(stream)["index"] for _ in range(200)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(drawn), chances, atol=0.05)


def test_the_seed_decides_the_order(config):
    source = toys.ToyXrays(32, 0)
    same = [take(source, config, 1)[0]["index"] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    config.seed = 1
    assert list(take(source, config, 1)[0]["index"]) != list(same[0])


@pytest.mark.parametrize("threads", [0, 2])
def test_the_restored_iterator_gives_the_next_batch(config, threads):
    config.data.threads = threads
    source = toys.ToyXrays(21, 0)
    stream = pipeline.train_iterator(source, config)
    for _ in range(3):
        next(stream)
    position = stream.get_state()
    expected = [next(stream)["index"] for _ in range(3)]
    again = pipeline.train_iterator(source, config)
    again.set_state(position)
    for indices in expected:
        np.testing.assert_array_equal(next(again)["index"], indices)


@pytest.mark.parametrize(("size", "batch_size"), [(21, 16), (32, 16), (3, 16), (21, 4)])
@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_counts_every_example_once(config, size, batch_size, count):
    config.batch_size = batch_size
    source = toys.ToyXrays(size, 0)
    seen, batches = [], set()
    for index in range(count):
        own = list(pipeline.eval_batches(source, config, share(config, index, count)))
        batches.add(len(own))
        assert all(len(batch["valid"]) == batch_size // count for batch in own)
        seen += [batch["index"][batch["valid"]] for batch in own]
    assert sorted(np.concatenate(seen)) == list(range(size))
    assert len(batches) == 1


def test_an_empty_split_is_refused(config):
    with pytest.raises(UserError, match="empty"):
        pipeline.train_iterator(toys.ToyXrays(0, 0), config)
