"""Recurrent encoder-decoder with attention; the interface is that of `seq2seq`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments, weighing
from jaxcxr.models.attention.groups import HeadGroup, parse_groups
from jaxcxr.models.sequence import transformer
from jaxcxr.models.sequence.recurrent import Recurrent, hidden, make_cell
from jaxcxr.models.sequence.seq2seq import shift_right

# kind of attention -> the alignment of its authors
ATTENTIONS = {"bahdanau": "additive", "luong": "general", "none": None}


def head(words: str) -> HeadGroup:
    """Reads a head from words such as "additive", "general/entmax15" or "location(81)"."""
    groups, _ = parse_groups(f"1*{words}")
    found = groups[0]
    plain = HeadGroup(1, align=found.align, norm=found.norm, max_keys=found.max_keys)
    if groups != (plain,):
        raise UserError(
            f"the alignment {words!r} of a recurrent decoder says more than it can; name an "
            "alignment and a normaliser only, such as general/entmax15."
        )
    return found


class Attention(nn.Module):
    """Context of one query, the sum over i of p(a(k_i, q)) v_i (thesis eq. 2.25 and 2.28).

    Arguments:
      alignment: words of a head, see `head`.
    """

    alignment: str = "additive"

    @nn.compact
    def __call__(
        self, query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Attends from one query `[batch, width]` to keys and values `[batch, n, ...]`.

        Returns:
          (context `[batch, value width]`, weights `[batch, n]`, at least float32).
        """
        group = head(self.alignment)
        shapes = alignments.parameters(group.align, 1, query.shape[-1], group.max_keys)
        if group.norm == "entmax":
            shapes = {**shapes, "alpha": (nn.initializers.zeros, (1,))}
        params = {
            name: self.param(name, init, shape, jnp.float32)
            for name, (init, shape) in shapes.items()
        }
        weights = weighing.weights(
            weighing.Rule(group, None),
            params,
            query[:, None, None],
            keys[:, :, None],
            mask=transformer.key_mask(mask),
            valid=mask[:, None],
        )[:, 0, 0]
        return jnp.einsum("bn,bnd->bd", weights.astype(values.dtype), values), weights


class RecurrentEncoderDecoder(nn.Module):
    """Encoder-decoder of recurrent cells, with or without attention to the encoder's states h.

    With s the state of the decoder, y the output before and c the context:

      "bahdanau"  s_t = f(s_{t-1}, [y; c]), c attended by s_{t-1}; output W tanh(U [s_t; c; y])
                  (Bahdanau, Cho & Bengio 2015, their maxout replaced by tanh; thesis eq.
                  2.23-2.27, where the state in f is that of the step before)
      "luong"     s_t = f(s_{t-1}, [y; a_{t-1}]), c attended by s_t, a_t = tanh(U [c; s_t]);
                  output W a_t (Luong, Pham & Manning 2015, global attention with input feeding)
      "none"      as "bahdanau", with the last states of the encoder as c of every step (Cho et
                  al. 2014; thesis eq. 2.20-2.22)

    The decoder begins with the last states of the encoder, layer by layer; those of both
    directions pass tanh(W [forward; backward]). The values attended to are the states h
    themselves; the keys are too, where h is as wide as s, and a linear map of h to that width
    otherwise.

    Arguments:
      out_features: of targets and outputs.
      cell: a key of `recurrent.CELLS`.
      width: of every state.
      layers: of the encoder and of the decoder.
      bidirectional: let the encoder run both ways.
      attention: "bahdanau", "luong" or "none".
      alignment: words of `head`; "" for the authors' own: "additive" of Bahdanau (which is
        Luong's "concat"), "general" of Luong.
      dropout: rate between layers and before the output.
      dtype: of the computation.
    """

    out_features: int
    cell: str = "gru"
    width: int = 128
    layers: int = 1
    bidirectional: bool = True
    attention: str = "bahdanau"
    alignment: str = ""
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the parts that all methods share."""
        if self.attention not in ATTENTIONS:
            raise UserError(
                f"attention={self.attention!r} of a recurrent decoder is not known; use "
                f"one of {', '.join(ATTENTIONS)}."
            )
        width, dtype = self.width, self.dtype
        self.encoder = Recurrent(
            self.cell, width, self.layers, self.bidirectional, self.dropout, dtype
        )
        self.decoder = [make_cell(self.cell, width, dtype) for _ in range(self.layers)]
        if self.bidirectional:
            states = self.layers * (2 if self.cell == "lstm" else 1)
            self.bridge = [nn.Dense(width, dtype=dtype) for _ in range(states)]
        if self.attention != "none":
            self.attend = Attention(self.alignment or ATTENTIONS[self.attention])
            if self.bidirectional:
                self.keys = nn.Dense(width, use_bias=False, dtype=dtype)
        self.first = self.param("first", nn.initializers.zeros, (self.out_features,), jnp.float32)
        self.mix = nn.Dense(width, dtype=dtype)
        self.readout = nn.Dense(self.out_features, dtype=dtype)
        self.drop = nn.Dropout(self.dropout)

    def encode(
        self, source: jax.Array, source_mask: jax.Array | None = None, train: bool = False
    ) -> Mapping[str, Any]:
        """Encodes the source for the decoder.

        Returns:
          `carries`, first states of the decoder by layer, and with attention `values`
          `[batch, n, features]`, `keys` `[batch, n, width]` and `mask` `[batch, n]`, without it
          `context` `[batch, features]`.
        """
        states, carries = self.encoder.run(source, source_mask, train=train)
        memory: dict[str, Any] = {"carries": self._first_carries(carries)}
        if self.attention == "none":
            memory["context"] = jnp.concatenate([hidden(way) for way in carries[-1]], axis=-1)
            return memory
        memory["values"] = states
        memory["keys"] = self.keys(states) if self.bidirectional else states
        mask = jnp.ones(source.shape[:2], bool) if source_mask is None else source_mask
        memory["mask"] = jnp.asarray(mask)
        return memory

    def _first_carries(self, carries: tuple[tuple[Any, ...], ...]) -> tuple[Any, ...]:
        if not self.bidirectional:
            return tuple(forward for (forward,) in carries)
        bridge = iter(self.bridge)

        def merge(forward: jax.Array, backward: jax.Array) -> jax.Array:
            return nn.tanh(next(bridge)(jnp.concatenate([forward, backward], axis=-1)))

        return tuple(jax.tree.map(merge, *ways) for ways in carries)

    def start(self, memory: Mapping[str, Any], steps: int) -> tuple[Any, jax.Array]:
        """State before the first step, and its input `[batch, out]`, learned from zero."""
        del steps
        carries = memory["carries"]
        state = hidden(carries[-1])
        fed = jnp.zeros_like(state) if self.attention == "luong" else None
        first = jnp.broadcast_to(self.first, (len(state), self.out_features))
        return (carries, fed), first.astype(alignments.wide(self.dtype))

    def step(
        self, carry: Any, previous: jax.Array, memory: Mapping[str, Any]
    ) -> tuple[Any, jax.Array]:
        """One step: the new state and the output, float32 `[batch, out]`."""
        return self._advance(carry, previous, memory, False)

    def _context(self, state: jax.Array, memory: Mapping[str, Any]) -> jax.Array:
        if self.attention == "none":
            return memory["context"]
        return self.attend(state, memory["keys"], memory["values"], memory["mask"])[0]

    def _advance(self, carry, previous, memory, train: bool) -> tuple[Any, jax.Array]:
        (carries, fed), previous = carry, previous.astype(self.dtype)
        if self.attention == "luong":
            carries, state = self._run_cells(carries, [previous, fed], train)
            context = self._context(state, memory)
            mixed = fed = nn.tanh(self.mix(jnp.concatenate([context, state], axis=-1)))
        else:
            context = self._context(hidden(carries[-1]), memory)
            carries, state = self._run_cells(carries, [previous, context], train)
            mixed = nn.tanh(self.mix(jnp.concatenate([state, context, previous], axis=-1)))
        output = self.readout(self.drop(mixed, deterministic=not train))
        return (carries, fed), output.astype(alignments.wide(self.dtype))

    def _run_cells(self, carries, inputs, train: bool) -> tuple[tuple[Any, ...], jax.Array]:
        """One step of every layer; returns the carries and the output of the last."""
        x, new = jnp.concatenate(inputs, axis=-1), []
        for layer, (cell, carry) in enumerate(zip(self.decoder, carries, strict=True)):
            if layer:
                x = self.drop(x, deterministic=not train)
            carry, x = cell(carry, x)
            new.append(carry)
        return tuple(new), x

    def __call__(
        self,
        source: jax.Array,
        target: jax.Array,
        *,
        source_mask: jax.Array | None = None,
        target_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Predicts each target from the true targets before it; outputs are 0 at padding."""
        memory = self.encode(source, source_mask, train)
        carry, first = self.start(memory, target.shape[1])
        if target_mask is not None:
            target = jnp.where(target_mask[..., None], target, jnp.zeros((), target.dtype))

        def advance(module, carry, previous):
            return module._advance(carry, previous, memory, train)

        scan = nn.scan(
            advance,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        _, outputs = scan(self, carry, shift_right(target, first))
        return outputs if target_mask is None else jnp.where(target_mask[..., None], outputs, 0)
