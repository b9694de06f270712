"""Sequence-to-sequence models: their interface, decoding, and the encoder-decoder transformer.

A sequence-to-sequence model is a module from a source `[batch, n, in]` to outputs
`[batch, m, out]`, where the features of its targets are as many as those of its outputs: one-hot
vectors and logits for tokens, coordinates for poses. It has

  __call__(source, target, *, source_mask=None, target_mask=None, train=False) -> outputs
      teacher forcing: the target is shifted right inside, so that the output at t, the prediction
      of target t, depends on the source and the targets before t.
  encode(source, source_mask=None, train=False) -> memory
      what decoding needs of the source, masks included, computed once.
  start(memory, steps) -> (carry, first)
      the state before the first step, with room for `steps` of them, and the input of the first
      step `[batch, out]`, the same that `__call__` puts before the targets.
  step(carry, previous, memory) -> (carry, output)
      one step: `previous` `[batch, out]` is the input, `output` float32 `[batch, out]`.

`memory` and `carry` are pytrees of arrays; the shapes and dtypes in `carry` never change, so that
steps can be scanned, or taken one by one as a stream, at most as many as `start` made room for.
Masks are bool `[batch, length]`, False at padding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import layers
from jaxcxr.models.attention.alignments import wide
from jaxcxr.models.layers import TimePositions
from jaxcxr.models.sequence import transformer
from jaxcxr.models.sequence.decoder import DecoderBlock, FeatureEmbedding


def shift_right(target: jax.Array, first: jax.Array) -> jax.Array:
    """Inputs of teacher forcing: `first` `[(batch,) out]`, then `target` without its last step."""
    batch, _, width = target.shape
    head = jnp.broadcast_to(first.astype(target.dtype), (batch, width))[:, None]
    return jnp.concatenate([head, target[:, :-1]], axis=1)


def identity(output: jax.Array) -> jax.Array:
    """Feedback of continuous outputs: the next input is the output."""
    return output


def one_hot_of_largest(logits: jax.Array) -> jax.Array:
    """Feedback of tokens in greedy decoding: the one-hot vector of the largest logit."""
    return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype)


def decode(
    model: nn.Module,
    variables: Any,
    source: jax.Array,
    steps: int,
    feedback: Callable[[jax.Array], jax.Array] = identity,
    source_mask: jax.Array | None = None,
    *,
    targets: jax.Array | None = None,
    forced: jax.Array | None = None,
) -> jax.Array:
    """Runs a sequence-to-sequence model autoregressively, by one `lax.scan`.

    Differentiable by `variables`, so that it also trains with scheduled sampling (Bengio et al.
    2015), without dropout: give `targets` and draw `forced` with the ratio of teacher forcing.

    Arguments:
      model, variables: a module with the interface of this file.
      source, source_mask: `[batch, n, in]`, and False at its padding.
      steps: number of outputs.
      feedback: maps an output `[batch, out]` to the input of the next step.
      targets: `[batch, steps, out]`, inputs of the steps after them instead of the feedback.
      forced: bool `[batch, steps]`, where `targets` are used; everywhere by default.

    Returns:
      The outputs `[batch, steps, out]`.
    """
    apply: Callable[..., Any] = functools.partial(model.apply, variables)
    memory = apply(source, source_mask, method="encode")
    carry, first = apply(memory, steps, method="start")

    def advance(state: tuple, teacher: tuple) -> tuple:
        carry, previous = state
        carry, output = apply(carry, previous, memory, method="step")
        following = feedback(output).astype(previous.dtype)
        if targets is not None:
            target, given = teacher
            following = jnp.where(given[:, None], target.astype(previous.dtype), following)
        return (carry, following), output

    teacher = None
    if targets is not None:
        given = jnp.ones(targets.shape[:2], bool) if forced is None else forced
        teacher = (targets.swapaxes(0, 1), given.swapaxes(0, 1))
    outputs: jax.Array
    _, outputs = jax.lax.scan(advance, (carry, first), teacher, length=steps)
    return outputs.swapaxes(0, 1)


class EncoderDecoder(nn.Module):
    """Encoder-decoder transformer (Vaswani et al. 2017) with the interface of this file.

    Its memory is the mask of the source and, for each decoder block, the keys and values of the
    encoded source; its carry the number of steps so far, the positions of all steps, and what the
    self-attention of each block keeps. The input of the first step is learned, and begins at zero.

    Arguments:
      out_features: of targets and outputs.
      dim: width of the tokens.
      encoder_depth: number of encoder blocks.
      decoder_depth: number of decoder blocks.
      heads: attention heads.
      mlp_ratio: hidden units of the MLPs over `dim`.
      dropout: rate after the positions, on the attention outputs and in the MLPs.
      attention_dropout: rate on the attention weights.
      attention: kind of attention of the encoder, or the kinds that its blocks take in turn; see
        `attention.layers`.
      decoder_attention: of the decoder's self-attention, kinds that take causal masks. Step by
        step "mha" and flexible heads decode.
      shared_memory: decoder blocks in a group of neighbours of which the first alone attends to
        the encoded source; the others take what it mixed. 1: each attends itself.
      norm: "pre", "post" or "tfixup"; see `transformer.Block`.
      positions: "sinusoidal" (any length) or "learned" (up to `max_length`).
      max_length: rows of the learned positions.
      remat: of each encoder block; see `layers.rematerialized`.
      dtype: of the computation; parameters, LayerNorm, softmax and outputs are float32.
    """

    out_features: int
    dim: int = 128
    encoder_depth: int = 3
    decoder_depth: int = 3
    heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    attention: str | tuple[str, ...] = "mha"
    decoder_attention: str | tuple[str, ...] = "mha"
    shared_memory: int = 1
    norm: str = "pre"
    positions: str = "sinusoidal"
    max_length: int = 243
    remat: str = "none"
    dtype: Any = jnp.float32

    def setup(self):
        """Makes both stacks, their embeddings and the output layer."""
        if self.shared_memory < 1:
            raise UserError(f"shared_memory={self.shared_memory}; a group has at least 1 block.")
        embedding = FeatureEmbedding(self.dim, self.norm, self.decoder_depth, self.dtype)
        std = transformer.position_std(self.norm, self.dim)
        positions = TimePositions(self.positions, self.max_length, std)
        self.source_embed, self.target_embed = embedding, embedding.copy()
        self.source_positions, self.target_positions = positions, positions.copy()
        self.drop = nn.Dropout(self.dropout)
        options = {"heads": self.heads, "dropout": self.attention_dropout, "dtype": self.dtype}
        self.encoder = [
            transformer.encoder_block(self.remat)(
                make,
                self.mlp_ratio,
                self.dropout,
                dtype=self.dtype,
                norm=self.norm,
                layers=self.encoder_depth,
            )
            for make in layers(self.attention, self.encoder_depth, **options)
        ]
        self.decoder = [
            DecoderBlock(
                make,
                self.dim,
                self.heads,
                self.mlp_ratio,
                self.dropout,
                self.attention_dropout,
                self.dtype,
                self.norm,
                self.decoder_depth,
                leads=index % self.shared_memory == 0,
            )
            for index, make in enumerate(
                layers(self.decoder_attention, self.decoder_depth, **options)
            )
        ]
        if self.norm == "pre":
            self.encoder_norm = transformer.LayerNorm(self.dtype)
            self.decoder_norm = transformer.LayerNorm(self.dtype)
        self.first = self.param("first", nn.initializers.zeros, (self.out_features,), jnp.float32)
        self.head = nn.Dense(self.out_features, dtype=self.dtype)

    def _encoded(self, source: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Features of the source, `[batch, n, dim]`."""
        if mask is not None:
            # What stands at padding must not matter, not even where it is NaN.
            source = jnp.where(mask[..., None], source, jnp.zeros((), source.dtype))
        x = self.drop(self.source_positions(self.source_embed(source)), deterministic=not train)
        seen = None if mask is None else transformer.key_mask(mask)
        weights = None
        for block in self.encoder:
            x, weights = transformer.run_block(block, x, seen, train, weights)
        return self.encoder_norm(x) if self.norm == "pre" else x

    def _output(self, x: jax.Array) -> jax.Array:
        x = self.decoder_norm(x) if self.norm == "pre" else x
        return self.head(x).astype(wide(self.dtype))

    def __call__(
        self,
        source: jax.Array,
        target: jax.Array,
        *,
        source_mask: jax.Array | None = None,
        target_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Predicts each target from the source and the targets before it."""
        memory = self._encoded(source, source_mask, train)
        memory_mask = None if source_mask is None else transformer.key_mask(source_mask)
        inputs = shift_right(target.astype(wide(self.dtype)), self.first)
        seen = transformer.causal_mask(target.shape[1])
        if target_mask is not None:
            # The input at t is the target before: the mask moves with it.
            start = jnp.ones_like(target_mask[:, :1])
            given = jnp.concatenate([start, target_mask[:, :-1]], axis=1)
            inputs = jnp.where(given[..., None], inputs, jnp.zeros((), inputs.dtype))
            seen = seen & transformer.key_mask(given)
        x = self.target_positions(self.target_embed(inputs))
        x = self.drop(x, deterministic=not train)
        mixed = None
        for block in self.decoder:
            x, mixed = block(x, memory, seen, memory_mask, train, mixed)
        return self._output(x)

    def encode(
        self, source: jax.Array, source_mask: jax.Array | None = None, train: bool = False
    ) -> dict[str, Any]:
        """Memory of the source; see the top of this file."""
        encoded = self._encoded(source, source_mask, train)
        mask = None if source_mask is None else transformer.key_mask(source_mask)
        keys_values = tuple(block.memory_keys_values(encoded) for block in self.decoder)
        return {"mask": mask, "keys_values": keys_values}

    def start(self, memory: dict[str, Any], steps: int) -> tuple[dict[str, Any], jax.Array]:
        """Carry before the first of `steps` steps, and its input; see the top of this file."""
        batch = memory["keys_values"][0][0].shape[0]
        cache = tuple(block.cache(batch, steps) for block in self.decoder)
        first = jnp.broadcast_to(self.first, (batch, self.out_features))
        positions = self.target_positions(jnp.zeros((steps, self.dim), self.dtype))
        carry = {"index": jnp.zeros((), jnp.int32), "positions": positions, "cache": cache}
        return carry, first.astype(wide(self.dtype))

    def step(
        self, carry: dict[str, Any], previous: jax.Array, memory: dict[str, Any]
    ) -> tuple[dict[str, Any], jax.Array]:
        """One of the steps that `start` made room for; see the top of this file."""
        index = carry["index"]
        x = self.target_embed(previous[:, None])
        x = x + jax.lax.dynamic_slice_in_dim(carry["positions"], index, 1)
        filled, mixed = [], None
        for block, cache, keys_values in zip(
            self.decoder, carry["cache"], memory["keys_values"], strict=True
        ):
            x, cache, mixed = block.step(x, cache, index, keys_values, memory["mask"], mixed)
            filled.append(cache)
        return {**carry, "index": index + 1, "cache": tuple(filled)}, self._output(x)[:, 0]
