"""Variables for the model tests, drawn with NumPy so that no initialisation is compiled."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def draw():
    """Function (model, input, seed) -> random variables; running variances are positive."""

    def make(model, x, seed=0, scale=0.1):
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)

        def leaf(path, shape):
            values = rng.normal(scale=scale, size=shape.shape).astype(np.float32)
            name = path[-1].key
            return np.abs(values) + 0.5 if name == "var" else values + float(name == "scale")

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return make
