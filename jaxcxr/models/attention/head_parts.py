"""Parts of a layer of flexible heads: projections, gates, parameters of groups, caches.

Gates say how much the output of a head counts:

  none     1
  static   one number for each head, exactly 0 or 1 in the limits, so that a head can be removed:
           the hard concrete distribution of Louizos, Welling & Kingma 2018 (arXiv:1712.01312)
           on heads, as Voita et al. 2019
  token    2 sigmoid(w . x + b) for each head and token; w = b = 0 at the beginning: 1
  element  the same for each element of the head's output (Qiu et al. 2025, arXiv:2505.06708)
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, spans
from jaxcxr.models.attention.geometry import Geometry, TokenSequence
from jaxcxr.models.attention.groups import HeadGroup

_XAVIER = nn.initializers.xavier_uniform()
_ZEROS = nn.initializers.zeros

# Where a dynamic span begins: 88 % of its limit.
_DYNAMIC_START = 2.0

# Temperature, and the stretched interval whose parts beyond [0, 1] become exactly 0 or 1.
TEMPERATURE, LOW, HIGH = 0.33, -0.1, 1.1
# In evaluation exactly 1 from log(11) = 2.398 on, so that a model begins as one without gates.
OPEN_GATE = 2.5
_LEAST = 1e-6


class Projection(nn.Module):
    """Weights from the width of tokens to `features`, which the caller multiplies with others."""

    features: tuple[int, ...]
    init: Any = _XAVIER
    bias: float = 0.0

    @nn.compact
    def __call__(self, dim: int) -> tuple[jax.Array, jax.Array]:
        """Returns the kernel `[dim, *features]` and the bias `[*features]`."""

        def flat(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            # As one matrix, so that the fan-out is that of all heads, as in flax's DenseGeneral.
            return self.init(key, (dim, int(np.prod(self.features))), dtype).reshape(shape)

        kernel = self.param("kernel", flat, (dim, *self.features), jnp.float32)
        start = nn.initializers.constant(self.bias)
        return kernel, self.param("bias", start, self.features, jnp.float32)


class Output(nn.Module):
    """Weights from the outputs of heads to the width of the layer."""

    features: int
    bias: bool

    @nn.compact
    def __call__(self, heads: int, width: int) -> tuple[jax.Array, jax.Array | None]:
        """Returns the kernel `[heads, width, features]` and the bias `[features]` or None."""

        def flat(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return _XAVIER(key, (heads * width, self.features), dtype).reshape(shape)

        kernel = self.param("kernel", flat, (heads, width, self.features), jnp.float32)
        if not self.bias:
            return kernel, None
        return kernel, self.param("bias", _ZEROS, (self.features,), jnp.float32)


class HeadNorm(nn.Module):
    """Layer normalisation of the queries or keys of each head, with a scale and no bias.

    flax's own promotes narrower and wider inputs implicitly (0.12.8).
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `[batch, length, heads, width]`, at least in float32."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        wide = x.astype(alignments.wide(x.dtype))
        wide = wide - wide.mean(-1, keepdims=True)
        deviation = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.epsilon)
        return (wide * deviation * scale.astype(wide.dtype)).astype(x.dtype)


class GroupParameters(nn.Module):
    """Parameters of a group of heads beside its projections."""

    group: HeadGroup
    width: int

    @nn.compact
    def __call__(self, where: Geometry | None) -> dict[str, jax.Array]:
        """Returns the parameters by name; what the group does not need is not made."""
        group = self.group
        shapes = alignments.parameters(group.align, group.count, self.width, group.max_keys)
        if group.norm == "entmax":
            shapes = {**shapes, "alpha": (_ZEROS, (group.count,))}
        if isinstance(group.span, spans.Adaptive):
            shapes = {**shapes, "span": (lambda *_: group.span.start(group.count), (group.count,))}
        if group.gate == "static":
            shapes = {**shapes, "gate": (nn.initializers.constant(OPEN_GATE), (group.count,))}
        if group.rel_bias == "table":
            assert where is not None
            shapes = {**shapes, "table": (_ZEROS, (where.relations, group.count))}
        if group.mix == "talking":
            eye = lambda _, shape, dtype: jnp.eye(shape[0], dtype=dtype)  # noqa: E731
            square = (group.count, group.count)
            shapes = {**shapes, "talk_scores": (eye, square), "talk_weights": (eye, square)}
        return {
            name: self.param(name, init, shape, jnp.float32)
            for name, (init, shape) in shapes.items()
        }


def gate_projection(group: HeadGroup, width: int, name: str) -> Projection | None:
    """Makes the projection for token and element gates; `width` is that of the values."""
    if group.gate not in ("token", "element"):
        return None
    return Projection((group.count, width if group.gate == "element" else 1), _ZEROS, name=name)


def span_projection(group: HeadGroup, name: str) -> Projection | None:
    """Makes the projection for dynamic spans."""
    if not isinstance(group.span, spans.Dynamic):
        return None
    return Projection((group.count,), _ZEROS, _DYNAMIC_START, name=name)


def hard_concrete(log_alpha: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Static gates in [0, 1], `[heads]`.

    Arguments:
      log_alpha: `[heads]`, the learned log odds.
      key: draws training noise; without it the gates are those of evaluation.
    """
    if key is not None:
        u = jax.random.uniform(key, log_alpha.shape, log_alpha.dtype, _LEAST, 1 - _LEAST)
        noise = jnp.log(u) - jnp.log1p(-u)
        share = jax.nn.sigmoid((noise + log_alpha) / TEMPERATURE)
    else:
        share = jax.nn.sigmoid(log_alpha)
    return jnp.clip(share * (HIGH - LOW) + LOW, 0, 1)


def open_probability(log_alpha: jax.Array) -> jax.Array:
    """Probability that a static gate is not 0, the expected L0 norm; `[heads]`."""
    return jax.nn.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def soft_gates(logits: jax.Array) -> jax.Array:
    """Token and element gates, 2 sigmoid(logits)."""
    return 2 * jax.nn.sigmoid(logits)


def check_decodes(
    groups: tuple[HeadGroup, ...], where: Geometry | None, to_itself: bool, train: bool
) -> None:
    """Raises a UserError where a layer cannot compute token by token."""
    if train:
        raise UserError("decode=True is for inference; train with decode=False and a causal mask.")
    if any(group.align == "location" for group in groups):
        raise UserError(
            "the alignment 'location' scores key numbers, which a cache does not keep; choose "
            "another alignment to decode token by token."
        )
    if where is not None and not isinstance(where, TokenSequence):
        raise UserError(
            f"tokens of a {type(where).__name__} do not come one after another; decode=True needs "
            "the geometry TokenSequence."
        )
    if where is not None and not to_itself:
        raise UserError(
            "decode=True knows no distances to a memory; use groups without spans and relative "
            "biases there."
        )


class Cache(nn.Module):
    """The latest keys and values of a head group, in the collection `cache`.

    Heads with a bounded span keep what it can reach, the others the length that the cache was
    made for.
    """

    group: HeadGroup

    @nn.compact
    def __call__(
        self, key: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array] | None:
        """Appends tokens; the first call makes room for as many as it gets and keeps none.

        Arguments:
          key: `[batch, new, heads, width]`.
          value: `[batch, new, heads, value width]`.

        Returns:
          Keys and values, old before new, `[batch, kept + new, heads, ...]`; the positions of the
          new tokens `[new]`; those of all `[kept + new]`, negative where there is none yet. None
          in the first call.
        """
        ready = self.has_variable("cache", "cached_key")
        most = key.shape[1]
        reach = spans.reach(self.group.span)
        if reach is not None:
            beside = alignments.AREA - 1 if self.group.align == "feature" else 0
            most = min(most, reach + beside)

        def room(name: str, like: jax.Array) -> Any:
            shape = (like.shape[0], most, *like.shape[2:])
            return self.variable("cache", name, jnp.zeros, shape, like.dtype)

        kept = room("cached_key", key), room("cached_value", value)
        index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        if not ready:
            return None
        new, most = key.shape[1], kept[0].value.shape[1]
        both = [jnp.concatenate([k.value, x], 1) for k, x in zip(kept, (key, value), strict=True)]
        positions = index.value - most + jnp.arange(most + new, dtype=jnp.int32)
        for variable, joined in zip(kept, both, strict=True):
            variable.value = joined[:, new:]
        index.value = index.value + new
        return *both, positions[most:], positions


def past_mask(mask: jax.Array | None, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Causal mask of the tokens at positions `queries` over those at `keys`.

    Arguments:
      mask: bool `[batch or 1, heads or 1, new or 1, positions]`, of all positions, or None.
      queries: `[new]`.
      keys: `[kept + new]`, negative where there is none.

    Returns:
      bool `[batch or 1, heads or 1, new, kept + new]`.
    """
    past = ((keys <= queries[:, None]) & (keys >= 0))[None, None]
    return past if mask is None else past & jnp.take(mask, keys, -1, mode="clip")
