"""Saliency maps: how much each pixel counts for a finding.

A map is of one image and one class, of the size of the image, larger where the image counts more.
Maps of different methods have different units; only their order within an image means something.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.models.attention.geometry import Grid
from jaxcxr.models.attention.stacks import Stack, stacks
from jaxcxr.models.layers.taps import FEATURES, PERTURBATIONS
from jaxcxr.models.sequence import scanned
from jaxcxr.report.attention_figures import patch_maps, rollout

# Method -> (forward passes that it costs, roughly; what it needs of a model).
METHODS = {
    "grad_cam": (3, "map"),
    "score_cam": (65, "map"),
    "rollout": (2, "attention"),
    "attention_gradient": (4, "attention"),
    "integrated_gradients": (96, ""),
    "occlusion": (226, ""),
}
STEPS = 32  # of integrated gradients
CELLS = 7  # a side, that a map of features has at least to be drawn, where one has
CHANNELS = 64  # of Score-CAM, those of the greatest mean
WINDOWS = 8  # windows of occlusion that cover a side; they move by half a window


class Explainer:
    """Saliency maps of one model.

    Arguments:
      model: Linen module of images, with `backbone` and `head`.
      variables: of the model.
      baseline: value of a black pixel in the normalised input, the reference of
        `integrated_gradients` and of Score-CAM's masks.
    """

    def __init__(self, model: Any, variables: Mapping[str, Any], baseline: float):
        self._model, self.variables = scanned.unrolled(model, variables)
        self._baseline = baseline
        self._compiled: dict[str, Callable] = {}
        self._given: dict[tuple, Mapping[str, Any]] = {}

    def with_variables(self, variables: Mapping[str, Any]) -> "Explainer":
        """The same compiled functions with other weights."""
        other = Explainer(self._model, variables, self._baseline)
        other._compiled, other._given = self._compiled, self._given
        return other

    def methods(self, images: jax.Array) -> tuple[str, ...]:
        """The methods that suit the model, in the order of `METHODS`."""
        found = self._collections(images)
        given = {"", *(("map",) if FEATURES in found else ())}
        blocks, stack = found.get("attention", {}).get("backbone", {}), self._stack(images)
        if stack and all(
            "weights" in blocks.get(name, {}).get("attention", {}) for name in stack.blocks
        ):
            given.add("attention")
        return tuple(name for name, (_, need) in METHODS.items() if need in given)

    def stage(self, images: jax.Array) -> tuple[str, tuple[int, int]]:
        """Name and size of the map of features that Grad-CAM and Score-CAM draw.

        The last one of at least `CELLS` cells a side, which is ResNet's and DenseNet's last at
        224 pixels; smaller images leave too few cells there. Else the one of the most cells.
        """
        maps = self._collections(images)[FEATURES]["backbone"]
        sizes = {name: tuple(given[0].shape[1:3]) for name, given in maps.items()}
        fine = [name for name, size in sizes.items() if min(size) >= CELLS]
        name = max(fine) if fine else max(sizes, key=lambda name: min(sizes[name]))
        return name, sizes[name]

    def _stack(self, images: jax.Array) -> Stack | None:
        """The model's blocks over patches, where it is one stack of those alone."""
        found = stacks(self._model, images.shape[1:])
        return found[0] if len(found) == 1 and isinstance(found[0].where, Grid) else None

    def _collections(self, images: jax.Array) -> Mapping[str, Any]:
        """Shapes of the collections that explanations read."""
        key = images.shape, images.dtype
        if key not in self._given:  # tracing takes longer than a map
            _, self._given[key] = jax.eval_shape(
                lambda v, x: self._model.apply(v, x, mutable=[FEATURES, "attention"]),
                self.variables, images,
            )
        return self._given[key]

    def logits(self, images: jax.Array) -> np.ndarray:
        """Logits `[n, classes]` of normalised images `[n, H, W, 1]`."""
        return np.asarray(self._run("logits", self._model.apply)(self.variables, images))

    def maps(self, method: str, images: jax.Array, classes: np.ndarray) -> np.ndarray:
        """Maps of images for one class each.

        Arguments:
          method: one of `methods`.
          images: normalised, `[n, H, W, 1]`.
          classes: int `[n]`.

        Returns:
          float32 `[n, H, W]`.

        Raises:
          UserError: the method does not suit the model.
        """
        if method not in self.methods(images):
            raise UserError(
                f"{method!r} does not explain this model; methods: "
                f"{', '.join(self.methods(images))}."
            )
        options = {}
        if METHODS[method][1] == "map":
            options["stage"] = self.stage(images)[0]
        if METHODS[method][1] == "attention":
            options["stack"] = self._stack(images)
        if method in ("score_cam", "integrated_gradients"):
            options["baseline"] = self._baseline
        run = self._run(method, functools.partial(_FUNCTIONS[method], self._model, **options))
        found = jax.device_get(run(self.variables, images, jnp.asarray(classes)))
        if method == "rollout":
            found = rollout(found)
        if METHODS[method][1] == "attention":
            grid = options["stack"].where
            found = patch_maps(found, grid.rows, grid.columns, token=grid.prefix > 0)
        return enlarge(np.asarray(found, np.float32), images.shape[1:3])

    def _run(self, name: str, function: Callable) -> Callable:
        if name not in self._compiled:
            self._compiled[name] = jax.jit(function)
        return self._compiled[name]


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps `[n, rows, columns]` at the size (height, width) of the image, bilinear."""
    if maps.shape[1:] == tuple(size):
        return maps
    return np.stack([
        cv2.resize(one, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for one in maps
    ])


def _of_class(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None], 1)[:, 0]


def _perturbed(model, variables, images, classes, kept: str):
    """Values of a collection, and the gradient of the classes' logits by them."""
    _, shapes = jax.eval_shape(
        lambda v, x: model.apply(v, x, mutable=[kept, PERTURBATIONS]), variables, images
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[PERTURBATIONS])

    def score(perturbations):
        logits, found = model.apply(
            {**variables, PERTURBATIONS: perturbations}, images, mutable=[kept]
        )
        return _of_class(logits, classes).sum(), found[kept]

    gradient, found = jax.grad(score, has_aux=True)(zeros)
    return found, gradient


def grad_cam(model, variables, images, classes, *, stage: str) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2).

    Arguments:
      model, variables: a model with marked maps of features, see `jaxcxr.models.layers.taps`.
      images: normalised, `[n, H, W, 1]`.
      classes: int `[n]`.
      stage: name of the map of features.

    Returns:
      float32 `[n, rows, columns]`, not negative.
    """
    found, gradient = _perturbed(model, variables, images, classes, FEATURES)
    features = found["backbone"][stage][0].astype(jnp.float32)
    weight = gradient["backbone"][stage].astype(jnp.float32).mean((1, 2), keepdims=True)
    return jax.nn.relu((weight * features).sum(-1))


def score_cam(model, variables, images, classes, *, stage: str, baseline: float) -> jax.Array:
    """Score-CAM (Wang et al. 2020, eq. 5 to 7): channels weighed by what their place alone scores.

    Only the `CHANNELS` channels of the greatest mean are tried, for each costs a forward pass.

    Arguments:
      model, variables, images, classes, stage: as in `grad_cam`.
      baseline: what is left where a channel masks the image out.

    Returns:
      float32 `[n, rows, columns]`, not negative.
    """
    _, found = model.apply(variables, images, mutable=[FEATURES])
    features = found[FEATURES]["backbone"][stage][0].astype(jnp.float32)
    count = min(CHANNELS, features.shape[-1])
    _, best = jax.lax.top_k(features.mean((1, 2)), count)
    features = jnp.take_along_axis(features, best[:, None, None, :], -1)
    low = features.min((1, 2), keepdims=True)
    span = features.max((1, 2), keepdims=True) - low
    masks = jnp.where(span > 0, (features - low) / jnp.where(span > 0, span, 1), 0)
    empty = model.apply(variables, jnp.full_like(images[:1], baseline))

    def increase(mask):
        mask = jax.image.resize(mask[..., None], images.shape, "bilinear").astype(images.dtype)
        seen = model.apply(variables, baseline + (images - baseline) * mask)
        return _of_class(seen - empty, classes)

    gains = jax.lax.map(increase, jnp.moveaxis(masks, -1, 0))
    weight = jax.nn.softmax(gains, 0).T[:, None, None, :]
    return jax.nn.relu((weight * features).sum(-1))


def attention_weights(model, variables, images, classes, *, stack: Stack) -> list[jax.Array]:
    """Weights of each block of a stack, `[n, heads, tokens, tokens]`, for rollout; of no class."""
    del classes
    _, found = model.apply(variables, images, mutable=["attention"])
    blocks = found["attention"]["backbone"]
    return [blocks[name]["attention"]["weights"][0] for name in stack.blocks]


def attention_gradient(model, variables, images, classes, *, stack: Stack) -> jax.Array:
    """Gradient-weighted attention (Chefer, Gur and Wolf 2021, arXiv:2103.15679, eq. 5 and 6).

    Arguments:
      model, variables: a transformer whose blocks all have weights.
      images: normalised, `[n, H, W, 1]`.
      classes: int `[n]`.
      stack: the blocks.

    Returns:
      float32 `[n, tokens, tokens]`: how much each input token counts through each output token.
    """
    found, gradient = _perturbed(model, variables, images, classes, "attention")
    total = None
    for name in stack.blocks:
        block = found["backbone"][name]["attention"]
        slopes = gradient["backbone"][name]["attention"]
        slope = jnp.concatenate([slopes[group] for group in sorted(slopes, key=_group)], 1)
        weights = block["weights"][0].astype(jnp.float32)
        mean = jax.nn.relu(slope.astype(jnp.float32) * weights).mean(1)
        total = jnp.eye(mean.shape[-1]) if total is None else total
        total = total + mean @ total
    return total - jnp.eye(total.shape[-1])


def _group(name: str) -> int:
    """Number of the group of heads in `weights_3`; equal heads have one name alone."""
    return int(name.partition("_")[2] or 0)


def integrated_gradients(model, variables, images, classes, *, baseline: float) -> jax.Array:
    """Absolute integrated gradients (Sundararajan, Taly and Yan 2017, eq. 1), midpoint rule.

    Arguments:
      model, variables, images, classes: as in `grad_cam`; any model.
      baseline: value of all pixels where the path begins.

    Returns:
      float32 `[n, H, W]`, not negative.
    """
    return jnp.abs(attributions(model, variables, images, classes, baseline=baseline)).sum(-1)


def attributions(model, variables, images, classes, *, baseline: float) -> jax.Array:
    """Integrated gradients with their signs, `[n, H, W, 1]`.

    Those of an image add up to what its logit is above that of the baseline.
    """
    slope = jax.grad(lambda x: _of_class(model.apply(variables, x), classes).sum())

    def add(total, share):
        return total + slope(baseline + share * (images - baseline)), None

    shares = (jnp.arange(STEPS, dtype=images.dtype) + 0.5) / STEPS
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), shares)
    return (images - baseline) * total / STEPS


def occlusion(model, variables, images, classes) -> jax.Array:
    """How far the logit falls where a gray window hides a place (Zeiler and Fergus 2014, 4.2).

    A pixel has the mean over the windows that hide it; gray is the mean of the image.

    Arguments:
      model, variables, images, classes: as in `grad_cam`; any model.

    Returns:
      float32 `[n, H, W]`; negative where hiding raises the logit.
    """
    height, width = images.shape[1:3]
    before = _of_class(model.apply(variables, images), classes)
    gray = images.mean((1, 2, 3), keepdims=True)
    rows, columns = (_starts(size) for size in (height, width))
    tall, wide = -(-height // WINDOWS), -(-width // WINDOWS)
    places = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)

    def window(place):
        y, x = jnp.arange(height) - place[0], jnp.arange(width) - place[1]
        inside = ((y >= 0) & (y < tall))[:, None] & ((x >= 0) & (x < wide))[None, :]
        return inside.astype(images.dtype)

    def add(total, place):
        inside = window(place)
        hidden = jnp.where(inside[None, :, :, None] > 0, gray, images)
        fall = before - _of_class(model.apply(variables, hidden), classes)
        drops, counts = total
        return (drops + fall[:, None, None] * inside, counts + inside), None

    empty = jnp.zeros(images.shape[:3], images.dtype), jnp.zeros((height, width), images.dtype)
    (drops, counts), _ = jax.lax.scan(add, empty, places)
    return drops / counts


def _starts(size: int) -> jax.Array:
    """First pixels of the windows along a side; the last window ends with the image."""
    window = -(-size // WINDOWS)
    step = max(1, window // 2)
    starts = [*range(0, size - window, step), size - window]
    return jnp.asarray(starts)


_FUNCTIONS = {
    "grad_cam": grad_cam,
    "score_cam": score_cam,
    "rollout": attention_weights,
    "attention_gradient": attention_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
