import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.models.sequence import decoding


class Decay(nn.Module):
    """Output t = rate * (output t-1) + the input + the mean of the real source steps."""

    def setup(self):
        self.rate = self.param("rate", nn.initializers.constant(0.5), ())

    def encode(self, source, source_mask=None, train=False):
        mask = jnp.ones(source.shape[:2], bool) if source_mask is None else source_mask
        return (source * mask[..., None]).sum(1) / mask.sum(1)[:, None]

    def start(self, memory, steps):
        return jnp.zeros_like(memory), jnp.ones_like(memory)

    def step(self, carry, previous, memory):
        output = self.rate * carry + previous + memory
        return output, output


SOURCE = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
MASK = np.array([[True, True, False], [True, True, True]])
TARGETS = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
VARIABLES = {"params": {"rate": np.float32(0.5)}}


def by_hand(rate, feedback, targets=None, forced=None):
    mean = np.stack([SOURCE[0, :2].mean(0), SOURCE[1].mean(0)])
    carry, previous, outputs = np.zeros_like(mean), np.ones_like(mean), []
    for t in range(5):
        carry = rate * carry + previous + mean
        previous = feedback(carry)
        if targets is not None:
            previous = np.where(forced[:, t, None], targets[:, t], previous)
        outputs.append(carry)
    return np.stack(outputs, 1)


def test_decode_feeds_each_output_back():
    found = decoding.decode(Decay(), VARIABLES, SOURCE, 5, source_mask=MASK)
    np.testing.assert_allclose(found, by_hand(0.5, lambda y: y), rtol=1e-5)


def test_decode_of_tokens_feeds_the_likeliest_back():
    feedback = decoding.one_hot_of_largest
    found = decoding.decode(Decay(), VARIABLES, SOURCE, 5, feedback, MASK)
    np.testing.assert_allclose(found, by_hand(0.5, lambda y: np.eye(4)[y.argmax(-1)]), rtol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.0])
def test_decode_takes_targets_where_forced(ratio):
    forced = np.random.default_rng(2).random((2, 5)) < ratio
    found = decoding.decode(
        Decay(), VARIABLES, SOURCE, 5, source_mask=MASK, targets=TARGETS, forced=forced
    )
    expected = by_hand(0.5, lambda y: y, TARGETS, forced)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if ratio == 1:
        plain = decoding.decode(Decay(), VARIABLES, SOURCE, 5, source_mask=MASK, targets=TARGETS)
        np.testing.assert_array_equal(found, plain)


def test_decode_is_differentiable_by_the_parameters():
    def total(rate):
        variables = {"params": {"rate": rate}}
        return decoding.decode(Decay(), variables, SOURCE, 5, source_mask=MASK).sum()

    step = 1e-3
    slope = (by_hand(0.5 + step, lambda y: y) - by_hand(0.5 - step, lambda y: y)).sum() / step / 2
    np.testing.assert_allclose(jax.grad(total)(jnp.float32(0.5)), slope, rtol=1e-3)


def test_shift_right_puts_the_start_first_and_drops_the_last():
    shifted = decoding.shift_right(TARGETS, np.full(4, 7.0, np.float32))
    np.testing.assert_array_equal(shifted[:, 0], np.full((2, 4), 7.0))
    np.testing.assert_array_equal(shifted[:, 1:], TARGETS[:, :-1])
