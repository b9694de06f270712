import argparse
import importlib.util
import pathlib

import jax
import pytest

from jaxcxr import config as base
from jaxcxr import main
from jaxcxr.bench import models_bench
from jaxcxr.commands import bench
from jaxcxr.errors import UserError
from jaxcxr.plan import measuring

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
FLEXIBLE = "1*global+1*fixed(1)"


def toy(**options):
    config = base.default("cxr")
    small = {"dim": 16, "depth": 2, "heads": 2, "patch": 8, "attention": FLEXIBLE}
    base.set_model(config, "vit_tiny", **small | options)
    config.data.image_size = 64
    return config


def printed(monkeypatch, capsys, config, *argv):
    monkeypatch.setattr(main, "load_config", lambda arguments: config)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args = parser.parse_args(["models", *argv])
    args.config = []
    bench.run(args)
    return capsys.readouterr().out.splitlines()


def test_the_table_has_plain_heads_first_and_shares_of_them(monkeypatch, capsys):
    lines = printed(monkeypatch, capsys, toy(), "--attention", FLEXIBLE, "--attention", "shared",
                    "--measure", "--rounds", "1")
    assert "65 tokens" in lines[0]
    plain, flexible, shared = (line.split() for line in lines[2:5])
    assert [plain[0], flexible[0], shared[0]] == ["mha", FLEXIBLE, "shared"]
    assert plain[3] == plain[5] == "100.0%"
    count = [int(row[1].replace(",", "")) for row in (plain, flexible, shared)]
    # The second layer of a group has neither query nor key.
    assert count[0] == count[1] == count[2] + 2 * (16 * 16 + 16)
    assert float(shared[5].rstrip("%")) < 100
    assert [line.split()[0] for line in lines[-3:]] == ["mha", FLEXIBLE, "shared"]
    assert all(float(cell.replace(",", "")) > 0 for cell in lines[-1].split()[1:])


def test_every_default_kind_fits_the_models():
    config = base.default("pose")
    base.set_model(config, "pose_temporal", dim=16, heads=4)
    for subject in map(models_bench.Subject, (toy(heads=4, attention="mha"), config)):
        for kind in (*models_bench.KINDS, *subject.more):
            subject.blocks(kind)
            jax.eval_shape(subject.model(kind).init, jax.random.key(0), subject.input)


def test_layers_of_several_kinds_count_as_often_as_they_stand():
    found = models_bench.Subject(toy(depth=3)).layers("mha|fnet")
    assert [count for _, count in found] == [2, 1]


def test_other_models_and_kinds_are_refused(monkeypatch, capsys):
    config = base.default("cxr")
    with pytest.raises(UserError, match="not 'resnet50'"):
        models_bench.Subject(config)
    with pytest.raises(UserError, match="Did you mean 'longformer'"):
        printed(monkeypatch, capsys, toy(), "--attention", "longfomer")


def test_the_flexible_vit_has_at_most_60_percent_of_the_plain_flops_at_equal_parameters():
    """Beside XLA's count stands the formula: 24 n d^2 and 4 n w d_head for each head."""
    spec = importlib.util.spec_from_file_location("flex", CONFIGS / "cxr15_vit_flex.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.dtype = "float32"
    subject = models_bench.Subject(config)
    (plain, _), (flexible, depth) = subject.layers("mha")[0], subject.layers(subject.own)[0]
    flops = [measuring.compile_(layer.function, *layer.shapes).flops for layer in (plain, flexible)]
    assert flops[1] <= 0.6 * flops[0]
    n, d, heads = 4097, 384, 6
    # Tiles of 8 x 8 patches meet 24 x 24, and the class token.
    keys = [heads * n, n + 5 * (24**2 + 1)]
    for found, met in zip(flops, keys, strict=True):
        assert 1 <= found / (24 * n * d**2 + 4 * n * met * d / heads) < 1.08
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(layer.params))
             for layer in (plain, flexible)]
    assert sizes[1] - sizes[0] == 1
    assert depth == 12
