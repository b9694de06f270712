import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.models.classifier import stem_pool


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (1, 1, 2, 1)])
def test_the_pool_of_the_stem_is_flaxs_with_its_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)

    def flax(x):
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

    weight = jax.random.normal(jax.random.key(1), flax(x).shape)
    np.testing.assert_array_equal(stem_pool(x), flax(x))
    ours, theirs = (jax.grad(lambda x, f=f: (f(x) * weight).sum())(x) for f in (stem_pool, flax))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_negative_and_half_precision_pixels():
    x = -jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    assert (stem_pool(x) == -1).all()
    assert stem_pool(x).dtype == jnp.bfloat16
