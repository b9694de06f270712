"""The benchmark of streams: its rows, and the errors of a run at each latency."""

import argparse

import pytest

from jaxcxr import config as base
from jaxcxr import main, models
from jaxcxr.bench import stream_bench
from jaxcxr.commands import bench
from jaxcxr.errors import UserError
from jaxcxr.train import checkpoint
from tests import toys
from tests.train import runs


def arguments(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args, args.config = parser.parse_known_args(["stream", *map(str, words)])
    return args


def config_of(name, **options):
    config = toys.pose_config(mesh__data=1)
    base.set_model(config, name, **options)
    return config


def test_rows_of_a_convolution(monkeypatch, capsys):
    config = config_of("pose_convolution", channels=8, widths=(3, 3))
    monkeypatch.setattr(main, "load_config", lambda argv: config)
    bench.run(arguments("--seconds", "0.01", "--config=F"))
    title, _, row = capsys.readouterr().out.splitlines()
    assert "pose_convolution" in title
    latency, median, p99, batch, ratio = map(float, row.split())
    assert latency == 4
    assert 0 < median <= p99
    assert ratio == pytest.approx(median / batch, rel=0.7)


def test_transformers_choose_their_latency():
    model = models.create("pose_temporal", dim=8, depth=1, heads=2)
    assert [v.latency for v in stream_bench.streamed(model, 5)] == [0, 1, 2, 4]
    assert all(v.causal for v in stream_bench.streamed(model, 5))
    with pytest.raises(UserError, match="bidirectional"):
        stream_bench.streamed(models.create("pose_recurrent", bidirectional=True), 5)


def test_a_run_has_a_curve_that_ends_where_it_was_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_bench, "LATENCIES", (0, 2))
    curve, kept = stream_bench.curve, []
    monkeypatch.setattr(stream_bench, "curve", lambda *args: kept.extend(curve(*args)) or kept)
    config = config_of("pose_temporal", dim=8, depth=1, heads=2)
    config.stages.all.duration = "4 steps"
    expected = runs.train(tmp_path, config, devices=1)
    saved = base.from_saved(checkpoint.load_config(tmp_path))
    with runs.toy_run(devices=1):
        cost = stream_bench.StreamCost(0, 1, 1, 1, 1)
        monkeypatch.setattr(stream_bench, "measure", lambda *_: cost)
        bench.run(arguments("--workdir", tmp_path))
    assert saved == config
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["0", "2", "trained"]
    found = [metrics["mpjpe"] for _, metrics in kept]
    assert [float(line.split()[1]) for line in lines] == pytest.approx(found, abs=0.051)
    assert found[2] == pytest.approx(expected["mpjpe"], rel=1e-6)
    assert len(set(found)) == 3


def test_other_tasks_have_no_stream(monkeypatch):
    monkeypatch.setattr(main, "load_config", lambda argv: toys.xray_config())
    with pytest.raises(UserError, match="models of poses"):
        bench.run(arguments("--config=F"))
