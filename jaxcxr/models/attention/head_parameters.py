"""Parameters of heads: their projections, and those that only some groups have."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.models.attention import alignments, gates, spans
from jaxcxr.models.attention.geometry import Geometry
from jaxcxr.models.attention.groups import HeadGroup

_XAVIER = nn.initializers.xavier_uniform()
_ZEROS = nn.initializers.zeros

# Where a dynamic span begins: 88 % of its limit.
_DYNAMIC_START = 2.0


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
            shapes = {**shapes, "gate": (nn.initializers.constant(gates.OPEN), (group.count,))}
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
