"""A run whose blocks are scanned, from training over its figures to a pruned run."""

import json

import pytest

from jaxcxr import config as base
from jaxcxr.deploy import pruned_run
from tests import toys
from tests.train.runs import toy_run, train


@pytest.mark.slow
def test_a_scanned_run_trains_draws_its_attention_and_is_pruned(tmp_path):
    config = toys.xray_config(
        stages__all__duration="2 steps", report__samples=1, ema_decay=0.9, mesh__fsdp=2,
        evaluate_every="2 steps",
    )
    base.set_model(
        config, "vit_tiny", dim=16, depth=3, heads=4, patch=2, scan=True, remat="dots",
        drop_path=0.1, attention="2*static(0.1)+2*fixed(1)",
    )
    metrics = train(tmp_path / "run", config, figures=True)
    assert 0 <= metrics["auroc"] <= 1
    for name in ("heads.png", "attention.png"):
        assert (tmp_path / "run" / "report" / name).stat().st_size > 1000
    with toy_run():
        result = pruned_run.prune(tmp_path / "run", tmp_path / "new", examples=2, rounds=1)
    assert len(result.layers) == 3
    assert result.difference <= pruned_run.WRONG * max(1.0, result.largest)
    saved = json.loads((tmp_path / "new" / "config.json").read_text())["config"]
    assert saved["model"]["options"]["scan"] is False
