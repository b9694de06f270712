"""Augmentation of motion clips on the device, inside the compiled step."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxcxr.data.pipeline import position_keys


def augment_pose(
    key: jax.Array,
    keypoints: jax.Array,
    joints: jax.Array,
    swap: Any,
    config: ml_collections.ConfigDict,
    positions: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mirrors random clips, left and right joints exchanged.

    Arguments:
      keypoints: float32 `[B, T, J, 3]`, (x, y, confidence), x normalised so that 0 is the centre.
      joints: float32 `[B, T, J, 3]` in metres in the camera frame.
      swap: integers `[J]`, the joint that each joint becomes in the mirror.
      positions: integers `[B]` as in `position_keys`.
    """
    if not config.horizontal_flip:
        return keypoints, joints
    keys = position_keys(key, keypoints.shape[0], positions)
    chance = jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(keys)
    mirrored = (chance < config.horizontal_flip)[:, None, None, None]
    flipped = flip_pose(keypoints, joints, swap)
    return jnp.where(mirrored, flipped[0], keypoints), jnp.where(mirrored, flipped[1], joints)


def flip_pose(
    keypoints: jax.Array, joints: jax.Array, swap: Any
) -> tuple[jax.Array, jax.Array]:
    """Mirrors every clip: x changes its sign and left joints become right joints.

    A camera sees the mirror image of a scene if its principal point is mirrored as well: exact for
    root-relative joints, and for absolute ones where that point is the image's centre. Shapes are
    as in `augment_pose`.
    """
    swap = jnp.asarray(swap)
    sign = jnp.array([-1.0, 1.0, 1.0], keypoints.dtype)
    return keypoints[..., swap, :] * sign, joints[..., swap, :] * sign.astype(joints.dtype)
