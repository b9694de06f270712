"""Computes what flexible heads sow beside their output: losses, weights and properties of heads.

Losses are those of spans, gates and expected cost. Weights of all pairs are an array that the
computation itself may never form, so they are computed only where the collection is mutable:

    out, found = model.apply(variables, x, mutable=["attention"])
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcxr.models.attention import head_parts, spans, weighing
from jaxcxr.models.attention.groups import Cost
from jaxcxr.models.attention.weighing import Rule

# Rows of distances from which the mean window of a span is computed for the cost.
_COST_ROWS = 256


@dataclasses.dataclass
class Losses:
    """Collects the terms of the groups of one layer, each a sum over heads."""

    cost: Cost | None
    dtype: Any
    spans: list[jax.Array] = dataclasses.field(default_factory=list)
    gates: list[jax.Array] = dataclasses.field(default_factory=list)
    costs: list[tuple[jax.Array, jax.Array, int]] = dataclasses.field(default_factory=list)

    def add(
        self,
        rule: Rule,
        params: Mapping[str, jax.Array],
        gate: jax.Array | None,
        share: jax.Array | None,
        places: tuple[Any, Any] | None,
        keys: int,
        size: tuple[int, int],
    ) -> None:
        """Adds the terms of a group with its gates, its learned spans over the limit (`share`), the
        places of queries and keys, the number of keys, and the widths of keys and values.
        """
        group = rule.group
        weight = getattr(group.span, "loss", 0.0)
        if weight:
            assert share is not None  # learned spans have one
            used = jnp.clip(share, 0, 1).reshape(-1, group.count).mean(0).sum()
            self.spans.append(weight * used.astype(self.dtype))
        chance = jnp.ones((group.count,), self.dtype)
        if group.gate == "static":
            chance = head_parts.open_probability(params["gate"]).astype(self.dtype)
        if group.gate_loss:
            used = chance.sum()
            if group.gate != "static":
                assert gate is not None
                used = group.count * gate.astype(self.dtype).mean() / 2
            self.gates.append(group.gate_loss * used)
        if self.cost is not None:
            window = _mean_window(rule, share, places, keys, self.dtype)
            self.costs.append((chance, window, sum(size)))

    def totals(self, heads: int, dim: int, queries: int, keys: int) -> dict[str, jax.Array]:
        """Each loss by name, for a layer of so many heads, width and tokens."""
        found = {}
        for name, terms in (("span", self.spans), ("gate", self.gates)):
            if terms:
                found[name] = jnp.asarray(sum(terms)) / heads
        if self.cost is None:
            return found
        # FLOPs of a head: projections of all tokens, then scores and outputs of what it sees.
        tokens = 2 * dim * (queries + keys)
        spent = sum(
            (chance * size * (tokens + 2 * queries * window)).sum()
            for chance, window, size in self.costs
        )
        plain = 2 * dim * (tokens + 2 * queries * keys)
        excess = jnp.maximum(spent / plain - self.cost.budget, 0)
        return found | {"cost": self.cost.weight * excess}


def _mean_window(rule, share, places, keys: int, dtype: Any) -> jax.Array:
    """Mean number of keys that the heads of a group see, `[heads]`, differentiable by the span."""
    group = rule.group
    if isinstance(group.span, spans.Global):
        return jnp.full((group.count,), keys, dtype)
    rows = slice(None, None, -(-len(places[0]) // _COST_ROWS))
    distance = rule.geometry.distance(jnp.asarray(places[0][rows]), jnp.asarray(places[1]))
    if share is not None and share.ndim == 3:
        share = share[:, rows]
    seen = spans.factor(group.span, distance, share, rule.limit, dtype)
    assert seen is not None  # the span is not global
    return jnp.broadcast_to(seen.sum(-1).mean((0, 2)), (group.count,))


COLLECTION = "attention"

# Order of the Tsallis entropy that a normaliser maximises; the others maximise none.
_ORDERS = {"softmax": 1.0, "entmax15": 1.5, "sparsemax": 2.0}


def properties(
    rule: weighing.Rule,
    params: Mapping[str, jax.Array],
    share: jax.Array | None,
    gate: jax.Array | None,
    largest: Any,
    dtype: Any,
) -> dict[str, jax.Array]:
    """Properties of each head of a group, each `[heads]`.

    Arguments:
      gate: as it multiplies the outputs, or None.
      largest: distance of the tokens, which a head that sees everything reaches.

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
