"""Captures weights and properties of heads during a call, for plots and explanations.

Weights of all pairs are an array that the computation itself may never form, so they are computed
only where the collection is mutable:

    out, found = model.apply(variables, x, mutable=["attention"])
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcxr.models.attention import spans, weighing

COLLECTION = "attention"

# Order of the Tsallis entropy that a normaliser maximises; the others maximise none.
_ORDERS = {"softmax": 1.0, "entmax15": 1.5, "sparsemax": 2.0}


def of_group(
    rule: weighing.Rule,
    params: Mapping[str, jax.Array],
    share: jax.Array | None,
    gate: jax.Array | None,
    largest: Any,
    dtype: Any,
) -> dict[str, jax.Array]:
    """Properties of each head of a group, each `[heads]`.

    Arguments:
      rule, params, share: as in `weighing.weights`.
      gate: as it multiplies the outputs, or None.
      largest: distance of the tokens, which a head that sees everything reaches.
      dtype: of the result.

    Returns:
      `span`: distance up to which a head sees, without the soft edge, in the unit of the geometry;
      the mean over queries where each has its own. `alpha`: order of its entmax, 1 for softmax, 2
      for sparsemax, NaN for other normalisers. `gate`: mean over tokens and elements, 1 without.
    """
    group = rule.group

    def heads(x: Any) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(x).astype(dtype), (group.count,))

    span, order = heads(largest), heads(_ORDERS.get(group.norm, jnp.nan))
    if isinstance(group.span, spans.Fixed):
        span = jnp.minimum(heads(group.span.window), span)
    elif isinstance(group.span, spans.Ramped):
        span = jnp.minimum(heads(group.span.span), span)
    elif share is not None and not isinstance(group.span, spans.Global):
        mean = jnp.clip(share.astype(dtype), 0, 1).reshape(-1, group.count).mean(0)
        span = mean * heads(group.span.limit or rule.limit)
    if group.norm == "entmax":
        order = 1 + jax.nn.sigmoid(params["alpha"].astype(dtype))
    opened = heads(1.0)
    if gate is not None:
        *_, count, width = gate.shape
        opened = gate.astype(dtype).reshape(-1, count, width).mean((0, 2))
    return {"span": span, "alpha": order, "gate": opened}


def joined(parts: list[dict[str, jax.Array]]) -> dict[str, jax.Array]:
    """All heads of a layer: `weights` `[batch, heads, queries, keys]` and `[heads]` of the rest."""
    weights = [part.pop("weights") for part in parts]
    batch = max(part.shape[0] for part in weights)
    weights = [jnp.broadcast_to(part, (batch, *part.shape[1:])) for part in weights]
    found = jax.tree.map(lambda *heads: jnp.concatenate(heads), *parts)
    return {"weights": jnp.concatenate(weights, 1), **found}
