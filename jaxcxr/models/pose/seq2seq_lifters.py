"""Lifters that write one pose after the other: recurrent and transformer encoder-decoders."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.pose.outputs import HEAD_INIT, Outputs
from jaxcxr.models.pose.recurrent_lifter import frame_features
from jaxcxr.models.sequence.recurrent_attention import RecurrentEncoderDecoder
from jaxcxr.models.sequence.seq2seq import EncoderDecoder

# Metres: the unit of the poses that the decoders read, so that they are of the order of 1. Their
# outputs are metres: scaled too, the output layer would learn at 0.3 of the rate of the others.
UNIT = 0.3


class _Recurrent(RecurrentEncoderDecoder):
    """An encoder-decoder whose output layer belongs to its owner, as the group `head`."""

    output: nn.Module | None = None

    def setup(self):
        super().setup()
        self.readout = self.output


class _Transformer(EncoderDecoder):
    """An encoder-decoder whose output layer belongs to its owner, as the group `head`."""

    output: nn.Module | None = None

    def setup(self):
        super().setup()
        self.head = self.output


def _write(
    decoder: nn.Module, source: jax.Array, mask: jax.Array | None, features: int, train: bool
) -> jax.Array:
    """Outputs `[batch, frames, width]`; the first `features` of each, in `UNIT`, go in next."""
    memory = decoder.encode(source, mask, train)
    first = decoder.start(memory, source.shape[1])

    def advance(decoder, state, _):
        carry, previous = state
        carry, output = decoder.step(carry, previous, memory)
        return (carry, (output[..., :features] / UNIT).astype(previous.dtype)), output

    scan = nn.scan(
        advance,
        variable_broadcast="params",
        split_rngs={"params": False},
        out_axes=1,
        length=source.shape[1],
    )
    return scan(decoder, first, None)[1]


class _Lifter(nn.Module):
    """Lifts with the encoder-decoder that `_decoder(features, head)` of a subclass makes."""

    @nn.compact
    def __call__(
        self,
        keypoints: jax.Array,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        joints: jax.Array | None = None,
    ) -> Any:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`.

        Arguments:
          joints: the true joints `[batch, frames, joints, 3]` in metres. Where they are given in
            training, a pose is written after the true ones before it (teacher forcing); otherwise
            after the model's own.
        """
        count = keypoints.shape[2]
        outputs = Outputs(count, self.uncertainty, self.trajectory)
        head = nn.Dense(outputs.width, dtype=self.dtype, kernel_init=HEAD_INIT, name="head")
        decoder = self._decoder(3 * count, head)
        source = frame_features(keypoints, mask)
        if self.is_initializing():
            # Both ways have the same parameters, and this one makes them all.
            joints, train = jnp.zeros((*keypoints.shape[:3], 3), jnp.float32), False
        elif not train:
            joints = None
        if joints is None:
            y = _write(decoder, source, mask, 3 * count, train)
        else:
            y = decoder(
                source, self._taught(joints, train), source_mask=mask, target_mask=mask,
                train=train,
            )
        return outputs.of_frames(y)

    def _taught(self, joints: jax.Array, train: bool) -> jax.Array:
        """The true poses as the decoder reads them, in its unit, with noise in training."""
        joints = joints.reshape(*joints.shape[:2], -1).astype(jnp.float32)
        if train and self.teacher_noise:
            noise = jax.random.normal(self.make_rng("dropout"), joints.shape, jnp.float32)
            joints = joints + self.teacher_noise * noise
        return joints / UNIT


class PoseSeq2Seq(_Lifter):
    """Recurrent encoder over the keypoints, recurrent decoder with attention that writes poses.

    Arguments:
      cell: "gru", "gru_thesis", "lstm" or "rnn".
      width: of every state.
      layers: of the encoder and of the decoder.
      bidirectional: let the encoder run both ways.
      attention: "bahdanau", "luong" or "none"; see `RecurrentEncoderDecoder`.
      alignment: words of a head; "" for the authors' own.
      dropout: rate between layers and before the output.
      teacher_forcing: train on the true previous poses. False trains on the model's own, slower,
        without dropout in the decoder, and free of the gap between training and evaluation.
      teacher_noise: standard deviation in metres of noise on the true poses, which narrows it.
      uncertainty, trajectory, dtype: as in `PoseRecurrent`.
    """

    cell: str = "gru"
    width: int = 256
    layers: int = 1
    bidirectional: bool = True
    attention: str = "bahdanau"
    alignment: str = ""
    dropout: float = 0.0
    teacher_forcing: bool = True
    teacher_noise: float = 0.0
    uncertainty: bool = False
    trajectory: bool = False
    dtype: Any = jnp.float32

    def _decoder(self, features: int, head: nn.Module) -> nn.Module:
        return _Recurrent(
            features, self.cell, self.width, self.layers, self.bidirectional, self.attention,
            self.alignment, self.dropout, self.dtype, head, name="backbone",
        )


class PoseEncoderDecoder(_Lifter):
    """Transformer encoder over the keypoints, transformer decoder that writes poses.

    Arguments:
      dim, encoder_depth, decoder_depth, heads, mlp_ratio: as in `seq2seq.EncoderDecoder`.
      dropout, attention_dropout, attention, norm, positions, max_length: as there.
      others: as in `PoseSeq2Seq`.
    """

    dim: int = 128
    encoder_depth: int = 3
    decoder_depth: int = 3
    heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    attention: str | tuple[str, ...] = "mha"
    norm: str = "pre"
    positions: str = "sinusoidal"
    max_length: int = 243
    teacher_forcing: bool = True
    teacher_noise: float = 0.0
    uncertainty: bool = False
    trajectory: bool = False
    dtype: Any = jnp.float32

    def _decoder(self, features: int, head: nn.Module) -> nn.Module:
        return _Transformer(
            features,
            dim=self.dim,
            encoder_depth=self.encoder_depth,
            decoder_depth=self.decoder_depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            attention=self.attention,
            norm=self.norm,
            positions=self.positions,
            max_length=self.max_length,
            dtype=self.dtype,
            output=head,
            name="backbone",
        )
