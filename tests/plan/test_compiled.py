"""FLOPs of compiled functions: products of matrices, whose FLOPs are known, in and out of loops."""

import jax
import jax.numpy as jnp
import pytest

from jaxcxr.plan import compiled

N = 64
PRODUCT = 2 * N**3
SQUARE = jax.ShapeDtypeStruct((N, N), jnp.float32)


def flops(function):
    return compiled.compile_(function, SQUARE, SQUARE).flops


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
    built = compiled.compile_(lambda x: jax.nn.softmax(x @ x.T) @ x, vectors)
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
    programs = [compiled.compile_(function, x, x).program for function in (one, two, other)]
    assert programs[0] == programs[1] != programs[2]
    assert "dot" in programs[0] or "custom-call" in programs[0]
