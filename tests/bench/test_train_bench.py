"""`jaxcxr bench train`: what it measures, on toys."""

import pytest

from jaxcxr.bench import train_bench
from jaxcxr.commands import bench
from jaxcxr.errors import UserError
from jaxcxr.train import setup
from tests.bench.printed import arguments, number, size_of


def test_prints_rates_use_and_memory(train_run, capsys):
    bench.run(arguments("train", "--seconds", "0.01"))
    text = capsys.readouterr().out
    assert f"{size_of(train_run):,} parameters, batch 16" in text
    rate = number(text, "step")
    milliseconds = float(text.split("step ")[1].split("examples/s, ")[1].split()[0])
    assert rate == pytest.approx(16 / milliseconds * 1e3, rel=0.1)
    assert 0 <= number(text, "data wait") <= 100
    # At a peak of 1 GFLOP/s the share and the rate are one number.
    share = number(text, "MFU") / 100
    per_second = float(text.split("GFLOP a step at ")[1].split()[0])
    assert share == pytest.approx(per_second, rel=0.05, abs=0.06)
    assert number(text, "memory") >= 0


def test_another_model_than_the_configs(train_run, monkeypatch):
    seen = []
    monkeypatch.setattr(train_bench, "bench_train", lambda run, _: [seen.append(run.config.model)])
    bench.run(arguments("train", "--model", "pose_spatiotemporal"))
    assert seen[0].name == "pose_spatiotemporal"
    assert seen[0].options.dim == 128
    with pytest.raises(UserError, match="vit_small"):
        bench.run(arguments("train", "--model", "vit_smal"))


def test_counts_the_products_of_all_passes(train_run):
    """By hand: each Dense three times, but the embedding, whose input has no gradient, twice."""
    run = setup.make(train_run)
    batch = run.example_batch()
    tokens, dim, joints = 16 * 9, 16, 17
    dense = 3 * (4 * dim * dim + 2 * dim * 2 * dim + dim * 3 * joints)
    embed = 2 * (3 * joints + 3) * dim
    attention = 3 * 2 * 9 * dim
    expected = 2.0 * tokens * (dense + embed + attention)
    assert train_bench.products_of_step(run, batch) == pytest.approx(expected, rel=1e-3)


def test_waiting_for_data_is_counted(monkeypatch):
    # The loop begins at 0 and ends at 5; it waits from 1 to 1.5 and from 3 to 4.
    clocks = iter([0.0, 1.0, 1.5, 3.0, 4.0, 5.0])
    monkeypatch.setattr(train_bench.time, "perf_counter", lambda: next(clocks))
    feed = train_bench.Timed(iter(range(3)))
    assert feed.during(lambda: next(feed) + next(feed)) == 5.0
    assert feed.share == pytest.approx(0.3)
    feed.begin()
    assert feed.share == 0.0
