"""Terms of the pose loss: sums over what is known, for the divisors of `PoseTask`.

All lengths are in metres; the weight of a term multiplies its mean.

- `position`: distance of each joint from its target (MPJPE), weighted by joint.
- `n_mpjpe`: the same after the scale that fits each frame best (N-MPJPE).
- `velocity`: length of the error of each joint's velocity, in metres per 1/50 s: 0.001 is 50 mm/s
  whatever the frame rate, and at 50 frames per second it is the error of the difference of
  neighbouring frames.
- `acceleration`: the same for second differences, in metres per (1/50 s)^2.
- `bone_length`: difference of the length of each bone from the target's.
- `symmetry`: difference of the lengths of each left bone and its right one, of the prediction.
- `likelihood`: negative logarithm of the density of each joint, each coordinate normal with the
  variance that the model gives, without its constant: |e|^2 / (2 v) + 3/2 log v, in nats.
- `root`: distance of the root from its target over the target's depth (Pavllo et al., CVPR 2019),
  since far roots are seen less well; no unit.
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

# Frames per second at which velocities are differences of frames.
REFERENCE_FPS = 50.0


def norm(x: jax.Array) -> jax.Array:
    """Length of the last axis with a finite gradient at zero."""
    return jnp.sqrt(jnp.sum(x * x, -1) + 1e-12)


def symmetric_bones(skeleton: Skeleton) -> np.ndarray:
    """Pairs of places of a left bone and its right one in `skeleton.bones`, `[pairs, 2]`."""
    places = {child: place for place, (_, child) in enumerate(skeleton.bones)}
    return np.array(
        [(places[a], places[b]) for a, b in zip(skeleton.left, skeleton.right, strict=True)]
    )


class Losses:
    """The terms of one configuration.

    Arguments:
      names: which of `TERMS`.
      skeleton: of the joints.
      joint_weights: `[joints]`, of the term `position`.
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
        """How many targets each term has.

        Arguments:
          known: bool `[batch, frames]`.
        """
        return {
            name: _together(known, name).sum(dtype=jnp.float32) * self._each[name]
            for name in self._names
        }

    def sums(
        self, outputs: Mapping[str, jax.Array], batch: Mapping[str, Any], known: jax.Array
    ) -> dict[str, jax.Array]:
        """Each term, summed over what is known.

        Arguments:
          outputs: float32 `joints` `[batch, frames, joints, 3]`; `log_variance`
            `[batch, frames, joints]` and `root` `[batch, frames, 3]` where a term needs them.
          batch: `joints` and `root` of the same shapes, `fps` `[batch]`.
          known: bool `[batch, frames]`.
        """
        target = batch["joints"]
        # What is not known gives no gradient, not even one that is not a number.
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
    """Which frames have all the neighbours that a term compares, bool `[batch, fewer frames]`."""
    for _ in range({"velocity": 1, "acceleration": 2}.get(name, 0)):
        known = known[:, 1:] & known[:, :-1]
    return known


def _scaled(joints: jax.Array, target: jax.Array) -> jax.Array:
    """The pose times the factor s = <joints, target> / <joints, joints> of each frame."""
    both = jnp.sum(joints * target, (-2, -1), keepdims=True)
    own = jnp.sum(joints * joints, (-2, -1), keepdims=True)
    return joints * both / (own + 1e-6)


def _surprise(error: jax.Array, log_variance: jax.Array) -> jax.Array:
    square = jnp.sum(error * error, -1)
    return 0.5 * square * jnp.exp(-log_variance) + 1.5 * log_variance


def _relative(root: jax.Array, target: jax.Array) -> jax.Array:
    # Padding has depth 0, and a root nearer than a decimetre no camera sees.
    return norm(root - target) / jnp.maximum(target[..., 2], 0.1)
