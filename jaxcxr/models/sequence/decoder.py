"""Decoder blocks of transformers, over whole targets or step by step with cached keys."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import class_of, shares
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.heads import MultiHeadAttention, attention_weights, weighted
from jaxcxr.models.sequence import transformer

KeysValues = tuple[jax.Array, jax.Array]


class DecoderAttention(nn.Module):
    """`MultiHeadAttention`, of the same parameters, whose keys and values can be kept.

    Layers can share: one that does not lead (`leads`) has an output projection alone, of the values
    that its leader mixed (Xiao et al. 2019, arXiv:1906.11024, section 3.2). `dim` is the width of
    queries and outputs.
    """

    dim: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    leads: bool = True

    def setup(self):
        """Names the projections as `MultiHeadAttention` does."""
        if self.dim % self.heads:
            raise UserError(
                f"heads={self.heads} does not divide the width {self.dim}; change either."
            )
        dense = functools.partial(
            nn.DenseGeneral, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        self.out = dense(self.dim, axis=(-2, -1))
        if self.leads:
            shape = (self.heads, self.dim // self.heads)
            self.query, self.key, self.value = dense(shape), dense(shape), dense(shape)
            self.drop = nn.Dropout(self.dropout)

    def keys_values(self, memory: jax.Array) -> KeysValues | None:
        """Keys and values, each `[batch, length, heads, width]`; None where it does not lead."""
        return (self.key(memory), self.value(memory)) if self.leads else None

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keys_values: KeysValues | None = None,
        mixed: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Attends from `x`; other arguments as in `MultiHeadAttention.__call__`.

        Arguments:
          keys_values: as `keys_values` returns them, instead of a memory.
          mixed: `[batch, queries, heads, width]` of the leader, where it does not lead.

        Returns:
          `[batch, queries, dim]`, and the mixed values for layers that follow.
        """
        if not self.leads:
            if mixed is None:
                raise UserError("shared attention that does not lead needs the values of a layer.")
            return self.out(mixed), mixed
        if keys_values is None:
            keys_values = self.keys_values(x if memory is None else memory)
            assert keys_values is not None  # it leads
        keys, values = keys_values
        weights = attention_weights(self.query(x), keys, mask)
        if not self.is_initializing():
            self.sow("attention", "weights", weights)
        mixed = weighted(self.drop(weights, deterministic=not train), values)
        return self.out(mixed), mixed


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the memory, MLP, each a residual branch.

    Arguments:
      attention: makes the self-attention, as `attention.factory` returns it; it takes causal
        masks. `step` is for plain attention and flexible heads.
      dim: width of the tokens.
      heads: of the attention to the memory, and of plain self-attention.
      attention_dropout: rate on the attention weights.
      mlp_ratio, dropout, dtype, norm, layers: as in `transformer.Block`.
      leads: whether it attends to the memory itself, or takes what the block before has mixed.
    """

    attention: Callable[..., nn.Module]
    dim: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    dtype: Any = jnp.float32
    norm: str = "pre"
    layers: int = 1
    leads: bool = True

    def setup(self):
        """Makes the three branches; without norms where the style has none."""
        transformer.check_norm(self.norm)
        if shares(self.attention):
            raise UserError("a decoder has no 'shared' self-attention; use another kind.")
        plain = DecoderAttention(self.dim, self.heads, self.attention_dropout, self.dtype)
        self.self_attention = plain if self._plain else self.attention()
        self.cross_attention = plain.copy(leads=self.leads)
        self.mlp = transformer.MLP(round(self.dim * self.mlp_ratio), self.dropout, self.dtype)
        self.drop = nn.Dropout(self.dropout)
        if self.norm != "tfixup":
            self.norm1 = transformer.LayerNorm(self.dtype)
            self.norm2 = transformer.LayerNorm(self.dtype)
            self.norm3 = transformer.LayerNorm(self.dtype)

    @property
    def _plain(self) -> bool:
        """Whether the self-attention is that of `DecoderAttention`."""
        return class_of(self.attention) is MultiHeadAttention

    def _before(self, x: jax.Array, index: int) -> jax.Array:
        return getattr(self, f"norm{index}")(x) if self.norm == "pre" else x

    def _after(self, x: jax.Array, index: int) -> jax.Array:
        return getattr(self, f"norm{index}")(x) if self.norm == "post" else x

    def _call(self, module: nn.Module, *args: Any, **options: Any) -> jax.Array:
        scale = 1.0
        if self.norm == "tfixup":
            scale = transformer.tfixup_scale(self.layers, decoder=True)
        return transformer.call_scaled(scale, module, *args, **options)

    def _rest(
        self, x, y, memory, keys_values, memory_mask, train: bool, mixed: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Computes all after the self-attention, whose output is `y`."""
        x = self._after(x + self.drop(y, deterministic=not train), 1)
        y, mixed = self._call(
            self.cross_attention,
            self._before(x, 2),
            memory,
            mask=memory_mask,
            train=train,
            keys_values=keys_values,
            mixed=mixed,
        )
        x = self._after(x + self.drop(y, deterministic=not train), 2)
        x = self._after(x + self._call(self.mlp, self._before(x, 3), train=train), 3)
        return x, mixed

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
        memory_mask: jax.Array | None = None,
        train: bool = False,
        mixed: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes whole targets `x` `[batch, length, dim]` under a causal mask.

        Returns:
          `[batch, length, dim]`, and the mixed values of the memory for blocks that follow.
        """
        y = self._call(self.self_attention, self._before(x, 1), mask=mask, train=train)
        y = y[0] if self._plain else y
        return self._rest(x, y, memory, None, memory_mask, train, mixed)

    def memory_keys_values(self, memory: jax.Array) -> KeysValues | None:
        """Keys and values of the memory, computed once for all steps; None if it does not lead."""
        return self.cross_attention.keys_values(memory)

    def cache(self, batch: int, steps: int) -> Any:
        """Makes an empty cache of the self-attention for `steps` steps."""
        if self._plain:
            shape = (batch, steps, self.heads, self.dim // self.heads)
            return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)
        if not isinstance(self.self_attention, FlexibleHeadAttention):
            raise UserError(
                "a decoder with this kind of self-attention has no cache and cannot decode step "
                "by step; use 'mha' or flexible heads."
            )
        x = jax.ShapeDtypeStruct((batch, steps, self.dim), self.dtype)
        shapes = jax.eval_shape(self._by_steps().init, jax.random.key(0), x)["cache"]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def _by_steps(self) -> FlexibleHeadAttention:
        """The self-attention apart from this module, so that its cache is an argument."""
        return self.self_attention.clone(parent=None, name=None, decode=True)

    def _attend_step(self, x: jax.Array, cache: Any, index: jax.Array) -> tuple[jax.Array, Any]:
        """Self-attention of one step `[batch, 1, dim]`, and the cache with it."""
        if not self._plain:
            variables = {"params": self.self_attention.variables["params"], "cache": cache}
            y, kept = self._by_steps().apply(variables, x, mutable=["cache"])
            return y, kept["cache"]
        new = self.self_attention.keys_values(x)
        cache = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, one.astype(old.dtype), index, axis=1)
            for old, one in zip(cache, new, strict=True)
        )
        seen = (jnp.arange(cache[0].shape[1], dtype=index.dtype) <= index)[None, None, None]
        y, _ = self.self_attention(x, mask=seen, keys_values=cache)
        return y, cache

    def step(
        self,
        x: jax.Array,
        cache: Any,
        index: jax.Array,
        keys_values: KeysValues | None,
        memory_mask: jax.Array | None = None,
        mixed: jax.Array | None = None,
    ) -> tuple[jax.Array, Any, jax.Array]:
        """Decodes one step `x` `[batch, 1, dim]`, after `index` others.

        Arguments:
          cache: of the steps before; see `cache`.
          keys_values: as `memory_keys_values` returns them.
          mixed: of the block before, where it does not lead.

        Returns:
          `[batch, 1, dim]`, the cache with this step, and the mixed values of the memory.
        """
        y, cache = self._attend_step(self._before(x, 1), cache, index)
        x, mixed = self._rest(x, y, None, keys_values, memory_mask, False, mixed)
        return x, cache, mixed


class FeatureEmbedding(nn.Module):
    """Dense of features to the width of the tokens, scaled as T-Fixup scales embeddings.

    For one-hot features it is an embedding table. With T-Fixup that is N(0, 1/dim) times
    (9N)^-1/4 and the result times sqrt(dim), as the transformer embeds (Vaswani et al. 2017,
    section 3.4). Arguments as in `transformer.Block`.
    """

    dim: int
    norm: str = "pre"
    layers: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., features]` to `[..., dim]`."""
        if self.norm != "tfixup":
            layer = nn.Dense(self.dim, dtype=self.dtype, name="dense")
            return layer(x.astype(self.dtype))
        std = self.dim**-0.5 * transformer.tfixup_scale(self.layers, decoder=True)
        init = nn.initializers.normal(std)
        layer = nn.Dense(self.dim, dtype=self.dtype, kernel_init=init, name="dense")
        return layer(x.astype(self.dtype)) * self.dim**0.5
