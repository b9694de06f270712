import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcxr.config import keys
from jaxcxr.train import optim

GOLDEN_SCHEDULES = pathlib.Path(__file__).parents[1] / "golden" / "optim.npz"
COUNTS = jnp.arange(50)


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    # pytorch_warmup truncates the untuned periods 2000 and 1000 to 1999 and 999.
    [
        ("linear", 20, 1e-6),
        ("exponential", 20, 1e-6),
        ("untuned_linear", 0, 6e-4),
        ("untuned_exponential", 0, 1.1e-3),
    ],
)
def test_warmups_are_those_of_pytorch_warmup(name, steps, tolerance):
    factor = optim.warmup_factor(name, steps=steps, b2=0.999)(COUNTS)
    np.testing.assert_allclose(factor, np.load(GOLDEN_SCHEDULES)[f"warmup_{name}"], rtol=tolerance)


def test_untuned_periods_are_not_truncated():
    linear = optim.warmup_factor("untuned_linear", b2=0.999)(COUNTS)
    explicit = optim.warmup_factor("linear", steps=2000)(COUNTS)
    np.testing.assert_allclose(linear, explicit, rtol=1e-6)
    exponential = optim.warmup_factor("untuned_exponential", b2=0.999)(COUNTS)
    np.testing.assert_allclose(exponential, 1 - np.exp(-np.arange(1, 51) / 1000), rtol=1e-6)


@pytest.mark.parametrize(("t", "rate"), [(1, 1.7469e-7), (4000, 6.9877e-4), (18000, 3.2940e-4)])
def test_noam_values(t, rate):
    noam = optim.warmup_factor("noam", steps=4000, dim=512)(t - 1)
    np.testing.assert_allclose(noam, rate, rtol=2e-5)
    exact = 512**-0.5 * min(t**-0.5, t * 4000**-1.5)
    np.testing.assert_allclose(noam, exact, rtol=1e-6)


@pytest.mark.parametrize("name", keys.find(keys.STAGE_KEYS, "warmup.name").choices)
def test_no_warmup_starts_at_zero(name):
    assert optim.warmup_factor(name, steps=10, dim=16)(0) > 0


def test_decays_against_optax():
    with jax.numpy_dtype_promotion("standard"):
        cosine = optax.cosine_decay_schedule(1.0, 40, alpha=0.1)(COUNTS)
        exponential = optax.exponential_decay(1.0, 40, 0.1, end_value=0.1)(COUNTS)
    ours = optim.decay_factor("cosine", 40, end_factor=0.1)(COUNTS)
    np.testing.assert_allclose(ours, cosine, rtol=1e-6)
    ours = optim.decay_factor("exponential", 40, end_factor=0.1)(COUNTS)
    np.testing.assert_allclose(ours, exponential, rtol=1e-5)


def test_constant_and_step_decay():
    np.testing.assert_array_equal(optim.decay_factor("constant", 40)(COUNTS), np.ones(50))
    ours = optim.decay_factor("step", 40, boundaries=(0.5, 0.75), factor=0.2)(COUNTS)
    np.testing.assert_allclose(ours, 0.2 ** np.repeat([0.0, 1.0, 2.0], (20, 10, 20)), rtol=1e-6)


def test_schedule_is_the_product():
    warmup = optim.warmup_factor("linear", steps=10)
    decay = optim.decay_factor("cosine", 50)
    rates = jax.jit(optim.schedule(0.3, warmup, decay))(COUNTS)
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, 0.3 * warmup(COUNTS) * decay(COUNTS), rtol=1e-6)
    assert rates[0] == pytest.approx(0.03)


@pytest.mark.oracles
@pytest.mark.parametrize("name", ["linear", "exponential"])
def test_product_is_pytorch_warmup_on_a_cosine(name):
    torch = pytest.importorskip("torch")
    pytorch_warmup = pytest.importorskip("pytorch_warmup")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    kind = {"linear": "LinearWarmup", "exponential": "ExponentialWarmup"}[name]
    warmup = getattr(pytorch_warmup, kind)(optimizer, 8)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warmup.dampening():
            cosine.step()
    ours = optim.schedule(
        0.3,
        optim.warmup_factor(name, steps=8),
        optim.decay_factor("cosine", 50),
    )(COUNTS)
    np.testing.assert_allclose(ours, rates, rtol=1e-5, atol=1e-8)


@pytest.mark.oracles
def test_step_decay_is_torchs():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 30], gamma=0.2)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    ours = optim.decay_factor("step", 40, boundaries=(0.5, 0.75), factor=0.2)(COUNTS)
    np.testing.assert_allclose(ours, rates, rtol=1e-6)
