import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.models.vision.convolution import convolve, stem_pool


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


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 2), (7, 2)])
def test_convolutions_are_flaxs_with_their_gradients(size, stride):
    x = jax.random.normal(jax.random.key(0), (2, 7, 8, 5))

    def layer(**options):
        padding = [(size // 2, size // 2)] * 2
        return nn.Conv(6, (size, size), (stride, stride), padding, use_bias=False, **options)

    kernel = layer().init(jax.random.key(1), x)

    def outcome(module):
        def loss(kernel, x):
            return jnp.sin(module.apply(kernel, x)).sum()

        return module.apply(kernel, x), jax.grad(loss, (0, 1))(kernel, x)

    ours, theirs = outcome(layer(conv_general_dilated=convolve)), outcome(layer())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), ours, theirs)
