"""Attention whose heads differ: in alignment, distribution, span, size and weight."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, head_parts, sown, spans, weighing
from jaxcxr.models.attention.geometry import Geometry, geometry, of_layout
from jaxcxr.models.attention.groups import Cost, HeadGroup, widths
from jaxcxr.models.attention.head_parts import (
    GroupParameters,
    HeadNorm,
    Output,
    Projection,
    gate_projection,
    span_projection,
)
from jaxcxr.models.attention.sown import Losses
from jaxcxr.models.layers import PERTURBATIONS, by_head, splits_heads


class FlexibleHeadAttention(nn.Module):
    """Multi-head attention over groups of heads, each group with properties of its own.

    Head a of group g computes, with the names of `HeadGroup`,

      s_ij = align(q_i, k_j) + rel_bias_ij          m_ij = span of the head at distance ij
      w_i  = norm(s_i + log m_i)                    o_i  = sum_j w_ij v_j
      y_i  = b + sum over heads of gate_i W_out o_i

    Where all heads have the same sizes the parameters `query`, `key`, `value` and `out` are those
    of `MultiHeadAttention`, heads in the order of the groups, so that weights of plain attention
    fit as they are; otherwise each group has its own, `group_0_query` and so on. Other parameters
    of a group are under `group_0` ...

    A span with a bound (fixed, ramped, or learned with a limit) costs, on a line or a grid, what
    lies inside its window. Plain heads are cuDNN's fused kernel where its conditions hold, see
    `choose_kernel`. All else computes every pair, by chunks of queries when there are many.

    In training, the losses of spans and gates and the expected cost are sown into the collection
    `losses` as `span`, `gate` and `cost`, each weighted and divided by the heads of the layer.
    Where the collection `attention` is mutable, `weights` (before dropout), `span`, `alpha` and
    `gate` of all heads are sown into it, see `sown`.

    Arguments:
      groups: the heads; at least one group.
      dropout: rate on the attention weights, drawn for each example, head, query and key.
      cost: loss on the expected FLOPs, or None.
      windows: computes bounded spans by windows where that saves work; False always computes every
        pair, with the same result.
      grid: rows and columns of patches that the tokens are, where a call is not told otherwise.
      global_tokens: tokens before the patches, such as the class token.
      parents: of the joints that the tokens are, -1 for the root. Without grid and parents the
        tokens are a line.
      decode: each call of self-attention gets the next tokens of a line, one or several, which see
        themselves and what came before, kept in the collection `cache`. `init` with tokens of the
        whole length makes the cache; no more tokens than that may follow. Masks are of the whole
        length. Attention to a memory is as always, and nothing is captured.
      chunk: queries computed at a time where there are more than `weighing.MANY_PAIRS` pairs.
      dtype: of the computation; scores and weights are at least float32.
    """

    groups: tuple[HeadGroup, ...]
    dropout: float = 0.0
    cost: Cost | None = None
    grid: tuple[int, ...] = ()
    global_tokens: int = 0
    parents: tuple[int, ...] = ()
    windows: bool = True
    decode: bool = False
    chunk: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        distance: Geometry | jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Attends from `x` to `memory`; other arguments as in `EqualHeads.__call__`.

        Arguments:
          mask: a query that sees no key gets a mean of values, nothing from heads with the
            normalisers sigmoid, quasi and linear, and never NaN.
          distance: where tokens stand, a geometry or an array `[queries, keys]`, for groups with
            a span or a relative bias; by default what `grid` or `parents` say.
          train: applies dropout and the noise of static gates (needs the rng `dropout`).
        """
        dim, queries = x.shape[-1], x.shape[1]
        sizes = widths(self.groups, dim)
        where = self._geometry(distance)
        mask, x = None if mask is None else jnp.asarray(mask), x.astype(self.dtype)
        keys = queries if memory is None else memory.shape[1]
        if self.decode:
            head_parts.check_decodes(self.groups, where, memory is None, train)
        places = None if where is None else (where.places(queries), where.places(keys))
        parts = self._project(x, memory, sizes)
        losses = Losses(self.cost, alignments.wide(self.dtype))
        collects = train and not self.is_initializing()
        captures = not self.is_initializing() and self.is_mutable_collection(sown.COLLECTION)
        outputs, captured, first = [], [], 0
        for index, group in enumerate(self.groups):
            params = GroupParameters(group, sizes[index][0], name=f"group_{index}")(where)
            share = self._share(group, params, parts[index].get("span"))
            heads = slice(first, first + group.count)
            own_mask = mask if mask is None or mask.shape[1] == 1 else mask[:, heads]
            rate = self.dropout if train else 0.0
            longest = max(queries, keys)
            past = self._past(index, parts[index]) if self.decode and memory is None else None
            if past is not None:
                places = tuple(positions[:, None] for positions in past)
                own_mask = head_parts.past_mask(own_mask, *past)
                longest, captures = parts[index]["key"].shape[1] - queries, False
            limit = 0 if share is None or where is None else where.largest(longest, longest)
            rule = weighing.Rule(group, where, rate, limit)
            windows = self.windows and memory is None and past is None
            out = self._weigh(rule, params, parts[index], places, own_mask, share, windows)
            gate = self._gate(group, params, parts[index].get("gate"), train)
            if captures:
                largest = self._layout(distance).largest(queries, keys)
                told = share, gate, largest
                captured.append(_captured(rule, params, parts[index], places, own_mask, *told))
                out = self._perturbed(index, out, captured[-1]["weights"], parts[index]["value"])
            outputs.append(out if gate is None else out * gate.astype(out.dtype))
            if collects:
                losses.add(rule, params, gate, share, places, keys, sizes[index])
            first += group.count
        self._tell(losses.totals(first, dim, queries, keys) if collects else {}, captured)
        return self._combine(outputs, sizes, dim)

    def _tell(self, losses: dict[str, jax.Array], captured: list[dict[str, jax.Array]]) -> None:
        """Sows losses and captured properties."""
        for name, loss in losses.items():
            self.sow("losses", name, loss)
        for name, value in (sown.joined(captured) if captured else {}).items():
            self.sow(sown.COLLECTION, name, value)

    def _geometry(self, distance: Any) -> Geometry | None:
        """Geometry of the tokens; None where no group needs it."""
        if not any(group.needs_distance for group in self.groups):
            return None
        where = self._layout(distance)
        if not where.relations and any(group.rel_bias == "table" for group in self.groups):
            raise UserError(
                "the relative bias 'table' needs a geometry (TokenSequence, Grid or Tree), not a "
                "table of "
                "distances; use 'alibi' or pass a geometry."
            )
        return where

    def _layout(self, distance: Any) -> Geometry:
        where = geometry(distance)
        return of_layout(self.grid, self.global_tokens, self.parents) if where is None else where

    def _project(self, x, memory, sizes) -> list[dict[str, jax.Array]]:
        """Query, key and value of each group, and what gates and spans are computed from."""
        source = x if memory is None else memory.astype(self.dtype)
        counts = [group.count for group in self.groups]
        from_x: dict[Any, tuple] = {}
        from_memory = from_x if memory is None else {}
        for role, width in (("query", 0), ("key", 0), ("value", 1)):
            target, dim = (from_x, x) if role == "query" else (from_memory, source)
            if len(set(sizes)) == 1:
                shape = (sum(counts), sizes[0][width])
                kernel, bias = Projection(shape, name=role)(dim.shape[-1])
                pairs = zip(_by_group(kernel, counts, 1), _by_group(bias, counts, 0), strict=True)
                names: list[Any] = [role]
                if splits_heads():
                    names = [(role, i) for i in range(len(counts))]
                target |= dict(zip(names, pairs, strict=True))
                continue
            for index, count in enumerate(counts):
                shape = (count, sizes[index][width])
                module = Projection(shape, name=f"group_{index}_{role}")
                target[role, index] = module(dim.shape[-1])
        for index, group in enumerate(self.groups):
            modules: dict[str, Projection | None] = {
                "gate": gate_projection(group, sizes[index][1], f"group_{index}_gate"),
                "span": span_projection(group, f"group_{index}_span"),
            }
            for role, made in modules.items():
                if made is not None:
                    from_x[role, index] = made(x.shape[-1])
        found = self._product(x, from_x)
        if memory is not None:
            found |= self._product(source, from_memory)
        ends = np.cumsum(counts)
        for role in ("query", "key", "value"):
            if role in found:
                pieces = jnp.split(found.pop(role), ends[:-1], axis=2)
                found |= {(role, index): piece for index, piece in enumerate(pieces)}
        for index, group in enumerate(self.groups):
            for role in ("query", "key") if group.qk_norm else ():
                norm = HeadNorm(name=f"group_{index}_{role}_norm")
                found[role, index] = norm(found[role, index])
        return [
            {role: y for (role, index), y in found.items() if index == i}
            for i in range(len(counts))
        ]

    def _product(self, x: jax.Array, weights: dict[Any, tuple]) -> dict[Any, jax.Array]:
        # One by one: joining the kernels is a copy in every call, which costs more than one
        # product saves; on a GPU, XLA itself joins small products of the same tokens.
        return {
            name: jax.lax.dot_general(x, kernel.astype(self.dtype), (((2,), (0,)), ((), ())))
            + bias.astype(self.dtype)
            for name, (kernel, bias) in weights.items()
        }

    def _past(self, index: int, parts: dict[str, jax.Array]) -> tuple | None:
        """Puts the keys and values before those of the call; the positions of new ones and all."""
        found = head_parts.Cache(self.groups[index], name=f"group_{index}_cache")(
            parts["key"], parts["value"]
        )
        if found is None:
            return None
        parts["key"], parts["value"], *positions = found
        return tuple(positions)

    def _share(self, group, params, logits) -> jax.Array | None:
        """Learned spans over their limit, `[heads]` or `[batch, queries, heads]`."""
        if isinstance(group.span, spans.Adaptive):
            return params.pop("span")
        if isinstance(group.span, spans.Dynamic):
            return jax.nn.sigmoid(logits.astype(alignments.wide(self.dtype)))
        return None

    def _weigh(self, rule, params, parts, places, mask, share, windows: bool) -> jax.Array:
        query, key, value = parts["query"], parts["key"], parts["value"]
        rng = self.make_rng("dropout") if rule.dropout else None
        tiles = weighing.tiling(rule, query.shape[1]) if windows else None
        if tiles is not None:
            return weighing.by_windows(
                rule, params, query, key, value, places, mask, share, rng, tiles=tiles
            )
        if weighing.is_fused(rule.group, query, key, value, mask is not None, bool(rule.dropout)):
            return weighing.by_fused_kernel(rule.group, params, query, key, value, mask)
        arguments = (rule, params, query, key, value, places, mask, share, rng, _valid(mask))
        if query.shape[1] * key.shape[1] > weighing.MANY_PAIRS:
            return weighing.by_chunks(*arguments, chunk=self.chunk)
        return weighing.everything(*arguments)

    def _perturbed(self, index: int, out, weights, value) -> jax.Array:
        """Outputs of a group with its weights perturbed where a caller gives perturbations.

        The weights themselves may never be formed, but the outputs are linear in them.
        """
        zeros = jnp.zeros((len(out), *weights.shape[1:]), weights.dtype)
        added = self.perturb(f"weights_{index}", zeros, PERTURBATIONS)
        if added is zeros:
            return out
        return out + jnp.einsum("bhqk,bkhd->bqhd", added.astype(value.dtype), value)

    def _gate(self, group, params, logits, train: bool) -> jax.Array | None:
        """Gates that broadcast to `[batch, queries, heads, value width]`."""
        if group.gate == "none":
            return None
        if group.gate == "static":
            key = self.make_rng("dropout") if train else None
            return head_parts.hard_concrete(params["gate"], key)[:, None]
        return head_parts.soft_gates(logits)

    def _combine(self, outputs, sizes, dim: int) -> jax.Array:
        counts = [group.count for group in self.groups]
        if len(set(sizes)) == 1:
            kernel, bias = Output(dim, bias=True, name="out")(sum(counts), sizes[0][1])
            kernels: Sequence[jax.Array] = _by_group(kernel, counts, 0)
        else:
            kernels, biases = zip(*(
                Output(dim, bias=index == 0, name=f"group_{index}_out")(count, size[1])
                for index, (count, size) in enumerate(zip(counts, sizes, strict=True))
            ), strict=True)
            bias = biases[0]
        if len(kernels) == 1:
            outputs = [jnp.concatenate(outputs, 2)]
        elif not splits_heads():  # one product of all groups; joined, heads could not stay split
            kernels = [jnp.concatenate([k.reshape(-1, 1, dim) for k in kernels])]
            outputs = [jnp.concatenate([o.reshape(*o.shape[:2], -1, 1) for o in outputs], 2)]
        products = (((2, 3), (0, 1)), ((), ()))
        mixed = sum(
            jax.lax.dot_general(out, kernel.astype(self.dtype), products)
            for out, kernel in zip(outputs, kernels, strict=True)
        )
        assert bias is not None
        return mixed + bias.astype(self.dtype)


def _by_group(weights: jax.Array, counts: list[int], axis: int) -> list[jax.Array]:
    """Weights of all heads, or those of each group where a mesh is to split the heads of each."""
    if not splits_heads():
        return [weights]
    return [by_head(piece, axis) for piece in jnp.split(weights, np.cumsum(counts)[:-1], axis)]


def _captured(rule, params, parts, places, mask, share, gate, largest) -> dict[str, jax.Array]:
    """Weights and properties of the heads of a group, for the collection `attention`."""
    weights = weighing.weights(
        rule, params, parts["query"], parts["key"], places, mask, share, _valid(mask)
    )
    own = sown.properties(rule, params, share, gate, largest, weights.dtype)
    return {"weights": weights, **own}


def _valid(mask: jax.Array | None) -> jax.Array | None:
    """Keys that some query sees."""
    return None if mask is None else mask.any(-2)
