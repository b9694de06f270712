"""Shares attention weights between neighbouring layers, and chooses which layers share.

Xiao et al. 2019, "Sharing Attention Weights for Fast Transformer" (SAN, arXiv:1906.11024).
"""

import jax
import numpy as np
from flax import linen as nn
from scipy.special import rel_entr

from jaxcxr.errors import UserError
from jaxcxr.models.attention.heads import EqualHeads, attention_weights, weighted


class SharedAttention(EqualHeads):
    """Attention whose weights are those of the group's first layer.

    The first of `size` neighbouring layers is plain attention and hands its weights on; the others
    have values and an output only.

    Arguments:
      size: layers of a group.
      leads: whether it is the first of its group; set by `attention.layers`.
    """

    size: int = 2
    leads: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        distance: jax.Array | None = None,
        train: bool = False,
        weights: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Attends from `x` to `memory`; arguments as in `EqualHeads.__call__`.

        Arguments:
          weights: `[batch, heads, queries, keys]` of the layer before, made with the same mask; for
            a layer that does not lead.

        Returns:
          `[batch, queries, dim]`, and the weights for the next layer, before dropout.
        """
        del distance
        memory = x if memory is None else memory
        if self.leads:
            query = self._heads(x, "query")
            weights = attention_weights(query, self._heads(memory, "key"), mask)
        elif weights is None:
            raise UserError("shared attention that does not lead needs the weights of a layer.")
        value = self._heads(memory, "value")
        kept = nn.Dropout(self.dropout)(weights, deterministic=not train)
        return self._out(weighted(kept, value)), weights


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits, 0 to 1, of distributions along the last axis."""
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * np.log(2))


def similarities(maps: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Similarity of the attention of two layers, the mean of 1 - JS divergence.

    Arguments:
      maps: attention weights `[layers, batch, heads, queries, keys]`.
      valid: bool `[batch, queries]`, the queries that count; all by default.

    Returns:
      float64 `[layers, layers]`, 1 on the diagonal.
    """
    maps = np.asarray(maps, np.float64)
    valid = np.ones(maps.shape[1:4:2], bool) if valid is None else np.asarray(valid, bool)
    count = len(maps)
    found = np.eye(count)
    for i in range(count):
        for j in range(i):
            divergence = js_divergence(maps[i], maps[j]).mean(1)
            found[i, j] = found[j, i] = 1 - divergence[valid].mean()
    return found


def group_layers(similarity: np.ndarray, threshold: float) -> list[int]:
    """Groups neighbouring layers that may share their weights (section 3.3 of the paper).

    From the first layer on, a group takes in the next layer as long as the mean similarity over
    all pairs of the group, from `similarities`, stays at least `threshold`. Returns the sizes of
    the groups, in the order of the layers.
    """
    groups, start = [], 0
    for end in range(1, len(similarity) + 1):
        if end < len(similarity):
            block = similarity[start : end + 1, start : end + 1]
            pairs = block[np.tril_indices(len(block), -1)]
            if pairs.mean() >= threshold:
                continue
        groups.append(end - start)
        start = end
    return groups


def kinds_of(groups: list[int]) -> str:
    """The option `attention` of a model whose layers share in these groups."""
    return "|".join(f"shared(size={size})" for size in groups for _ in range(size))
