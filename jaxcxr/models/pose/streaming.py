"""Pose models on a stream: one frame in, one pose out, from the weights of the batch model.

    stream, carry = streaming.start(model, variables, batch=1, frames=81)
    step = jax.jit(stream.step)
    for frame in frames:                      # [batch, joints, 3]
        carry, pose = step(carry, frame)      # of the frame `stream.latency` before this one
    for _ in range(stream.latency):           # the last poses, without new frames
        carry, pose = step(carry, frame, False)

The poses equal those of `model.apply` on the whole sequence, up to rounding. The first
`stream.latency` of them belong to no frame.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.pose.convolutions import PoseConvolution, PoseFrame
from jaxcxr.models.pose.dual_stream import PoseDualStream
from jaxcxr.models.pose.outputs import Outputs
from jaxcxr.models.pose.recurrent_lifter import PoseRecurrent, frame_features
from jaxcxr.models.pose.transformers import PoseSpatioTemporal, PoseTemporal
from jaxcxr.models.sequence import scanned
from jaxcxr.models.sequence.recurrent import first_carry, make_cell

_TRANSFORMERS = (PoseTemporal, PoseSpatioTemporal, PoseDualStream)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A model ready for a stream.

    Attributes:
      model: Linen module.
      variables: its trained variables.
      latency: frames by which a pose comes later than its frame.
    """

    model: nn.Module
    variables: Any
    latency: int

    def step(self, carry: Any, frame: jax.Array, there: Any = True) -> tuple[Any, Any]:
        """Takes one frame.

        Arguments:
          carry: of the step before, or of `start`; its shapes never change.
          frame: float `[batch, joints, 3]` as (x, y, confidence).
          there: bool, scalar or `[batch]`, False where the sequence has ended, to get the poses of
            its last `latency` frames. Without a latency it does not matter.

        Returns:
          The next carry, and what the model gives for one frame, without the axis of frames:
          joints float32 `[batch, joints, 3]` in metres.
        """
        there = jnp.broadcast_to(jnp.asarray(there, bool), frame.shape[:1])
        if isinstance(self.model, _TRANSFORMERS):
            carry, outputs = self._cached(carry, frame, there)
        elif isinstance(self.model, PoseRecurrent):
            carry, outputs = self._recurrent(carry, frame)
        else:
            carry, outputs = self._windowed(carry, frame, there)
        return carry, jax.tree.map(lambda x: x[:, 0], outputs)

    def _cached(self, cache: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        outputs, new = self.model.apply(
            {**self.variables, "cache": cache}, frame[:, None],
            mask=there[:, None] if self.latency else None, mutable=["cache"],
        )
        return new["cache"], outputs

    def _recurrent(self, carry: Any, frame: jax.Array) -> tuple[Any, Any]:
        model, params = self.model, self.variables["params"]
        x = frame_features(frame[:, None], None)[:, 0].astype(model.dtype)
        states = []
        for layer, state in enumerate(carry):
            cell = make_cell(model.cell, model.width, model.dtype)
            state, x = cell.apply({"params": params["backbone"][f"forward_{layer}"]}, state, x)
            states.append(state)
        outputs = Outputs(frame.shape[1], model.uncertainty, model.trajectory)
        y = nn.Dense(outputs.width, dtype=model.dtype).apply({"params": params["head"]}, x)
        return tuple(states), outputs.of_frames(y[:, None])

    def _windowed(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        """The latest frames, the first and the last of the sequence repeated at its ends."""
        kept, begun = carry
        frame = jnp.where(there[:, None, None], frame, kept[:, -1])[:, None]
        kept = jnp.concatenate([kept[:, 1:], frame], 1)
        kept = jnp.where(begun, kept, frame)
        options = {"strided": True} if isinstance(self.model, PoseConvolution) else {}
        return (kept, jnp.ones((), bool)), self.model.apply(self.variables, kept, **options)


def start(
    model: nn.Module, variables: Any, batch: int, *, frames: int = 243, joints: int = 17
) -> tuple[Stream, Any]:
    """Makes a model ready for a stream.

    Arguments:
      model: as `models.create` returns it. Transformers must be causal; their option `latency`
        lets a frame see so many frames after its own. Recurrent models must run one way.
        Convolutions are late by the frames after its own that a frame is lifted from.
      variables: of the model.
      batch: number of streams that run together.
      frames: for transformers, how many frames are kept; the oldest is forgotten then. With
        absolute positions no more than training windows had frames, and a new start after as
        many, is what the weights have seen.
      joints: number of joints.

    Returns:
      The stream and its first carry.

    Raises:
      UserError: the model needs whole sequences.
    """
    example = jnp.zeros((batch, frames, joints, 3), jnp.float32)
    if isinstance(model, _TRANSFORMERS):
        return _start_cached(model, variables, example)
    if isinstance(model, PoseRecurrent):
        if model.bidirectional:
            raise UserError("a bidirectional model needs whole sequences; train it one way.")
        cell = make_cell(model.cell, model.width, model.dtype)
        first = jnp.zeros((batch, 1, model.width), model.dtype)
        carry = tuple(first_carry(cell, first) for _ in range(model.layers))
        return Stream(model, variables, 0), carry
    if isinstance(model, PoseConvolution | PoseFrame):
        size = model.receptive_field if isinstance(model, PoseConvolution) else 1
        late = 0 if getattr(model, "causal", False) else size // 2
        kept = jnp.zeros((batch, size, joints, 3), jnp.float32)
        return Stream(model, variables, late), (kept, jnp.zeros((), bool))
    raise UserError(
        f"{type(model).__name__} reads the whole sequence before it writes the first pose; a "
        "stream needs a causal transformer, a recurrent model of one direction or convolutions."
    )


def _start_cached(model: nn.Module, variables: Any, example: jax.Array) -> tuple[Stream, Any]:
    if not model.causal:
        raise UserError(
            "the frames of this model see all later ones; for a stream train it with causal=True, "
            "or run these weights in a model with causal=True and a latency."
        )
    model, variables = scanned.unrolled(model, variables)
    model = model.clone(decode=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)["cache"]
    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return Stream(model, variables, model.latency), cache
