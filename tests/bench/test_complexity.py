"""Each member of the attention family costs what it promises, by XLA's count."""

import argparse

import pytest

from jaxcxr.bench import attention_bench
from jaxcxr.bench.attention_layers import Tokens
from jaxcxr.commands import bench
from jaxcxr.errors import UserError

SIZES = (2048, 8192)


def run(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    bench.run(parser.parse_args(["complexity", *map(str, words)]))


@pytest.mark.parametrize("kind", attention_bench.MEMBERS)
def test_grows_as_promised(kind):
    built = {n: attention_bench.compiled_of(kind, Tokens(n, 16, 2), "forward")[0] for n in SIZES}
    work, memory = attention_bench.MEMBERS[kind]
    # From below, as the projections are linear.
    found = attention_bench.exponent({n: b.flops for n, b in built.items()})
    assert work - 0.15 < found < work + 0.05
    found = attention_bench.exponent({n: b.memory for n, b in built.items()})
    assert memory - 0.15 < found < memory + 0.05


def test_the_exponent_is_that_of_a_power():
    assert attention_bench.exponent({n: 7 * n**1.5 for n in (256, 512, 1024)}) == pytest.approx(1.5)


def test_the_exponent_is_of_the_larger_half():
    assert attention_bench.upper((1024, 256, 512, 2048)) == [1024, 2048]
    assert attention_bench.upper((256, 512, 1024)) == [512, 1024]
    assert attention_bench.exponent({1: 100.0, 256: 256.0, 512: 512.0}) == pytest.approx(1)


def test_prints_three_rows_with_the_promise(capsys):
    run("--sizes", 32, 64, "--members", "mha", "linformer(rank=4)", "--dim", 8, "--heads", 2,
        "--pass", "forward", "--seconds", 0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("exponents fitted to n = 32, 64")
    rows = [line.split() for line in lines[2:]]
    assert [row[-5] for row in rows[:3]] == ["GFLOP", "ms", "MB"]
    assert [row[-1] for row in rows[:3]] == ["2", "2", "2"]
    assert [row[0] for row in rows[3:]] == ["linformer(rank=4)", "ms", "MB"]
    assert len(rows) == 6


def test_one_size_is_a_users_mistake():
    with pytest.raises(UserError, match="two sizes"):
        run("--sizes", 64)
