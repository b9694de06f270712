import functools

import jax
import numpy as np
import pytest

from jaxcxr.models import transformer
from jaxcxr.models.attention import MultiHeadAttention, factory

X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)


def block(**options):
    make = functools.partial(MultiHeadAttention, heads=2)
    return transformer.EncoderBlock(attention=make, **options)


def test_sinusoidal_is_the_formula_of_the_paper():
    codes = transformer.sinusoidal(np.arange(7), 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(codes[position, 2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(codes[position, 2 * i + 1], np.cos(angle), atol=1e-6)


def test_products_of_grid_codes_depend_on_the_offset_only():
    codes = transformer.sinusoidal_2d(4, 5, 16).reshape(4, 5, 16)
    for rows, columns in ((0, 0), (1, 0), (0, 2), (2, 1)):
        a, b = codes[: 4 - rows, : 5 - columns], codes[rows:, columns:]
        products = (a * b).sum(-1)
        np.testing.assert_allclose(products, products[0, 0], atol=1e-4)
    assert len(np.unique(codes.reshape(20, 16).round(4), axis=0)) == 20


def test_layer_norm_parameters_lie_directly_under_its_name(draw):
    variables = draw(block(), X)
    assert set(variables["params"]) == {"norm1", "attention", "norm2", "mlp"}
    assert set(variables["params"]["norm1"]) == {"scale", "bias"}
    assert variables["params"]["mlp"]["fc1"]["kernel"].shape == (8, 32)


def test_drop_path_drops_whole_examples_and_rescales():
    x = np.ones((4000, 2, 3), np.float32)
    drop = transformer.DropPath(0.25)
    y = np.asarray(drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[:, :1, :1]).all()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.04
    np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


def test_drop_path_rates_rise_from_zero():
    np.testing.assert_allclose(transformer.drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert transformer.drop_path_rates(0.3, 1) == [0.0]


def test_causal_mask_hides_what_comes_later(draw):
    module = block()
    variables, mask = draw(module, X, scale=0.5), transformer.causal_mask(5)
    changed = X.copy()
    changed[:, 3:] += 1.0
    before, after = (module.apply(variables, x, mask) for x in (X, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 0.1


def test_block_is_equivariant_to_the_order_of_tokens(draw):
    module, order = block(), np.array([3, 1, 4, 0, 2])
    variables = draw(module, X, scale=0.5)
    np.testing.assert_allclose(
        module.apply(variables, X[:, order]), module.apply(variables, X)[:, order], atol=1e-5
    )


def test_remat_changes_neither_parameters_nor_gradients(draw):
    make = factory("mha", heads=2, dropout=0.0, dtype=np.float32)
    plain, remat = (transformer.encoder_block(flag)(make) for flag in (False, True))
    variables = draw(plain, X)

    def gradient(module):
        def loss(variables):
            return (module.apply(variables, X, None, None, True) ** 2).mean()

        return jax.jit(jax.grad(loss))(variables)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(plain), gradient(remat)
    )


@pytest.mark.parametrize("length", [3, 6])
def test_learned_positions_serve_every_length_up_to_the_table(length):
    module = transformer.TimePositions("learned", 6)
    table = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    x = np.zeros((2, length, 8), np.float32)
    y = module.apply({"params": {"embedding": table}}, x)
    np.testing.assert_array_equal(y[1], table[:length])
