import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import normalizers, spans
from jaxcxr.models.attention.spans import Adaptive, Dynamic, Fixed, Global, Ramped

DISTANCE = jnp.abs(jnp.arange(6)[:, None] - jnp.arange(6))


def test_windows():
    assert spans.factor(Global(), DISTANCE) is None
    found = spans.factor(Fixed(1), DISTANCE)[0, 0]
    np.testing.assert_array_equal(found, np.tri(6, k=1) * np.tri(6, k=1).T)


def test_the_soft_edge_by_a_loop():
    span, share, limit = Adaptive(ramp=2.0), np.array([0.0, 0.5, 1.0]), 5.0
    found = spans.factor(span, DISTANCE, jnp.array(share, jnp.float32), jnp.array(limit))
    assert found.shape == (1, 3, 6, 6)
    for h, i, j in np.ndindex(3, 6, 6):
        expected = np.clip((2 + share[h] * limit - abs(i - j)) / 2, 0, 1)
        np.testing.assert_allclose(found[0, h, i, j], expected, atol=1e-6)
    assert (found[0, 2] == 1).all()  # u = 1 sees everything
    assert (jnp.diagonal(found[0, 0]) == 1).all()  # u = 0 still sees itself


def test_every_query_has_a_span_of_its_own_when_dynamic():
    share = jnp.array(np.random.default_rng(0).random((2, 6, 3)), jnp.float32)
    found = spans.factor(Dynamic(ramp=1.0, limit=4.0), DISTANCE, share)
    for b, h, i, j in np.ndindex(2, 3, 6, 6):
        expected = np.clip(1 + float(share[b, i, h]) * 4 - abs(i - j), 0, 1)
        np.testing.assert_allclose(found[b, h, i, j], expected, atol=1e-5)


def test_log_factor_in_softmax_is_multiplying_and_normalising_again():
    scores = jnp.array(np.random.default_rng(0).normal(size=(6, 6)), jnp.float32)
    m = spans.factor(Adaptive(ramp=2.0, limit=5.0), DISTANCE, jnp.array([0.3]))[0, 0]
    expected = m * jnp.exp(scores)
    expected = expected / expected.sum(-1, keepdims=True)
    hidden = scores + normalizers.log_seen(m)
    np.testing.assert_allclose(normalizers.softmax(hidden), expected, atol=1e-6)
    slope = jax.grad(lambda m: normalizers.softmax(scores + normalizers.log_seen(m))[:, 0].sum())
    assert np.isfinite(slope(m)).all()


def test_reach_is_the_last_distance_seen():
    bounded = [Fixed(3), Fixed(0), Ramped(2.5, 1.5), Ramped(2.2, 1.5), Ramped(0, 0.5), Ramped(4.0)]
    for span in bounded:
        seen = spans.factor(span, jnp.arange(9)[None])[0, 0, 0]
        assert spans.reach(span) == np.flatnonzero(seen).max()
    assert spans.reach(Adaptive(2, limit=3.5)) == spans.reach(Dynamic(2, limit=3.5)) == 5
    assert spans.reach(Adaptive(2)) is spans.reach(Dynamic(2)) is spans.reach(Global()) is None


def test_spans_from_short_to_long():
    np.testing.assert_allclose(Adaptive(init=-1).start(4), [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(Adaptive(init=0.4).start(2), [0.4, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [lambda: Fixed(-1), lambda: Fixed(1.5), lambda: Adaptive(ramp=0), lambda: Adaptive(init=2),
     lambda: Dynamic(limit=-1), lambda: Fixed("16"), lambda: Ramped(-1),
     lambda: Ramped(1, 0), lambda: Adaptive(loss=float("nan"))],
)
def test_impossible_spans(make):
    with pytest.raises(UserError, match="give a"):
        make()
