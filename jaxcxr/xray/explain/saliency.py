"""Draws saliency maps: how much each pixel counts for a finding.

A map belongs to one image and one class, has the size of the image and is larger where the image
counts more. Its unit depends on the method; only the order within an image has a meaning.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.models.attention import Stack, stacks
from jaxcxr.models.attention.geometry import Grid
from jaxcxr.models.layers import FEATURES, PERTURBATIONS
from jaxcxr.models.sequence import scanned
from jaxcxr.report.attention_figures import patch_maps, rollout

Images: TypeAlias = jax.Array | np.ndarray

# Method -> (rough cost in forward passes; the tensors it needs of a model).
METHODS = {
    "grad_cam": (3, "map"),
    "score_cam": (65, "map"),
    "rollout": (2, "attention"),
    "attention_gradient": (4, "attention"),
    "integrated_gradients": (96, ""),
    "occlusion": (226, ""),
}
STEPS = 32  # of integrated gradients
CELLS = 7  # least cells per side of the map of features that is drawn, where a map has as many
CHANNELS = 64  # of Score-CAM, those with the greatest mean
WINDOWS = 8  # windows of occlusion that cover a side; they move by half a window


class Explainer:
    """Draws saliency maps of one Linen model of images, with `backbone` and `head`.

    `baseline` is the value of a black pixel in the normalised input, the reference of
    `integrated_gradients` and of Score-CAM's masks.
    """

    def __init__(self, model: Any, variables: Mapping[str, Any], baseline: float):
        self._model, self.variables = scanned.unrolled(model, variables)
        self._baseline = baseline
        self._compiled: dict[str, Callable] = {}
        self._given: dict[tuple, Mapping[str, Any]] = {}

    def with_variables(self, variables: Mapping[str, Any]) -> "Explainer":
        """Returns an explainer with other weights and the same compiled functions."""
        other = Explainer(self._model, variables, self._baseline)
        other._compiled, other._given = self._compiled, self._given
        return other

    def methods(self, images: Images) -> tuple[str, ...]:
        """Lists the methods that suit the model, in the order of `METHODS`."""
        found = self._collections(images)
        given = {"", *(("map",) if FEATURES in found else ())}
        blocks, stack = found.get("attention", {}).get("backbone", {}), self._stack(images)
        if stack and all(
            "weights" in blocks.get(name, {}).get("attention", {}) for name in stack.blocks
        ):
            given.add("attention")
        return tuple(name for name, (_, need) in METHODS.items() if need in given)

    def stage(self, images: Images) -> tuple[str, tuple[int, int]]:
        """Returns name and size of the map of features that Grad-CAM and Score-CAM draw.

        It is the last one with at least `CELLS` cells per side (at 224 pixels the very last of
        ResNet and DenseNet), or else the one with the most cells.
        """
        maps = self._collections(images)[FEATURES]["backbone"]
        sizes = {name: tuple(given[0].shape[1:3]) for name, given in maps.items()}
        fine = [name for name, size in sizes.items() if min(size) >= CELLS]
        name = max(fine) if fine else max(sizes, key=lambda name: min(sizes[name]))
        return name, sizes[name]

    def _stack(self, images: Images) -> Stack | None:
        """Returns the model's blocks over patches if it has exactly one such stack."""
        found = stacks(self._model, images.shape[1:])
        return found[0] if len(found) == 1 and isinstance(found[0].where, Grid) else None

    def _collections(self, images: Images) -> Mapping[str, Any]:
        """Returns the shapes of the collections that explanations read."""
        key = images.shape, images.dtype
        if key not in self._given:  # tracing takes longer than a map
            _, self._given[key] = jax.eval_shape(
                lambda v, x: self._model.apply(v, x, mutable=[FEATURES, "attention"]),
                self.variables, images,
            )
        return self._given[key]

    def logits(self, images: Images) -> np.ndarray:
        """Computes logits `[n, classes]` of normalised images `[n, H, W, 1]`."""
        return np.asarray(self._run("logits", self._model.apply)(self.variables, images))

    def maps(self, method: str, images: Images, classes: np.ndarray) -> np.ndarray:
        """Draws maps float32 `[n, H, W]` of normalised images `[n, H, W, 1]`, each for one class.

        Raises:
          UserError: the method does not suit the model.
        """
        if method not in self.methods(images):
            raise UserError(
                f"{method!r} does not explain this model; methods: "
                f"{', '.join(self.methods(images))}."
            )
        options: dict[str, Any] = {}
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
        _, height, width, _ = images.shape
        return enlarge(np.asarray(found, np.float32), (height, width))

    def _run(self, name: str, function: Callable) -> Callable:
        if name not in self._compiled:
            self._compiled[name] = jax.jit(function)
        return self._compiled[name]


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes maps `[n, rows, columns]` to (height, width), bilinear."""
    if maps.shape[1:] == tuple(size):
        return maps
    return np.stack([
        cv2.resize(one, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for one in maps
    ])


def _of_class(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, classes[:, None], 1)[:, 0]


def _perturbed(model, variables, images, classes, kept: str):
    """Returns the values of a collection and the gradient of the classes' logits by them."""
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
    """Draws Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2), float32 `[n, rows, columns]`.

    Arguments:
      model, variables: a model with marked maps of features, see `jaxcxr.models.layers`.
      images: normalised, `[n, H, W, 1]`.
      classes: int `[n]`.
      stage: name of the map of features.
    """
    found, gradient = _perturbed(model, variables, images, classes, FEATURES)
    features = found["backbone"][stage][0].astype(jnp.float32)
    weight = gradient["backbone"][stage].astype(jnp.float32).mean((1, 2), keepdims=True)
    return jax.nn.relu((weight * features).sum(-1))


def score_cam(model, variables, images, classes, *, stage: str, baseline: float) -> jax.Array:
    """Draws Score-CAM (Wang et al. 2020, eq. 5 to 7): channels weighted by the score they keep.

    Only the `CHANNELS` channels with the greatest mean are tried; each costs a forward pass.
    They mask the image with `baseline`.
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
    """Returns the attention of each block for rollout, `[n, heads, tokens, tokens]`."""
    del classes
    _, found = model.apply(variables, images, mutable=["attention"])
    blocks = found["attention"]["backbone"]
    return [blocks[name]["attention"]["weights"][0] for name in stack.blocks]


def attention_gradient(model, variables, images, classes, *, stack: Stack) -> jax.Array:
    """Weights attention by its gradient (Chefer, Gur and Wolf 2021, arXiv:2103.15679, eq. 5, 6).

    Returns:
      float32 `[n, tokens, tokens]`: how much each input token counts through each output token.
    """
    found, gradient = _perturbed(model, variables, images, classes, "attention")
    means = []
    for name in stack.blocks:
        block = found["backbone"][name]["attention"]
        slopes = gradient["backbone"][name]["attention"]
        slope = jnp.concatenate([slopes[group] for group in sorted(slopes, key=_group)], 1)
        weights = block["weights"][0].astype(jnp.float32)
        means.append(jax.nn.relu(slope.astype(jnp.float32) * weights).mean(1))
    identity = total = jnp.eye(means[0].shape[-1])
    for mean in means:
        total = total + mean @ total
    return total - identity


def _group(name: str) -> int:
    """Returns the number of the group of heads, 3 for `weights_3`; a single group has none."""
    return int(name.partition("_")[2] or 0)


def integrated_gradients(model, variables, images, classes, *, baseline: float) -> jax.Array:
    """Computes absolute integrated gradients `[n, H, W]` (Sundararajan et al. 2017, eq. 1)."""
    return jnp.abs(attributions(model, variables, images, classes, baseline=baseline)).sum(-1)


def attributions(model, variables, images, classes, *, baseline: float) -> jax.Array:
    """Computes signed integrated gradients by the midpoint rule, `[n, H, W, 1]`.

    Over an image they sum to its logit minus that of the baseline.
    """
    slope = jax.grad(lambda x: _of_class(model.apply(variables, x), classes).sum())

    def add(total, share):
        return total + slope(baseline + share * (images - baseline)), None

    shares = (jnp.arange(STEPS, dtype=images.dtype) + 0.5) / STEPS
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), shares)
    return (images - baseline) * total / STEPS


def occlusion(model, variables, images, classes) -> jax.Array:
    """Measures how far the logit falls when a gray window hides a pixel (Zeiler, Fergus 2014, 4.2).

    A pixel gets the mean over the windows that hide it; gray is the mean of the image.
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
    """Returns the first pixels of the windows along a side; the last window ends at the edge."""
    window = -(-size // WINDOWS)
    step = max(1, window // 2)
    starts = [*range(0, size - window, step), size - window]
    return jnp.asarray(starts)


_FUNCTIONS: dict[str, Callable] = {
    "grad_cam": grad_cam,
    "score_cam": score_cam,
    "rollout": attention_weights,
    "attention_gradient": attention_gradient,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
