import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from jaxcxr.models.attention import gates


def test_evaluation_gates_are_exactly_open_and_shut_beyond_log_11():
    edge = np.log(11)
    log_alpha = jnp.array([edge + 1e-3, -edge - 1e-3, 0.0, gates.OPEN], jnp.float32)
    np.testing.assert_array_equal(gates.hard_concrete(log_alpha), [1, 0, 0.5, 1])


def test_the_open_probability_is_the_share_of_drawn_gates_that_are_open():
    log_alpha = jnp.array([-2.0, 0.0, 1.5])
    many = jnp.broadcast_to(log_alpha, (20000, 3))
    drawn = np.asarray(gates.hard_concrete(many, jax.random.key(0)))
    assert drawn.min() == 0
    assert drawn.max() == 1
    share = (drawn > 0).mean(0)
    expected = gates.open_probability(log_alpha)
    np.testing.assert_allclose(expected, expit(np.array([-2, 0, 1.5]) + 0.791), atol=1e-3)
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(20000))


def test_gates_of_zero_logits_are_open():
    np.testing.assert_array_equal(gates.from_logits(jnp.zeros(3)), 1)
