"""Computes the terms of the pose loss as sums over known targets, for the divisors of `PoseTask`.

All lengths are in metres; the weight of a term multiplies its mean.

- `position`: distance of each joint from its target (MPJPE), weighted by joint.
- `n_mpjpe`: the same after scaling each frame optimally (N-MPJPE).
- `velocity`: error of each joint's velocity in metres per 1/50 s: 0.001 is 50 mm/s at any frame
  rate; at 50 frames per second it is the error of the difference of neighbouring frames.
- `acceleration`: the same for second differences, in metres per (1/50 s)^2.
- `bone_length`: error of each bone's length.
- `symmetry`: difference between the predicted lengths of each left bone and its right one.
- `likelihood`: negative log density of each joint in nats without its constant, coordinates normal
  with the variance v from the model: |e|^2 / (2 v) + 3/2 log v.
- `root`: distance of the root from its target over the target's depth, without unit, since far
  roots are seen less well (Pavllo et al., CVPR 2019).
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.pose.geometry.skeletons import Skeleton

TERMS = (
    "position", "n_mpjpe", "velocity", "acceleration", "bone_length", "symmetry", "likelihood",
    "root",
)

REFERENCE_FPS = 50.0  # at this rate velocities are differences of frames


def norm(x: jax.Array) -> jax.Array:
    """Computes the norm along the last axis, with a finite gradient at zero."""
    return jnp.sqrt(jnp.sum(x * x, -1) + 1e-12)


def symmetric_bones(skeleton: Skeleton) -> np.ndarray:
    """Pairs each left bone with its right one as indices of `skeleton.bones`, `[pairs, 2]`."""
    places = {child: place for place, (_, child) in enumerate(skeleton.bones)}
    return np.array(
        [(places[a], places[b]) for a, b in zip(skeleton.left, skeleton.right, strict=True)]
    )


class Losses:
    """Computes the terms of `TERMS` that one configuration names.

    `joint_weights` `[joints]` are those of the term `position`.
    """

    def __init__(self, names: Collection[str], skeleton: Skeleton, joint_weights: np.ndarray):
        self._names = names
        self._weights = joint_weights
        self._parents, self._children = np.array(skeleton.bones).T
        self._pairs = symmetric_bones(skeleton)
        joints = float(skeleton.num_joints)
        self._each = dict.fromkeys(TERMS, joints) | {
            "bone_length": float(len(skeleton.bones)),
            "symmetry": float(len(self._pairs)),
            "root": 1.0,
        }

    def counts(self, known: jax.Array) -> dict[str, jax.Array]:
        """Counts the targets of each term, of which bool `[batch, frames]` are known."""
        return {
            name: _together(known, name).sum(dtype=jnp.float32) * self._each[name]
            for name in self._names
        }

    def sums(
        self, outputs: Mapping[str, jax.Array], batch: Mapping[str, Any], known: jax.Array
    ) -> dict[str, jax.Array]:
        """Sums each term over known targets.

        Arguments:
          outputs: float32 `joints` `[batch, frames, joints, 3]`; `log_variance`
            `[batch, frames, joints]` and `root` `[batch, frames, 3]` if a term needs them.
          batch: `joints` and `root` of the same shapes, `fps` `[batch]`.
          known: bool `[batch, frames]`.
        """
        target = batch["joints"]
        # Unknown targets give no gradient, not even NaN.
        joints = jnp.where(known[..., None, None], outputs["joints"], target)
        error = joints - target
        rate = (batch["fps"] / REFERENCE_FPS)[:, None, None]
        bones, target_bones = self._bones(joints), self._bones(target)
        terms = {
            "position": lambda: norm(error) * self._weights,
            "n_mpjpe": lambda: norm(_scaled(joints, target) - target),
            "velocity": lambda: norm(jnp.diff(error, axis=1)) * rate,
            "acceleration": lambda: norm(jnp.diff(error, 2, axis=1)) * rate**2,
            "bone_length": lambda: jnp.abs(bones - target_bones),
            "symmetry": lambda: jnp.abs(jnp.diff(bones[..., self._pairs], axis=-1)[..., 0]),
            "likelihood": lambda: _surprise(
                error, jnp.where(known[..., None], outputs["log_variance"], 0.0)
            ),
            "root": lambda: _relative(
                jnp.where(known[..., None], outputs["root"], batch["root"]), batch["root"]
            )[..., None],
        }
        return {
            name: jnp.sum(jnp.where(_together(known, name)[..., None], terms[name](), 0.0))
            for name in self._names
        }

    def _bones(self, joints: jax.Array) -> jax.Array:
        return norm(joints[..., self._children, :] - joints[..., self._parents, :])


def _together(known: jax.Array, name: str) -> jax.Array:
    """Marks frames with all the neighbours that a term compares, bool `[batch, fewer frames]`."""
    for _ in range({"velocity": 1, "acceleration": 2}.get(name, 0)):
        known = known[:, 1:] & known[:, :-1]
    return known


def _scaled(joints: jax.Array, target: jax.Array) -> jax.Array:
    """Scales each frame by s = <joints, target> / <joints, joints>."""
    both = jnp.sum(joints * target, (-2, -1), keepdims=True)
    own = jnp.sum(joints * joints, (-2, -1), keepdims=True)
    return joints * both / (own + 1e-6)


def _surprise(error: jax.Array, log_variance: jax.Array) -> jax.Array:
    square = jnp.sum(error * error, -1)
    return 0.5 * square * jnp.exp(-log_variance) + 1.5 * log_variance


def _relative(root: jax.Array, target: jax.Array) -> jax.Array:
    # Padding has depth 0; no camera sees a root nearer than 0.1 m.
    return norm(root - target) / jnp.maximum(target[..., 2], 0.1)
