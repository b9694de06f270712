"""Decoder blocks of transformers, over whole targets or step by step with cached keys."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models import transformer
from jaxcxr.models.attention.heads import MultiHeadAttention, attention_weights
from jaxcxr.models.attention.layers import shares

KeysValues = tuple[jax.Array, jax.Array]


class DecoderAttention(nn.Module):
    """`MultiHeadAttention`, of the same parameters, whose keys and values can be kept.

    Arguments:
      dim: width of queries and outputs.
      heads: number of heads; must divide `dim`.
      dropout: rate on the attention weights.
      dtype: of the computation; scores and softmax are float32.
    """

    dim: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Names the projections as `MultiHeadAttention` does."""
        if self.dim % self.heads:
            raise UserError(
                f"heads={self.heads} does not divide the width {self.dim}; change either."
            )
        dense = functools.partial(
            nn.DenseGeneral, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        shape = (self.heads, self.dim // self.heads)
        self.query, self.key, self.value = dense(shape), dense(shape), dense(shape)
        self.out = dense(self.dim, axis=(-2, -1))
        self.drop = nn.Dropout(self.dropout)

    def keys_values(self, memory: jax.Array) -> KeysValues:
        """Keys and values, each `[batch, length, heads, width]`, of `[batch, length, any]`."""
        return self.key(memory), self.value(memory)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keys_values: KeysValues | None = None,
    ) -> jax.Array:
        """Attends from `x`; arguments and result as in `MultiHeadAttention.__call__`.

        Arguments:
          keys_values: what `keys_values` returned, instead of a memory.
        """
        if keys_values is None:
            keys_values = self.keys_values(x if memory is None else memory)
        keys, values = keys_values
        weights = attention_weights(self.query(x), keys, mask)
        if not self.is_initializing():
            self.sow("attention", "weights", weights)
        weights = self.drop(weights, deterministic=not train).astype(values.dtype)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, values))


def _is_plain(make: Callable[..., nn.Module]) -> bool:
    while isinstance(make, functools.partial):
        make = make.func
    return make is MultiHeadAttention


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the memory, MLP, each a residual branch.

    Arguments:
      attention: makes the self-attention, as `attention.factory` returns it; it takes causal
        masks. `step` is for plain attention alone.
      dim: width of the tokens.
      heads: of the attention to the memory, and of plain self-attention.
      mlp_ratio: hidden units of the MLP over `dim`.
      dropout: rate on the outputs of the attentions and in the MLP.
      attention_dropout: rate on the attention weights.
      dtype: of the computation.
      norm: "pre", "post" or "tfixup", as in `transformer.Block`.
      layers: blocks of the stack, for the scale of T-Fixup.
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

    def setup(self):
        """Makes the three branches; without norms where the style has none."""
        transformer.check_norm(self.norm)
        if shares(self.attention):
            raise UserError("a decoder has no 'shared' self-attention; use another kind.")
        plain = DecoderAttention(self.dim, self.heads, self.attention_dropout, self.dtype)
        self.self_attention = plain if _is_plain(self.attention) else self.attention()
        self.cross_attention = plain.copy()
        self.mlp = transformer.MLP(round(self.dim * self.mlp_ratio), self.dropout, self.dtype)
        self.drop = nn.Dropout(self.dropout)
        if self.norm != "tfixup":
            self.norm1 = transformer.LayerNorm(self.dtype)
            self.norm2 = transformer.LayerNorm(self.dtype)
            self.norm3 = transformer.LayerNorm(self.dtype)

    def _before(self, x: jax.Array, index: int) -> jax.Array:
        return getattr(self, f"norm{index}")(x) if self.norm == "pre" else x

    def _after(self, x: jax.Array, index: int) -> jax.Array:
        return getattr(self, f"norm{index}")(x) if self.norm == "post" else x

    def _call(self, module: nn.Module, *args: Any, **options: Any) -> jax.Array:
        scale = 1.0
        if self.norm == "tfixup":
            scale = transformer.tfixup_scale(self.layers, decoder=True)
        return transformer.call_scaled(scale, module, *args, **options)

    def _rest(self, x, y, memory, keys_values, memory_mask, train: bool) -> jax.Array:
        """What follows the self-attention, whose output is `y`."""
        x = self._after(x + self.drop(y, deterministic=not train), 1)
        y = self._call(
            self.cross_attention,
            self._before(x, 2),
            memory,
            mask=memory_mask,
            train=train,
            keys_values=keys_values,
        )
        x = self._after(x + self.drop(y, deterministic=not train), 2)
        return self._after(x + self._call(self.mlp, self._before(x, 3), train=train), 3)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Decodes whole targets.

        Arguments:
          x: `[batch, length, dim]`.
          memory: `[batch, keys, dim of the memory]`.
          mask: bool, broadcast to `[batch, heads, length, length]`, which must be causal.
          memory_mask: bool `[batch, 1, 1, keys]`.
          train: applies dropout (needs the rng `dropout`).

        Returns:
          `[batch, length, dim]`.
        """
        y = self._call(self.self_attention, self._before(x, 1), mask=mask, train=train)
        return self._rest(x, y, memory, None, memory_mask, train)

    def memory_keys_values(self, memory: jax.Array) -> KeysValues:
        """Keys and values of the memory, computed once for all steps."""
        return self.cross_attention.keys_values(memory)

    def cache(self, batch: int, steps: int) -> KeysValues:
        """Room for the keys and values of `steps` steps, each `[batch, steps, heads, width]`.

        Raises:
          UserError: the self-attention is not plain.
        """
        if not _is_plain(self.attention):
            raise UserError(
                "a decoder with this kind of self-attention has no cache and cannot decode step "
                "by step; use 'mha'."
            )
        shape = (batch, steps, self.heads, self.dim // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def step(
        self,
        x: jax.Array,
        cache: KeysValues,
        index: jax.Array,
        keys_values: KeysValues,
        memory_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """Decodes one step.

        Arguments:
          x: `[batch, 1, dim]`.
          cache: of the steps before; see `cache`.
          index: int32 scalar, steps before this one.
          keys_values: what `memory_keys_values` returned.
          memory_mask: bool `[batch, 1, 1, keys]`.

        Returns:
          `[batch, 1, dim]` and the cache with this step.
        """
        y = self._before(x, 1)
        new = self.self_attention.keys_values(y)
        cache = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, one.astype(old.dtype), index, axis=1)
            for old, one in zip(cache, new, strict=True)
        )
        seen = (jnp.arange(cache[0].shape[1], dtype=index.dtype) <= index)[None, None, None]
        y = self.self_attention(y, mask=seen, keys_values=cache)
        return self._rest(x, y, None, keys_values, memory_mask, False), cache


class FeatureEmbedding(nn.Module):
    """Dense of features to the width of the tokens, with what T-Fixup asks of embeddings.

    For one-hot features it is an embedding table. With T-Fixup that is N(0, 1/dim) times
    (9N)^-1/4 and the result times sqrt(dim), as the transformer embeds (Vaswani et al. 2017,
    section 3.4).

    Arguments:
      dim: width of the tokens.
      norm: of the blocks.
      layers: of the decoder.
      dtype: of the computation.
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
