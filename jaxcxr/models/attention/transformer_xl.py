"""Attention with relative positions over a remembered segment (Dai et al. 2019, Transformer-XL)."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import EqualHeads, weighted
from jaxcxr.models.layers import sinusoidal


def relative_shift(scores: jax.Array, keys: int) -> jax.Array:
    """Picks for query i and key j the score of their distance, by strides instead of a gather.

    Arguments:
      scores: `[..., queries, distances]`; element p of a row belongs to the distance
        i - j = keys - 1 - p, with positions counted so that the last query and key coincide.
        Distances run from keys - 1 down to 1 - queries: keys + queries - 1 of them.
      keys: number of keys.

    Returns:
      `[..., queries, keys]`.
    """
    *lead, queries, distances = scores.shape
    # Row i starts at queries - 1 - i, which is a stride of one less than the row's length.
    flat = scores.reshape(*lead, queries * distances)
    first = queries - 1
    flat = flat[..., first : first + queries * (distances - 1)] if queries > 1 else flat
    width = distances - 1 if queries > 1 else distances
    return flat.reshape(*lead, queries, width)[..., :keys]


class TransformerXL(EqualHeads):
    """Relative attention over `x` and, before it, a remembered segment (section 3.3).

    (q_i + u) . k_j + (q_i + v) . W_R R_{i - j}, scaled and softmaxed over the keys
    [stop-gradient(memory); x], with sinusoidal R. Without memory it is relative self-attention.
    The paper's decoder is causal; encoders see later positions too, at negative distances.
    Cost proportional to length x (length + memory).

    With `remembered`, a call with the collection `memory` mutable attends to what the collection
    holds from the call before and leaves there the last inputs of this one; `in_segments` carries
    it along, through any model that contains the layer.

    Arguments:
      causal: a position sees no later one.
      clamp: distances beyond it count as it; 0 for none.
      remembered: positions kept from call to call.
    """

    takes_memory: ClassVar[bool] = True

    causal: bool = False
    clamp: int = 0
    remembered: int = 0

    def _recall(
        self, x: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Returns what the collection remembers and the mask over it and `x`; remembers `x`."""
        batch, length = x.shape[:2]
        valid = jnp.ones((1, length), bool) if mask is None else mask.any((1, 2))
        now = {"inputs": x, "valid": jnp.broadcast_to(valid, (batch, length))}
        before: dict[str, Any] = {name: self.get_variable("memory", name) for name in now}
        for name, value in now.items():
            if before[name] is not None:
                value = jnp.concatenate([before[name], value], 1)
            value = jax.lax.stop_gradient(value[:, -self.remembered :])
            self.put_variable("memory", name, value)
        if before["inputs"] is None:
            return None, mask
        rows = jnp.ones((1, 1, 1, length), bool) if mask is None else mask
        past = before["valid"][:, None, None]
        shape = [max(a, b) for a, b in zip(rows.shape[:3], past.shape[:3], strict=True)]
        parts = [jnp.broadcast_to(t, (*shape, t.shape[-1])) for t in (past, rows)]
        return before["inputs"], jnp.concatenate(parts, -1)

    def _distances(self, queries: int, keys: int) -> np.ndarray:
        found = np.arange(keys - 1, -queries, -1)
        return np.clip(found, -self.clamp, self.clamp) if self.clamp else found

    def _attend(self, x, memory, mask, train):
        """Attends to `x`, and to `memory` `[batch, remembered, dim]`, the inputs of this layer for
        the positions right before. A mask is over both; no gradient goes into the memory.
        """
        carries = self.remembered > 0 and self.is_mutable_collection("memory")
        if memory is None and carries and not self.is_initializing():
            memory, mask = self._recall(x, mask)
        past = x if memory is None else jnp.concatenate([jax.lax.stop_gradient(memory), x], 1)
        length, total = x.shape[1], past.shape[1]
        query = self._heads(x, "query")
        key, value = (self._heads(past, name) for name in ("key", "value"))
        width = query.shape[-1]
        codes = sinusoidal(self._distances(length, total), x.shape[-1])
        relative = nn.DenseGeneral(
            (self.heads, width),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="relative",
        )(jnp.asarray(codes, self.dtype))
        of_content, of_position = (
            self.param(name, nn.initializers.zeros, (self.heads, width), jnp.float32)
            for name in ("content_bias", "position_bias")
        )

        def scores(equation: str, bias: jax.Array, against: jax.Array) -> jax.Array:
            biased = query + bias.astype(self.dtype)
            return jnp.einsum(equation, biased, against, preferred_element_type=jnp.float32)

        logits = scores("bqhd,bkhd->bhqk", of_content, key)
        logits += relative_shift(scores("bqhd,phd->bhqp", of_position, relative), total)
        seen = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask
        if self.causal:
            seen = seen & jnp.tril(jnp.ones((1, 1, length, total), bool), total - length)
        logits = jnp.where(seen, logits * width**-0.5, jnp.finfo(jnp.float32).min)
        weights = nn.Dropout(self.dropout)(jax.nn.softmax(logits), deterministic=not train)
        return self._out(weighted(weights, value))


def in_segments(
    apply: Callable[..., Any],
    variables: Mapping[str, Any],
    x: jax.Array,
    segment: int,
    *,
    mask: jax.Array | None = None,
    memory: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[jax.Array, Mapping[str, Any]]:
    """Runs a sequence through a model segment by segment, each remembering those before.

    With causal layers that remember everything the result is that of one long segment; layers that
    remember less reach back `remembered` positions for each layer.

    Arguments:
      apply: of a Linen module that contains `TransformerXL` with `remembered`; it may be jitted
        with `mutable` and the options static.
      variables: of the module.
      x: `[batch, length, ...]`.
      segment: length of a segment; the last may be shorter.
      mask: bool `[batch, length]`, given to the module by segments where there is one.
      memory: what an earlier call returned, to go on from there.
      **options: further arguments of the module.

    Returns:
      The outputs `[batch, length, ...]`, and the memory after the last segment.

    Raises:
      UserError: `segment` is below 1.
    """
    if segment < 1:
        raise UserError(f"segment={segment}; give a length of at least 1.")
    found, memory = [], memory or {}
    for start in range(0, x.shape[1], segment):
        part = slice(start, start + segment)
        given = options if mask is None else {**options, "mask": mask[:, part]}
        y, memory = apply({**variables, **memory}, x[:, part], mutable=["memory"], **given)
        found.append(y)
    return jnp.concatenate(found, 1), memory
