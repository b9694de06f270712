"""Recurrent lifters and encoder-decoders, which write one pose after the other."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.pose.inputs_outputs import (
    HEAD_INIT,
    Outputs,
    frame_features,
    options_of,
    read_frames,
)
from jaxcxr.models.pose.streaming import Stream
from jaxcxr.models.sequence.recurrent import Recurrent, first_carry, make_cell
from jaxcxr.models.sequence.recurrent_attention import RecurrentEncoderDecoder
from jaxcxr.models.sequence.seq2seq import EncoderDecoder

# Metres: the unit of the poses that the decoders read, so that they are of the order of 1. Their
# outputs are metres: scaled too, the output layer would learn at 0.3 of the rate of the others.
UNIT = 0.3


class _States(Stream):
    """A recurrent model of one direction, which carries the states of its layers."""

    @classmethod
    def start(cls, model: nn.Module, variables: Any, clip: jax.Array) -> tuple[Stream, Any]:
        """Makes the first states."""
        if model.bidirectional:
            raise UserError("a bidirectional model needs whole sequences; train it one way.")
        cell = make_cell(model.cell, model.width, model.dtype)
        first = jnp.zeros((clip.shape[0], 1, model.width), model.dtype)
        return cls(model, variables, 0), tuple(
            first_carry(cell, first) for _ in range(model.layers)
        )

    def _advance(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        del there
        model, params = self.model, self.variables["params"]
        x: Any = frame_features(frame[:, None], None)[:, 0].astype(model.dtype)
        states = []
        for layer, state in enumerate(carry):
            cell = make_cell(model.cell, model.width, model.dtype)
            state, x = cell.apply({"params": params["backbone"][f"forward_{layer}"]}, state, x)
            states.append(state)
        outputs = Outputs(frame.shape[1], model.uncertainty, model.trajectory)
        y: Any = nn.Dense(outputs.width, dtype=model.dtype).apply({"params": params["head"]}, x)
        return tuple(states), outputs.of_frames(y[:, None])


class PoseRecurrent(nn.Module):
    """Stacked recurrent layers from the keypoints of a frame to its joints.

    With one direction a frame is lifted from itself and those before it, as a stream needs.

    Arguments:
      cell: "lstm", "gru", "gru_thesis" or "rnn"; see `recurrent.CELLS`.
      width: of the state of one direction.
      layers: number of layers.
      bidirectional: run every layer both ways.
      dropout: rate between layers.
      uncertainty: also a log variance for each joint.
      trajectory: also where the root stands; see `inputs_outputs.Outputs.read` for both.
      dtype: of the computation; parameters and output are float32.
    """

    stream: ClassVar = _States

    cell: str = "lstm"
    width: int = 256
    layers: int = 2
    bidirectional: bool = False
    dropout: float = 0.0
    uncertainty: bool = False
    trajectory: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`."""
        backbone = Recurrent(**options_of(self, Recurrent), name="backbone")
        x = backbone(frame_features(keypoints, mask), mask, train=train)
        return read_frames(self, x, keypoints.shape[2])


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
    """Lifts with the encoder-decoder of the class `decoder` that a subclass declares."""

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
        options = options_of(self, self.decoder)
        decoder = self.decoder(3 * count, **options, output=head, name="backbone")
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

    decoder: ClassVar = _Recurrent

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


class PoseEncoderDecoder(_Lifter):
    """Transformer encoder over the keypoints, transformer decoder that writes poses.

    Arguments:
      dim, encoder_depth, decoder_depth, heads, mlp_ratio: as in `seq2seq.EncoderDecoder`.
      dropout, attention_dropout, attention, norm, positions, max_length: as there.
      others: as in `PoseSeq2Seq`.
    """

    decoder: ClassVar = _Transformer

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
