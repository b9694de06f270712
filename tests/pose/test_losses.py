"""Every term of the pose loss: by hand, at zero error, at padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcxr.pose import losses as pose_losses
from jaxcxr.pose.evaluation import mean_errors
from jaxcxr.pose.geometry.skeletons import HUMAN36M

RNG = np.random.default_rng(0)
TARGET = RNG.normal(0, 0.3, (3, 8, 17, 3)).astype(np.float32)
ROOT = RNG.normal(0, 0.3, (3, 8, 3)).astype(np.float32) + np.float32([0, 0, 4])
KNOWN = np.arange(8) < np.array([[8], [5], [1]])
LOSSES = pose_losses.Losses(pose_losses.TERMS, HUMAN36M, np.ones(17, np.float32))


def means(joints, fps=50.0, known=KNOWN, **outputs):
    batch = {"joints": TARGET, "root": ROOT, "fps": np.full(3, fps, np.float32)}
    outputs = {"log_variance": jnp.zeros((3, 8, 17)), "root": jnp.asarray(ROOT), **outputs}
    sums = LOSSES.sums({**outputs, "joints": jnp.float32(joints)}, batch, jnp.asarray(known))
    counts = LOSSES.counts(jnp.asarray(known))
    assert set(sums) == set(counts) == set(pose_losses.TERMS)
    return {name: float(sums[name] / counts[name]) for name in sums}


def test_positions_against_the_metrics():
    joints = TARGET + RNG.normal(0, 0.1, TARGET.shape)
    found = means(joints)
    assert found["position"] == pytest.approx(
        mean_errors.mpjpe(joints, TARGET, KNOWN), rel=1e-5
    )
    assert found["n_mpjpe"] == pytest.approx(
        mean_errors.n_mpjpe(joints, TARGET, KNOWN), rel=1e-4
    )
    assert means(0.4 * TARGET)["n_mpjpe"] == pytest.approx(0, abs=2e-5)


@pytest.mark.parametrize("fps", [25.0, 50.0, 120.0])
def test_motion_is_measured_in_time_and_not_in_frames(fps):
    """An error that moves at 1.5 m/s is 0.03 m per 1/50 s, one that falls 10 m/s^2 is 0.004."""
    time = np.arange(8)[None, :, None, None] / fps
    found = means(TARGET + time * np.array([0.9, 0.0, -1.2]), fps)
    assert found["velocity"] == pytest.approx(1.5 / 50, rel=1e-3)
    assert found["acceleration"] == pytest.approx(0, abs=2e-5)
    found = means(TARGET + 0.5 * time**2 * np.array([0.0, 10.0, 0.0]), fps)
    assert found["acceleration"] == pytest.approx(10 / 50**2, rel=1e-2)


def test_velocity_against_the_metric():
    joints = TARGET + RNG.normal(0, 0.1, TARGET.shape)
    whole = np.ones((3, 8), bool)
    expected = np.mean([mean_errors.mpjve(a, b) for a, b in zip(joints, TARGET, strict=True)])
    assert means(joints, known=whole)["velocity"] == pytest.approx(expected, rel=1e-5)


def test_bones():
    lengths = HUMAN36M.bone_lengths(TARGET)[KNOWN]
    found = means(1.1 * TARGET)
    assert found["bone_length"] == pytest.approx(0.1 * lengths.mean(), rel=1e-4)
    names = [HUMAN36M.joints[child] for _, child in HUMAN36M.bones]
    left = [i for i, name in enumerate(names) if name.startswith("left")]
    right = [names.index(names[i].replace("left", "right")) for i in left]
    assert len(left) == 6
    expected = np.abs(lengths[:, left] - lengths[:, right]).mean()
    assert means(TARGET)["symmetry"] == pytest.approx(expected, rel=1e-4)
    mirrored = TARGET.copy()
    mirrored[:, :, HUMAN36M.left] = mirrored[:, :, HUMAN36M.right] * np.float32([-1, 1, 1])
    mirrored[:, :, [0, 7, 8, 9, 10], 0] = 0
    assert means(mirrored)["symmetry"] == pytest.approx(0, abs=1e-6)


def test_likelihood_is_that_of_normal_coordinates():
    error = RNG.normal(0, 0.1, TARGET.shape)
    spread = RNG.normal(-4, 1, (3, 8, 17)).astype(np.float32)
    found = means(TARGET + error, log_variance=jnp.asarray(spread))
    sigma = np.exp(spread / 2)[..., None]
    expected = -stats.norm.logpdf(error, 0, sigma).sum(-1) - 1.5 * np.log(2 * np.pi)
    assert found["likelihood"] == pytest.approx(expected[KNOWN].mean(), rel=1e-4)


def test_far_roots_count_less():
    moved = ROOT + np.float32([0.3, 0.4, 0.0]) * ROOT[..., 2:]
    assert means(TARGET, root=jnp.asarray(moved))["root"] == pytest.approx(0.5, rel=1e-5)
    assert means(TARGET)["root"] == pytest.approx(0, abs=1e-6)


def total(outputs):
    batch = {"joints": TARGET, "root": ROOT, "fps": np.full(3, 50, np.float32)}
    return sum(LOSSES.sums(outputs, batch, jnp.asarray(KNOWN)).values())


def test_gradients_are_finite_at_zero_error_and_nothing_at_padding():
    perfect = {"joints": TARGET, "root": ROOT, "log_variance": np.zeros((3, 8, 17), np.float32)}
    slope = jax.jit(jax.grad(total))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope(perfect)))
    spoiled = {name: x.copy() for name, x in perfect.items()}
    for x in spoiled.values():
        x[~KNOWN] = np.nan
    assert total(spoiled) == total(perfect)
    for leaf in jax.tree.leaves(slope(spoiled)):
        assert np.isfinite(leaf).all()
        assert (np.asarray(leaf)[~KNOWN] == 0).all()
    nothing = slope({**perfect, "joints": np.zeros_like(TARGET)})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))
