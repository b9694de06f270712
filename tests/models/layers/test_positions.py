import numpy as np
import pytest

from jaxcxr.models.layers import positions


def test_sinusoidal_is_the_formula_of_the_paper():
    codes = positions.sinusoidal(np.arange(7), 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(codes[position, 2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(codes[position, 2 * i + 1], np.cos(angle), atol=1e-6)


def test_products_of_grid_codes_depend_on_the_offset_only():
    codes = positions.sinusoidal_2d(4, 5, 16).reshape(4, 5, 16)
    for rows, columns in ((0, 0), (1, 0), (0, 2), (2, 1)):
        a, b = codes[: 4 - rows, : 5 - columns], codes[rows:, columns:]
        products = (a * b).sum(-1)
        np.testing.assert_allclose(products, products[0, 0], atol=1e-4)
    assert len(np.unique(codes.reshape(20, 16).round(4), axis=0)) == 20


@pytest.mark.parametrize("length", [3, 6])
def test_learned_positions_serve_every_length_up_to_the_table(length):
    module = positions.TimePositions("learned", 6)
    table = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    x = np.zeros((2, length, 8), np.float32)
    y = module.apply({"params": {"embedding": table}}, x)
    np.testing.assert_array_equal(y[1], table[:length])
