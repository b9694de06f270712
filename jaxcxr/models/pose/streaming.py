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

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.sequence import scanned


@dataclasses.dataclass(frozen=True)
class Stream(abc.ABC):
    """A model ready for a stream; a model's class declares its kind of stream as `stream`.

    Attributes:
      model: Linen module.
      variables: its trained variables.
      latency: frames by which a pose comes later than its frame.
    """

    model: nn.Module
    variables: Any
    latency: int

    @classmethod
    @abc.abstractmethod
    def start(cls, model: nn.Module, variables: Any, clip: jax.Array) -> tuple["Stream", Any]:
        """Returns the stream and its first carry; arguments as in `streaming.start`.

        Arguments:
          clip: zeros `[batch, frames, joints, 3]`, as many frames as are kept.

        Raises:
          UserError: the model needs whole sequences.
        """

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
        carry, outputs = self._advance(carry, frame, there)
        return carry, jax.tree.map(lambda x: x[:, 0], outputs)

    @abc.abstractmethod
    def _advance(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        """The next carry and outputs of a clip of one frame."""


class Cached(Stream):
    """A causal transformer, whose tokens lie in the collection `cache`; see `frame_cache`."""

    @classmethod
    def start(cls, model: nn.Module, variables: Any, clip: jax.Array) -> tuple[Stream, Any]:
        """Makes an empty cache."""
        if not model.causal:
            raise UserError(
                "the frames of this model see all later ones; for a stream train it with "
                "causal=True, or run these weights in a model with causal=True and a latency."
            )
        model, variables = scanned.unrolled(model, variables)
        model = model.clone(decode=True)
        shapes = jax.eval_shape(model.init, jax.random.key(0), clip)["cache"]
        cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return cls(model, variables, model.latency), cache

    def _advance(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        outputs, new = self.model.apply(
            {**self.variables, "cache": carry}, frame[:, None],
            mask=there[:, None] if self.latency else None, mutable=["cache"],
        )
        return new["cache"], outputs


class Windowed(Stream):
    """A model that lifts a frame from the `receptive_field` frames about it, or before it.

    The first and the last frame of the sequence are repeated at its ends. The model declares as
    `of_window` the options of the call that lifts the one frame of a window.
    """

    @classmethod
    def start(cls, model: nn.Module, variables: Any, clip: jax.Array) -> tuple[Stream, Any]:
        """Makes an empty window."""
        size = model.receptive_field
        late = 0 if getattr(model, "causal", False) else size // 2
        kept = jnp.zeros((clip.shape[0], size, *clip.shape[2:]), jnp.float32)
        return cls(model, variables, late), (kept, jnp.zeros((), bool))

    def _advance(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        kept, begun = carry
        frame = jnp.where(there[:, None, None], frame, kept[:, -1])[:, None]
        kept = jnp.concatenate([kept[:, 1:], frame], 1)
        kept = jnp.where(begun, kept, frame)
        outputs = self.model.apply(self.variables, kept, **self.model.of_window)
        return (kept, jnp.ones((), bool)), outputs


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
    kind = getattr(model, "stream", None)
    if kind is None:
        raise UserError(
            f"{type(model).__name__} reads the whole sequence before it writes the first pose; a "
            "stream needs a causal transformer, a recurrent model of one direction or convolutions."
        )
    return kind.start(model, variables, jnp.zeros((batch, frames, joints, 3), jnp.float32))
