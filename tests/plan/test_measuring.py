"""FLOPs of compiled functions: products of matrices, whose FLOPs are known, in and out of loops."""


import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.plan import measuring

N = 64
PRODUCT = 2 * N**3
SQUARE = jax.ShapeDtypeStruct((N, N), jnp.float32)


def flops(function):
    return measuring.compile_(function, SQUARE, SQUARE).flops


def test_a_product_has_2_n3_flops():
    assert flops(jnp.matmul) == PRODUCT


def test_a_body_counts_as_often_as_it_runs():
    def nested(x, y):
        return jax.lax.map(
            lambda row: jax.lax.fori_loop(0, 5, lambda _, c: c @ y, row), jnp.stack([x] * 3)
        )

    assert flops(nested) == pytest.approx(15 * PRODUCT, rel=1e-3)


def test_a_function_that_is_called_twice_counts_twice():
    inner = jax.jit(lambda x, y: jax.lax.map(lambda row: row @ y, jnp.stack([x] * 3)))
    assert flops(lambda x, y: inner(x, y) + inner(x + 1, y)) == pytest.approx(6 * PRODUCT, rel=0.02)


def test_a_rematerialised_loop_counts_its_backward_pass_and_no_forward_pass_that_nobody_needs():
    @jax.checkpoint
    def body(row, y):
        return jnp.sin(row @ y) @ y

    def gradient(x, y):
        return jax.grad(
            lambda x: jax.lax.map(lambda row: body(row, y), jnp.stack([x] * 3)).sum()
        )(x)

    # row @ y again, and the products of two gradients, in each of three turns
    assert flops(gradient) == pytest.approx(9 * PRODUCT, rel=0.02)


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="while"):
        flops(lambda x, y: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ y, x))


def test_memory_is_that_of_what_lies_between():
    # n x n scores between vectors cannot be less than one array of them
    vectors = jax.ShapeDtypeStruct((512, 8), jnp.float32)
    built = measuring.compile_(lambda x: jax.nn.softmax(x @ x.T) @ x, vectors)
    assert 512 * 512 * 4 <= built.memory < 4 * 512 * 512 * 4


def test_instructions_are_the_same_whatever_names_functions_have():
    def one(first, second):
        return jnp.tanh(first @ second).sum()

    def two(a, b):
        product = a @ b
        return jnp.sum(jnp.tanh(product))

    def other(a, b):
        return jnp.sum(jnp.exp(a @ b))

    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    programs = [measuring.compile_(function, x, x).program for function in (one, two, other)]
    assert programs[0] == programs[1] != programs[2]
    assert "dot" in programs[0] or "custom-call" in programs[0]


def test_sides_take_turns_and_every_other_round_goes_backwards():
    called = []
    sides = {name: lambda name=name: called.append(name) or 1.0 for name in "abc"}
    assert len(measuring.within(sides, 0, least=3)) == 3
    assert "".join(called) == "abccbaabc"


def test_a_ratio_is_taken_within_a_round():
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 40.0, "b": 20.0}, {"a": 6.0, "b": 1.0}]
    assert measuring.ratio(rounds, "a", "b") == 2
    assert measuring.median(rounds, "a") == 6


@pytest.mark.parametrize("count", [6, 9, 40])
def test_the_interval_covers_the_median_at_least_95_times_in_100(count):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        rounds = [{"a": a, "b": 1.0} for a in rng.exponential(size=count)]
        low, high = measuring.interval(rounds, "a", "b")
        hits += low <= math.log(2) <= high
    assert 0.94 < hits / 2000 < 0.995


def test_too_few_rounds_say_nothing():
    assert measuring.interval([{"a": 1.0, "b": 1.0}] * 5, "a", "b") == (0, math.inf)
