"""What lifters share: standardised keypoints in, and joints, variances and the root out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# In units of half the image's width: the least extent of a person, so that a frame in which one
# joint or none was seen has finite features.
LEAST_EXTENT = 0.01


def standardize(keypoints: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Splits each frame's keypoints into the pose itself and its place and extent on the screen.

    On the screen a pose is a deviation of a tenth of the person's place. Centred by the mean of
    the seen joints and divided by their extent, joints are of the order of 1; the centre and the
    logarithm of the extent are returned too. Every frame is treated by itself, so that a causal
    model stays causal. In float32 whatever the model's dtype: bfloat16 holds a coordinate near 1
    to a quarter of a per cent of the screen.

    Arguments:
      keypoints: float `[batch, frames, joints, 3]` as (x, y, confidence), screen-normalised;
        confidence 0 says that the joint was not seen, whatever its x and y.
      mask: bool `[batch, frames]`, False at padded frames, whose contents are ignored.

    Returns:
      (float32 `[batch, frames, joints, 3]`: standardised x and y, 0 for a joint that was not seen,
      and the confidence; float32 `[batch, frames, 3]`: x and y of the centre, log extent). The
      mean and the mean square distance of the joints are weighted by confidence.
    """
    keypoints = keypoints.astype(jnp.float32)
    if mask is not None:
        keypoints = jnp.where(mask[:, :, None, None], keypoints, 0.0)
    confidence = keypoints[..., 2:]
    weight = jnp.maximum(confidence, 0.0)
    xy = jnp.where(weight > 0, keypoints[..., :2], 0.0)
    weight = weight / jnp.maximum(weight.sum(-2, keepdims=True), 1e-6)
    centre = (weight * xy).sum(-2, keepdims=True)
    offset = jnp.where(weight > 0, xy - centre, 0.0)
    square = (weight * offset**2).sum((-2, -1), keepdims=True)
    extent = jnp.sqrt(square + LEAST_EXTENT**2)
    joints = jnp.concatenate([offset / extent, confidence], -1)
    return joints, jnp.concatenate([centre, jnp.log(extent)], -1)[..., 0, :]


def frame_features(keypoints: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Features of whole frames, float32 `[batch, frames, 3 joints + 3]`; see `standardize`."""
    pose, place = standardize(keypoints, mask)
    return jnp.concatenate([pose.reshape(*keypoints.shape[:2], -1), place], -1)


# The features before the head have unit variance and joints lie decimetres from the root: an
# ordinary initialisation begins metres away, and a short run is over before the large random
# weights are unlearnt (motion phantoms, 1,000 steps: 52 mm instead of 36). This begins at 1 cm.
HEAD_INIT = nn.initializers.normal(1e-3)

# Metres: where an untrained head begins, and how far it can go from there, as a factor e^LIMIT.
FIRST_SIGMA, FIRST_DEPTH, LIMIT = 0.1, 4.0, 5.0


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Reads the numbers of a head: joints, a variance of each, and the place of the root."""

    joints: int
    uncertainty: bool = False
    trajectory: bool = False

    @property
    def width(self) -> int:
        """Numbers of a frame: joints, then log variances, then the root."""
        return self.joints * (3 + self.uncertainty) + 3 * self.trajectory

    @property
    def joint_width(self) -> int:
        """Numbers of a joint, where each joint has its own: those of a frame would be its mean."""
        return 3 + self.uncertainty + 3 * self.trajectory

    def of_frames(self, y: jax.Array) -> Any:
        """Reads outputs `[batch, frames, width]`, see `read`."""
        y = y.astype(jnp.float32)
        ends = (3 * self.joints, (3 + self.uncertainty) * self.joints)
        joints = y[..., : ends[0]].reshape(*y.shape[:-1], self.joints, 3)
        return self.read(joints, y[..., ends[0] : ends[1]], y[..., ends[1] :])

    def of_joints(self, y: jax.Array) -> Any:
        """Reads outputs `[batch, frames, joints, joint_width]`, see `read`."""
        y = y.astype(jnp.float32)
        return self.read(y[..., :3], y[..., 3], y[..., 3 + self.uncertainty :].mean(-2))

    def read(self, joints: jax.Array, spread: jax.Array, root: jax.Array) -> Any:
        """Gives the numbers their names and units.

        Arguments:
          joints: `[batch, frames, joints, 3]`.
          spread: `[batch, frames, joints]`, read where `uncertainty`.
          root: `[batch, frames, 3]`, read where `trajectory`: x and y over depth, log of the depth
            over `FIRST_DEPTH`, which is about linear in the logarithm of the extent on the screen.

        Returns:
          `joints` in metres, or a dict of `joints`, `log_variance` `[batch, frames, joints]` of
          each coordinate (of metres), and `root` `[batch, frames, 3]`, metres in the camera frame,
          in front of the camera.
        """
        if not self.uncertainty and not self.trajectory:
            return joints
        found = {"joints": joints}
        if self.uncertainty:
            first = 2 * jnp.log(jnp.float32(FIRST_SIGMA))
            found["log_variance"] = first + jnp.clip(spread, -2 * LIMIT, 2 * LIMIT)
        if self.trajectory:
            depth = FIRST_DEPTH * jnp.exp(jnp.clip(root[..., 2:], -LIMIT, LIMIT))
            found["root"] = jnp.concatenate([root[..., :2] * depth, depth], -1)
        return found


def read_frames(model: nn.Module, features: jax.Array, joints: int) -> Any:
    """Reads features `[batch, frames, width]` by a head, from inside a model's compact method."""
    outputs = Outputs(joints, model.uncertainty, model.trajectory)
    head = nn.Dense(outputs.width, dtype=model.dtype, kernel_init=HEAD_INIT, name="head")
    return outputs.of_frames(head(features))


def options_of(model: nn.Module, part: type[nn.Module]) -> dict[str, Any]:
    """The options of a model that a part of it has too."""
    names = [field.name for field in dataclasses.fields(part) if field.init]
    return {
        name: getattr(model, name) for name in names
        if name not in ("parent", "name") and hasattr(model, name)
    }
