"""Standardises the keypoints of a frame: the pose apart from its place and size."""

import jax
import jax.numpy as jnp

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
