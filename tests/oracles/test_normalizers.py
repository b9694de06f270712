"""Our sparse normalisers, values and gradients, against the package `entmax` of their authors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.models.attention import normalizers as norm

pytestmark = pytest.mark.oracles

Z = np.random.default_rng(0).normal(scale=2.0, size=(3, 4, 33))
WEIGHT = np.random.default_rng(1).normal(size=Z.shape)
WHAT = "sparsemax and entmax-1.5 against entmax, float64"
ALPHA = np.array([1.05, 1.3, 1.5, 1.95])[:, None]


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_values_and_gradients(torch, agree, name):
    theirs = getattr(pytest.importorskip("entmax"), name)
    z = torch.tensor(Z, requires_grad=True)
    expected = theirs(z, dim=-1)
    (expected * torch.tensor(WEIGHT)).sum().backward()
    with jax.enable_x64(True):
        ours = getattr(norm, name)
        gradient = jax.grad(lambda z: (ours(z) * WEIGHT).sum())(jnp.array(Z))
        found = ours(jnp.array(Z))
    agree(WHAT, found, expected.detach().numpy(), 1e-9)
    agree(f"{WHAT}, gradient", gradient, z.grad.numpy(), 1e-9)
    single = ours(jnp.array(Z, jnp.float32))
    np.testing.assert_allclose(single, expected.detach().numpy(), atol=1e-6)


def test_learned_alpha(torch, agree):
    entmax = pytest.importorskip("entmax")
    z, alpha = torch.tensor(Z, requires_grad=True), torch.tensor(ALPHA, requires_grad=True)
    expected = entmax.entmax_bisect(z, alpha, dim=-1, n_iter=100)
    (expected * torch.tensor(WEIGHT)).sum().backward()
    with jax.enable_x64(True):
        value = lambda z, a: (norm.entmax(z, a) * WEIGHT).sum()  # noqa: E731
        to_z, to_alpha = jax.grad(value, (0, 1))(jnp.array(Z), jnp.array(ALPHA))
        found = norm.entmax(jnp.array(Z), jnp.array(ALPHA))
    what = "entmax of any order against entmax, float64"
    agree(what, found, expected.detach().numpy(), 1e-9)
    agree(f"{what}, gradient", to_z, z.grad.numpy(), 1e-8)
    agree(f"{what}, gradient by the order", to_alpha, alpha.grad.numpy(), 1e-6)
