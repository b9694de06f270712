"""Terms of the loss of a layer of flexible heads: spans, gates and expected cost."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcxr.models.attention import gates, spans
from jaxcxr.models.attention.groups import Cost
from jaxcxr.models.attention.weighing import Rule

# Rows of distances from which the mean window of a span is computed for the cost.
_COST_ROWS = 256


@dataclasses.dataclass
class Losses:
    """Collects the terms of the groups of one layer, each a sum over heads.

    Arguments:
      cost: loss on the expected FLOPs, or None.
      dtype: of the losses.
    """

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
        """Adds the terms of a group.

        Arguments:
          rule, params: of the group.
          gate: its gates, as they multiply the outputs.
          share: learned spans over the limit, see `spans.factor`.
          places: of queries and keys, as the geometry gives them.
          keys: number of keys.
          size: widths of keys and of values.
        """
        group = rule.group
        weight = getattr(group.span, "loss", 0.0)
        if weight:
            assert share is not None  # learned spans have one
            used = jnp.clip(share, 0, 1).reshape(-1, group.count).mean(0).sum()
            self.spans.append(weight * used.astype(self.dtype))
        chance = jnp.ones((group.count,), self.dtype)
        if group.gate == "static":
            chance = gates.open_probability(params["gate"]).astype(self.dtype)
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
