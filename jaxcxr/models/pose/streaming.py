"""Pose models on a stream: one frame in, one pose out, from the weights of the batch model.

    stream, carry = streaming.start(model, variables, batch=1, frames=81)
    step = jax.jit(stream.step)
    for frame in frames:                      # [batch, joints, 3]
        carry, pose = step(carry, frame)      # of the frame `stream.latency` before this one
    for _ in range(stream.latency):           # the last poses, without new frames
        carry, pose = step(carry, frame, False)

The poses equal those of `model.apply` on the whole sequence, up to rounding. The first
`stream.latency` of them belong to no frame.

Transformers keep tokens in the collection `cache`, which `init` makes from a clip of as many frames
as are to be remembered. The first block over frames may look `ahead`: it then computes the token of
the frame that came so many frames ago, and all blocks after it follow that late.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import class_of, factory
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import TokenSequence
from jaxcxr.models.attention.heads import MultiHeadAttention
from jaxcxr.models.layers import TimePositions, sinusoidal
from jaxcxr.models.sequence import scanned, transformer

POSITIONS = ("sinusoidal", "learned", "none")

# Frames between two entries of the coarse table of positions; both tables have as many rows.
_ROWS = 1024


def stepwise(make: Callable[..., nn.Module], ahead: int) -> Callable[..., nn.Module]:
    """Returns a function that makes the same attention for tokens that come one by one."""
    kind = class_of(make)
    if kind is MultiHeadAttention and not ahead:
        plain = make(parent=None)
        make = factory(f"{plain.heads}*global", heads=plain.heads, dropout=plain.dropout,
                       dtype=plain.dtype)
    elif kind not in (MultiHeadAttention, FlexibleHeadAttention):
        raise UserError(
            "this kind of attention needs all frames at once; for a stream use 'mha' or groups of "
            "heads such as '4*global+4*fixed(8)'."
        )
    if ahead:
        return functools.partial(AheadAttention, make, ahead)
    return functools.partial(make, decode=True)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Behind(TokenSequence):
    """A line of kept tokens, and one of them, before the last, by itself."""

    kept: int = 0
    ahead: int = 0

    def places(self, count: int) -> np.ndarray:
        """Places of all kept tokens, or of the one."""
        whole = super().places(self.kept)
        return whole if count == self.kept else whole[[self.kept - 1 - self.ahead]]

    def largest(self, queries: int, keys: int) -> int:
        """The largest distance in the clip for which the tokens are kept."""
        return super().largest(queries, keys) - self.ahead


class AheadAttention(nn.Module):
    """Attention of a token that sees `ahead` tokens after it, from the tokens kept so far."""

    attention: Callable[..., nn.Module]
    ahead: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        distance: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Attends from the first token of `x`; the output, like `x`, counts for that token only.

        Arguments:
          x: `[batch, ahead + 1, dim]`, the token and those after it, of which the last is new;
            in the first call the tokens of all frames to keep.
          memory, distance, train: as they are without a memory, a distance and training.
          mask: bool `[batch or 1, 1, 1, 1]`, False where the last token is no frame.
        """
        del memory, distance, train
        inner = self.attention()
        nn.share_scope(self, inner)
        ready = self.has_variable("cache", "tokens")
        shape = (x.shape[0], x.shape[1] + self.ahead, x.shape[2])
        tokens = self.variable("cache", "tokens", jnp.zeros, shape, x.dtype)
        there = self.variable("cache", "there", jnp.zeros, shape[:2], jnp.bool_)
        if not ready:
            return inner(x)
        batch, kept = there.value.shape
        new = jnp.ones((1, 1), bool) if mask is None else mask[:, 0, 0]
        new = jnp.broadcast_to(new, (batch, 1))
        tokens.value = jnp.concatenate([tokens.value[:, 1:], x[:, -1:]], 1)
        there.value = jnp.concatenate([there.value[:, 1:], new], 1)
        seen = transformer.key_mask(there.value)
        options = {}
        if isinstance(inner, FlexibleHeadAttention):
            options["distance"] = _Behind(kept=kept, ahead=self.ahead)
        out = inner(x[:, :1], tokens.value, mask=seen, **options)
        return jnp.broadcast_to(out, x.shape)


class Latest(nn.Module):
    """The latest `count` tokens, the oldest first."""

    count: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Takes the next token `[batch, 1, dim]` and returns `[batch, count, dim]`.

        The first call gets the tokens of all frames to keep, and returns them.
        """
        ready = self.has_variable("cache", "latest")
        shape = (x.shape[0], self.count, x.shape[2])
        latest = self.variable("cache", "latest", jnp.zeros, shape, x.dtype)
        if not ready:
            return x
        latest.value = jnp.concatenate([latest.value[:, 1:], x], 1)
        return latest.value


class Positions(nn.Module):
    """Adds the number of each frame along the second to last axis of `[..., frames, dim]`.

    Arguments:
      kind: "sinusoidal" (any number of frames), "learned" (up to `max_length`), or "none", where
        the attention itself tells distances, so that a stream has no beginning.
      max_length: rows of the learned table.
      std: of the learned table at initialisation.
      decode: each call gets the next frame; learned positions stay at the last once they end.
    """

    kind: str
    max_length: int
    std: float
    decode: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` plus its positions, in the dtype of `x`."""
        if self.kind == "none":
            return x
        if self.kind not in POSITIONS:
            raise UserError(
                f"positions={self.kind!r} is not known; use 'sinusoidal' or 'learned', or 'none'."
            )
        table = TimePositions(self.kind, self.max_length, self.std)
        nn.share_scope(self, table)
        if not self.decode:
            return table(x)
        ready = self.has_variable("cache", "frame")
        frame = self.variable("cache", "frame", jnp.zeros, (), jnp.int32)
        if not ready:
            return table(x)
        now = frame.value
        frame.value = now + 1
        dim = x.shape[-1]
        if self.kind == "sinusoidal":
            return x + _sinusoidal(now, dim).astype(x.dtype)
        codes = table(jnp.zeros((self.max_length, dim), x.dtype))
        return x + jax.lax.dynamic_slice_in_dim(codes, now, 1)


def _sinusoidal(frame: jax.Array, dim: int) -> jax.Array:
    """The code of `sinusoidal` at an int32 scalar, up to a million; float32 `[dim]`.

    By the sum of angles from a coarse and a fine table: a float32 angle would be wrong by more
    than 1e-5 after a few hundred frames.
    """
    fine = sinusoidal(np.arange(_ROWS), dim).reshape(_ROWS, -1, 2)
    coarse = sinusoidal(np.arange(_ROWS) * _ROWS, dim).reshape(_ROWS, -1, 2)
    sin_a, cos_a = jnp.moveaxis(jnp.asarray(coarse)[frame // _ROWS], -1, 0)
    sin_b, cos_b = jnp.moveaxis(jnp.asarray(fine)[frame % _ROWS], -1, 0)
    both = (sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b)
    return jnp.stack(both, -1).reshape(dim)


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
    """A causal transformer, whose tokens lie in the collection `cache`."""

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
