"""Attention whose heads differ: in alignment, distribution, span, size and weight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, gates, spans, weighing
from jaxcxr.models.attention.geometry import Geometry, Grid, Line, Tree, geometry
from jaxcxr.models.attention.groups import Cost, HeadGroup, widths

_XAVIER = nn.initializers.xavier_uniform()

# Where a dynamic span begins: 88 % of its limit.
_DYNAMIC_START = 2.0

# Rows of distances from which the mean window of a span is computed for the cost.
_COST_ROWS = 256

_ZEROS = nn.initializers.zeros


class _Projection(nn.Module):
    """Weights from `dim` to `features`, and a bias, which the caller multiplies with others."""

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


class _Output(nn.Module):
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


class _GroupParameters(nn.Module):
    """What the heads of a group learn beside their projections."""

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
            shapes = {**shapes, "table": (_ZEROS, (where.relations, group.count))}
        if group.mix == "talking":
            eye = lambda _, shape, dtype: jnp.eye(shape[0], dtype=dtype)  # noqa: E731
            square = (group.count, group.count)
            shapes = {**shapes, "talk_scores": (eye, square), "talk_weights": (eye, square)}
        return {
            name: self.param(name, init, shape, jnp.float32)
            for name, (init, shape) in shapes.items()
        }


class FlexibleHeadAttention(nn.Module):
    """Multi-head attention over groups of heads, each group with properties of its own.

    Head a of group g computes, with the names of `HeadGroup`,

      s_ij = align(q_i, k_j) + rel_bias_ij          m_ij = span of the head at distance ij
      w_i  = norm(s_i + log m_i)                    o_i  = sum_j w_ij v_j
      y_i  = b + sum over heads of gate_i W_out o_i

    One group of plain heads is `flax.linen.MultiHeadDotProductAttention`. All projections of all
    groups are one product, and so are the outputs. Where all heads have the same sizes the
    parameters `query`, `key`, `value` and `out` are those of `MultiHeadAttention`, heads in the
    order of the groups, so that weights of plain attention fit as they are; otherwise each group
    has its own, `group_0_query` and so on. What groups learn besides is under `group_0` ...

    A fixed span on a line or a grid costs what lies inside its window. Anything else computes
    every pair, by chunks of queries when there are many.

    In training, the losses of spans and gates and the expected cost are sown into the collection
    `losses` as `span`, `gate` and `cost`, each weighted and divided by the heads of the layer.

    Arguments:
      groups: the heads; at least one group.
      dropout: rate on the attention weights, drawn for each example, head, query and key.
      cost: loss on the expected FLOPs, or None.
      windows: computes fixed spans by windows where that saves work; False always computes every
        pair, with the same result.
      grid: rows and columns of patches that the tokens are, where a call is not told otherwise.
      global_tokens: tokens before the patches, such as the class token.
      parents: of the joints that the tokens are, -1 for the root. Without grid and parents the
        tokens are a line.
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
        """Attends from `x` to `memory`.

        Arguments:
          x: `[batch, queries, dim]`.
          memory: `[batch, keys, dim of the memory]`; `x` itself by default.
          mask: bool `[batch or 1, heads or 1, queries or 1, keys]`, True where a key is seen.
            A query that sees no key gets a mean of values (nothing from heads with the
            normalisers sigmoid, quasi and linear), never NaN.
          distance: where tokens stand, a geometry or an array `[queries, keys]`, for groups with
            a span or a relative bias; by default what `grid` or `parents` say.
          train: applies dropout and the noise of static gates (needs the rng `dropout`).

        Returns:
          `[batch, queries, dim]`.

        Raises:
          UserError: sizes that do not fit `dim`, or tokens that do not fit the geometry.
        """
        dim, queries = x.shape[-1], x.shape[1]
        sizes = widths(self.groups, dim)
        where = self._geometry(distance)
        mask = None if mask is None else jnp.asarray(mask)
        x = x.astype(self.dtype)
        keys = queries if memory is None else memory.shape[1]
        places = None if where is None else (where.places(queries), where.places(keys))
        parts = self._project(x, memory, sizes)
        outputs, losses = [], {"span": [], "gate": [], "cost": []}
        first = 0
        for index, group in enumerate(self.groups):
            params = _GroupParameters(group, sizes[index][0], name=f"group_{index}")(where)
            share = self._share(group, params, parts[index].get("span"))
            heads = slice(first, first + group.count)
            own_mask = mask if mask is None or mask.shape[1] == 1 else mask[:, heads]
            rate = self.dropout if train else 0.0
            limit = where.largest(queries, keys) if share is not None else 0
            rule = weighing.Rule(group, where, rate, limit)
            out = self._weigh(rule, params, parts[index], places, own_mask, share, memory is None)
            gate = self._gate(group, params, parts[index].get("gate"), train)
            if gate is not None:
                out = out * gate.astype(out.dtype)
            outputs.append(out)
            if train and not self.is_initializing():
                self._collect(losses, rule, params, gate, share, places, keys, sizes[index])
            first += group.count
        if train and not self.is_initializing():
            self._sow(losses, first, dim, queries, keys)
        return self._combine(outputs, sizes, dim)

    def _geometry(self, distance: Any) -> Geometry | None:
        """Where tokens stand; None where no group asks."""
        if not any(group.needs_distance for group in self.groups):
            return None
        where = geometry(distance)
        if where is None and self.parents:
            where = Tree(self.parents)
        elif where is None:
            where = Grid(*self.grid, self.global_tokens) if self.grid else Line()
        if not where.relations and any(group.rel_bias == "table" for group in self.groups):
            raise UserError(
                "the relative bias 'table' needs a geometry (Line, Grid or Tree), not a table of "
                "distances; use 'alibi' or pass a geometry."
            )
        return where

    def _project(self, x, memory, sizes) -> list[dict[str, jax.Array]]:
        """Everything linear in the tokens, by group: query, key, value, and gate and span."""
        source = x if memory is None else memory.astype(self.dtype)
        counts = [group.count for group in self.groups]
        from_x: dict[Any, tuple] = {}
        from_memory = from_x if memory is None else {}
        for role, width in (("query", 0), ("key", 0), ("value", 1)):
            target, dim = (from_x, x) if role == "query" else (from_memory, source)
            if len(set(sizes)) == 1:
                shape = (sum(counts), sizes[0][width])
                target[role] = _Projection(shape, name=role)(dim.shape[-1])
                continue
            for index, count in enumerate(counts):
                shape = (count, sizes[index][width])
                module = _Projection(shape, name=f"group_{index}_{role}")
                target[role, index] = module(dim.shape[-1])
        for index, group in enumerate(self.groups):
            if group.gate in ("token", "element"):
                shape = (group.count, sizes[index][1] if group.gate == "element" else 1)
                module = _Projection(shape, _ZEROS, name=f"group_{index}_gate")
                from_x["gate", index] = module(x.shape[-1])
            if isinstance(group.span, spans.Dynamic):
                module = _Projection(
                    (group.count,), _ZEROS, _DYNAMIC_START, name=f"group_{index}_span"
                )
                from_x["span", index] = module(x.shape[-1])
        found = self._product(x, from_x)
        if memory is not None:
            found |= self._product(source, from_memory)
        ends = np.cumsum(counts)
        for role in ("query", "key", "value"):
            if role in found:
                pieces = jnp.split(found.pop(role), ends[:-1], axis=2)
                found |= {(role, index): piece for index, piece in enumerate(pieces)}
        return [
            {role: y for (role, index), y in found.items() if index == i}
            for i in range(len(counts))
        ]

    def _product(self, x: jax.Array, weights: dict[Any, tuple]) -> dict[Any, jax.Array]:
        flat = [kernel.reshape(kernel.shape[0], -1) for kernel, _ in weights.values()]
        kernel = jnp.concatenate(flat, 1).astype(self.dtype)
        bias = jnp.concatenate([bias.ravel() for _, bias in weights.values()]).astype(self.dtype)
        pieces = jnp.split(x @ kernel + bias, np.cumsum([k.shape[1] for k in flat])[:-1], axis=-1)
        return {
            name: piece.reshape(*x.shape[:2], *bias.shape)
            for piece, (name, (_, bias)) in zip(pieces, weights.items(), strict=True)
        }

    def _share(self, group, params, logits) -> jax.Array | None:
        """Learned spans over their limit, `[heads]` or `[batch, queries, heads]`."""
        if isinstance(group.span, spans.Adaptive):
            return params.pop("span")
        if isinstance(group.span, spans.Dynamic):
            return jax.nn.sigmoid(logits.astype(alignments.wide(self.dtype)))
        return None

    def _weigh(self, rule, params, parts, places, mask, share, to_itself: bool) -> jax.Array:
        query, key, value = parts["query"], parts["key"], parts["value"]
        rng = self.make_rng("dropout") if rule.dropout else None
        tiles = weighing.tiling(rule, query.shape[1]) if to_itself and self.windows else None
        if tiles is not None:
            return weighing.by_windows(
                rule, params, query, key, value, places, mask, rng, tiles=tiles
            )
        valid = None if mask is None else mask.any(-2)
        arguments = (rule, params, query, key, value, places, mask, share, rng, valid)
        if query.shape[1] * key.shape[1] > weighing.MANY_PAIRS:
            return weighing.by_chunks(*arguments, chunk=self.chunk)
        return weighing.everything(*arguments)

    def _gate(self, group, params, logits, train: bool) -> jax.Array | None:
        """Gates that broadcast to `[batch, queries, heads, value width]`."""
        if group.gate == "none":
            return None
        if group.gate == "static":
            key = self.make_rng("dropout") if train else None
            return gates.hard_concrete(params["gate"], key)[:, None]
        return gates.from_logits(logits)

    def _combine(self, outputs, sizes, dim: int) -> jax.Array:
        if len(set(sizes)) == 1:
            heads = sum(group.count for group in self.groups)
            kernels = [_Output(dim, bias=True, name="out")(heads, sizes[0][1])]
        else:
            kernels = [
                _Output(dim, bias=index == 0, name=f"group_{index}_out")(group.count, size[1])
                for index, (group, size) in enumerate(zip(self.groups, sizes, strict=True))
            ]
        kernel = jnp.concatenate([k.reshape(-1, dim) for k, _ in kernels]).astype(self.dtype)
        mixed = jnp.concatenate([o.reshape(*o.shape[:2], -1) for o in outputs], -1)
        return mixed @ kernel + kernels[0][1].astype(self.dtype)

    def _collect(self, losses, rule, params, gate, share, places, keys, size) -> None:
        """Adds the terms of one group, each a sum over its heads."""
        group, dtype = rule.group, alignments.wide(self.dtype)
        weight = getattr(group.span, "loss", 0.0)
        if weight:
            used = jnp.clip(share, 0, 1).reshape(-1, group.count).mean(0).sum()
            losses["span"].append(weight * used.astype(dtype))
        chance = jnp.ones((group.count,), dtype)
        if group.gate == "static":
            chance = gates.open_probability(params["gate"]).astype(dtype)
        if group.gate_loss:
            used = chance.sum()
            if group.gate != "static":
                used = group.count * gate.astype(dtype).mean() / 2
            losses["gate"].append(group.gate_loss * used)
        if self.cost is not None:
            window = _mean_window(rule, share, places, keys, dtype)
            losses["cost"].append((chance, window, sum(size)))

    def _sow(self, losses, heads: int, dim: int, queries: int, keys: int) -> None:
        for name in ("span", "gate"):
            if losses[name]:
                self.sow("losses", name, sum(losses[name]) / heads)
        if self.cost is None:
            return
        # FLOPs of a head: projections of all tokens, then scores and outputs of what it sees.
        tokens = 2 * dim * (queries + keys)
        spent = sum(
            (chance * size * (tokens + 2 * queries * window)).sum()
            for chance, window, size in losses["cost"]
        )
        plain = 2 * dim * (tokens + 2 * queries * keys)
        excess = jnp.maximum(spent / plain - self.cost.budget, 0)
        self.sow("losses", "cost", self.cost.weight * excess)


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
    return jnp.broadcast_to(seen.sum(-1).mean((0, 2)), (group.count,))
