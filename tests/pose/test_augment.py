import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr.pose import augment

POSE = base.default("pose").augment.unlock()
SWAP = np.array([0, 2, 1, 4, 3, 5])
PARENTS = np.array([-1, 0, 0, 1, 2, 0])


@pytest.fixture
def key():
    return jax.random.key(3)


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(32, 3, 6, 3)), jnp.float32) for _ in range(2))


def bones(joints):
    joints = np.asarray(joints)
    return np.linalg.norm(joints[..., 1:, :] - joints[..., PARENTS[1:], :], axis=-1)


def test_flipping_twice_is_the_identity(clips):
    once = augment.flip_pose(*clips, SWAP)
    twice = augment.flip_pose(*once, SWAP)
    np.testing.assert_array_equal(twice[0], clips[0])
    np.testing.assert_array_equal(twice[1], clips[1])
    np.testing.assert_array_equal(once[0][..., 1, 2], clips[0][..., 2, 2])  # confidence follows
    np.testing.assert_array_equal(once[1][..., 4, 0], -clips[1][..., 3, 0])


def test_flipping_keeps_bone_lengths_and_projection(clips):
    _, joints = clips
    joints = joints + jnp.array([0.0, 0.0, 6.0])
    screen = jnp.concatenate([joints[..., :2] / joints[..., 2:], jnp.ones((32, 3, 6, 1))], -1)
    keypoints, flipped = augment.flip_pose(screen, joints, SWAP)
    np.testing.assert_allclose(bones(flipped), bones(joints)[..., SWAP[1:] - 1], rtol=1e-6)
    np.testing.assert_allclose(keypoints[..., :2], flipped[..., :2] / flipped[..., 2:], rtol=1e-6)


def test_about_half_the_clips_are_mirrored_each_as_a_whole(clips, key):
    keypoints, joints = jax.jit(
        lambda k, a, b: augment.augment_pose(k, a, b, SWAP, POSE)
    )(key, *clips)
    flipped = augment.flip_pose(*clips, SWAP)
    mirrored = np.asarray((joints == flipped[1]).all((1, 2, 3)))
    kept = np.asarray((joints == clips[1]).all((1, 2, 3)))
    assert (mirrored ^ kept).all()
    assert 6 < mirrored.sum() < 26
    chosen = jnp.where(mirrored[:, None, None, None], flipped[0], clips[0])
    np.testing.assert_array_equal(keypoints, chosen)


def test_pose_mirroring_follows_the_position(clips, key):
    same = tuple(jnp.tile(part[:1], (32, 1, 1, 1)) for part in clips)
    _, joints = augment.augment_pose(key, *same, SWAP, POSE, jnp.arange(32) + 100)
    _, late = augment.augment_pose(key, *same, SWAP, POSE, jnp.arange(32) + 110)
    np.testing.assert_array_equal(joints[10:], late[:22])
    off = base.default("pose").augment.unlock()
    off.horizontal_flip = 0.0
    np.testing.assert_array_equal(augment.augment_pose(key, *clips, SWAP, off)[1], clips[1])
