"""Augments radiographs on the device, inside the compiled step."""

import math

import jax
import jax.numpy as jnp
import ml_collections
from jax.scipy import ndimage

from jaxcxr.data.pipeline import position_keys


def augment_xray(
    key: jax.Array,
    images: jax.Array,
    config: ml_collections.ConfigDict,
    positions: jax.Array | None = None,
) -> jax.Array:
    """Changes geometry at random (in one bilinear resampling), then contrast, brightness, gamma.

    Arguments:
      key: PRNG key of the step.
      images: float32 `[B, H, W, 1]` in [0, 1].
      config: settings of `config.augment`, read when tracing.
      positions: integers `[B]`, position of each example in the global batch or in the stream.
        Defaults to 0 to B-1, which is only right for a whole global batch under jit.

    Returns:
      float32 `[B, H, W, 1]`, clipped to [0, 1] after a change of contrast or brightness.
    """
    keys = position_keys(key, images.shape[0], positions)
    geometry, tone = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if _moves(config):
        height, width = images.shape[1:3]
        matrices, offsets = jax.vmap(lambda k: random_affine(k, config, height, width))(geometry)
        images = affine_sample(images, matrices, offsets, config.fill)
    if config.contrast or config.brightness or config.gamma:
        images = jax.vmap(lambda k, image: _change_tone(k, image, config))(tone, images)
    return images


def affine_sample(
    images: jax.Array, matrices: jax.Array, offsets: jax.Array, fill: float = 0.0
) -> jax.Array:
    """Resamples images float32 `[B, H, W, 1]` bilinearly under an affine map about their centre.

    Output pixel p (row, column) takes the value at c + A (p - c) + o of the image, where c is the
    centre ((H-1)/2, (W-1)/2). Neighbours outside the image count as `fill` (SciPy's
    "grid-constant").

    Arguments:
      images: of any intensity.
      matrices: float32 `[B, 2, 2]`, A in (row, column) order.
      offsets: float32 `[B, 2]`, o in pixels.
      fill: intensity outside.
    """
    height, width = images.shape[1:3]
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - center_y
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - center_x

    def one(image: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
        y = matrix[0, 0] * rows + matrix[0, 1] * columns + offset[0] + center_y
        x = matrix[1, 0] * rows + matrix[1, 1] * columns + offset[1] + center_x
        return ndimage.map_coordinates(image, (y, x), order=1, mode="constant", cval=fill)

    return jax.vmap(one)(images[..., 0], matrices, offsets)[..., None]


def random_affine(
    key: jax.Array, config: ml_collections.ConfigDict, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Draws the map of `affine_sample` for one image: flip, crop, then rotation and the rest.

    Returns:
      (float32 `[2, 2]` matrix, float32 `[2]` offset in pixels), both in (row, column) order.
    """
    draws = jax.random.uniform(key, (10,), jnp.float32)
    angle, zoom, shift_y, shift_x, shear, area, aspect, crop_y, crop_x, flip = draws
    angle = math.radians(config.rotation) * (2 * angle - 1)
    shear = jnp.tan(math.radians(config.shear) * (2 * shear - 1))
    zoom = _log_uniform(zoom, config.scale)
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    turn = jnp.array([[cos, cos * shear - sin], [sin, sin * shear + cos]])
    size = jnp.array([height, width], jnp.float32)
    shift = config.translation * size * (2 * jnp.stack([shift_y, shift_x]) - 1)

    area = 1 - (1 - config.crop_area) * area
    ratio = jnp.sqrt(_log_uniform(aspect, config.crop_aspect))
    # A crop wider than the image is cut to its width, so the area may come out smaller than drawn.
    share = jnp.minimum(1.0, jnp.sqrt(area) * jnp.stack([1 / ratio, ratio]))
    corner = (1 - share) * size * (jnp.stack([crop_y, crop_x]) - 0.5)
    mirror = jnp.array([1.0, jnp.where(flip < config.horizontal_flip, -1.0, 1.0)])
    return turn * (share * mirror), turn @ corner + shift


def _moves(config: ml_collections.ConfigDict) -> bool:
    names = ("rotation", "scale", "translation", "shear", "crop_aspect", "horizontal_flip")
    return config.crop_area < 1 or any(config[name] for name in names)


def _change_tone(
    key: jax.Array, image: jax.Array, config: ml_collections.ConfigDict
) -> jax.Array:
    contrast, brightness, gamma = jax.random.uniform(key, (3,), jnp.float32)
    factor = 1 + config.contrast * (2 * contrast - 1)
    # In this form a factor of 1 and an addition of 0 leave every bit as it is.
    image = image * factor + image.mean() * (1 - factor)
    image = jnp.clip(image + config.brightness * (2 * brightness - 1), 0.0, 1.0)
    return image ** _log_uniform(gamma, config.gamma) if config.gamma else image


def _log_uniform(draw: jax.Array, strength: float) -> jax.Array:
    return jnp.exp(math.log1p(strength) * (2 * draw - 1))
