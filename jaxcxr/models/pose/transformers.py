"""Transformers that lift sequences of 2D keypoints to 3D joints."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import Stack, layers
from jaxcxr.models.pose import streaming
from jaxcxr.models.pose.inputs_outputs import frame_features, options_of, read_frames
from jaxcxr.models.pose.streaming import Cached
from jaxcxr.models.sequence import scanned, transformer


class Backbone(nn.Module):
    """Backbone of transformers over frames; fields as in `PoseTemporal`."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    dropout: float
    attention_dropout: float
    drop_path: float
    attention: str | tuple[str, ...]
    positions: str
    max_length: int
    causal: bool
    latency: int
    norm: str
    remat: str
    decode: bool
    dtype: Any

    def blocks(
        self, kinds: str | tuple[str, ...], stack: int, frames: bool = True, **layout: Any
    ) -> list[Callable[..., nn.Module]]:
        """Returns the functions that make each block from its drop-path rate and name."""
        makers = layers(
            kinds,
            self.depth,
            heads=self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            **layout,
        )
        if frames and self.decode:
            makers = [
                streaming.stepwise(make, 0 if index else self.latency)
                for index, make in enumerate(makers)
            ]
        return [
            functools.partial(
                transformer.encoder_block("none" if self.decode else self.remat),
                make,
                self.mlp_ratio,
                self.dropout,
                dtype=self.dtype,
                norm=self.norm,
                layers=stack,
            )
            for make in makers
        ]

    def positioned(self, x: jax.Array, train: bool) -> jax.Array:
        """Tokens `[..., frames, dim]` with their positions."""
        std = transformer.position_std(self.norm, self.dim)
        options = (self.positions, self.max_length, std, self.decode)
        x = streaming.Positions(*options, name="positions")(x)
        return nn.Dropout(self.dropout)(x, deterministic=not train)

    def masks(self, mask: jax.Array | None, frames: int) -> tuple[jax.Array | None, ...]:
        """Masks of the first block over frames, and of all after it.

        Each is bool `[batch or 1, 1, frames or 1, frames]`, or None where all is seen.
        """
        if self.latency < 0 or (self.latency and not self.causal):
            raise UserError(
                f"latency={self.latency} and causal={self.causal}: only a causal model has a "
                "latency, of 0 frames or more."
            )
        keys = None if mask is None else transformer.key_mask(mask)
        if self.decode:
            if self.is_initializing():
                return None, None
            # The blocks after the first begin with tokens of frames before the first one.
            late = jnp.arange(self.latency + 1) >= self.latency
            return keys if self.latency else None, late[None, None, None] if self.latency else None
        if not self.causal:
            return keys, keys
        table = jnp.ones((frames, frames), bool)
        past = (jnp.tril(table, self.latency)[None, None], jnp.tril(table)[None, None])
        return past if keys is None else tuple(keys & seen for seen in past)

    def over_frames(
        self,
        index: int,
        make: Callable[..., nn.Module],
        x: jax.Array,
        masks: tuple[jax.Array | None, ...],
        weights: jax.Array | None,
        *,
        rate: float,
        name: str,
        train: bool,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Runs the `index`-th block over frames; returns its output and the weights it shares."""
        ahead = self.decode and self.latency and not index
        if ahead:
            x = streaming.Latest(self.latency + 1, name=f"latest_{name}")(x)
        block = make(drop_path=rate, name=name)
        x, weights = transformer.run_block(block, x, masks[min(index, 1)], train, weights)
        return x[:, :1] if ahead and not self.is_initializing() else x, weights

    def normed(self, x: jax.Array) -> jax.Array:
        """The output of the stack, normalised where the blocks normalise before their branches."""
        return transformer.LayerNorm(self.dtype, name="norm")(x) if self.norm == "pre" else x


class TemporalBackbone(Backbone):
    """Encoder over frame tokens; arguments as in `PoseTemporal`."""

    scan: bool = False

    @nn.compact
    def __call__(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns frame features `[batch, frames, dim]`."""
        x = frame_features(keypoints, mask).astype(self.dtype)
        x = self.positioned(nn.Dense(self.dim, dtype=self.dtype, name="embed")(x), train)
        masks = self.masks(mask, keypoints.shape[1])
        if self.scan:
            return self.normed(self._scanned(x, masks, train))
        makers = self.blocks(self.attention, self.depth)
        rates, weights = transformer.drop_path_rates(self.drop_path, self.depth), None
        for index, (make, rate) in enumerate(zip(makers, rates, strict=True)):
            x, weights = self.over_frames(
                index, make, x, masks, weights, rate=rate, name=f"blocks_{index}", train=train
            )
        return self.normed(x)

    def _scanned(self, x: jax.Array, masks: tuple, train: bool) -> jax.Array:
        if self.latency:
            raise UserError("scan=True needs equal blocks, and with a latency the first differs.")
        options = {"heads": self.heads, "dropout": self.attention_dropout, "dtype": self.dtype}
        return scanned.run(
            layers(self.attention, self.depth, **options), x, masks[0], train=train,
            drop_path=self.drop_path, remat=self.remat, mlp_ratio=self.mlp_ratio,
            dropout=self.dropout, dtype=self.dtype, norm=self.norm,
        )


class PoseTemporal(nn.Module):
    """Temporal transformer lifter: one token holds all joints of a frame.

    With root-relative targets the root of the output is near 0, not 0.

    Arguments:
      dim: width of the tokens.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden units of the MLPs over `dim`.
      dropout: rate after the positions, on the attention outputs and in the MLPs.
      attention_dropout: rate on the attention weights.
      drop_path: stochastic-depth rate of the last block; rises linearly from 0.
      attention: kind of attention, or the kinds that the blocks take in turn; see
        `attention.layers`.
      positions: "sinusoidal" (any number of frames), "learned" (up to `max_length`) or "none"
        (for attention that tells distances itself).
      max_length: rows of the learned positions.
      causal: a frame sees no later frame, so that the model can run on a stream.
      latency: frames after its own that a frame of a causal model sees, in the first block; the
        weights are those of any other latency.
      norm: "pre", "post" or "tfixup"; see `transformer.Block`.
      remat: "none", "full", "dots" or "weight_dots"; see `layers.rematerialized`.
      scan: compile the blocks, which must be equal, as one loop; see `scanned`.
      uncertainty: also a log variance for each joint.
      trajectory: also where the root stands; see `inputs_outputs.Outputs.read` for both.
      decode: each call gets the next frame; see `streaming`, which sets it.
      dtype: of the computation; parameters, LayerNorm, softmax and output are float32.
    """

    stream: ClassVar = Cached

    dim: int = 256
    depth: int = 6
    heads: int = 8
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.1
    attention: str | tuple[str, ...] = "mha"
    positions: str = "sinusoidal"
    max_length: int = 243
    causal: bool = False
    latency: int = 0
    norm: str = "pre"
    remat: str = "none"
    scan: bool = False
    uncertainty: bool = False
    trajectory: bool = False
    decode: bool = False
    dtype: Any = jnp.float32

    @nn.nowrap
    def stacks(self, shape: tuple[int, ...]) -> tuple[Stack, ...]:
        """The blocks over the frames of keypoints of shape `(frames, joints, 3)`."""
        return (Stack("blocks", "attention", self.depth, shape[0]),)

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """Lifts sequences.

        Arguments:
          keypoints: float `[batch, frames, joints, 3]` as (x, y, confidence), x in [-1, 1].
          mask: bool `[batch, frames]`, False at padded frames; these change no other frame, and
            the output there has no meaning.
          train: applies dropout and stochastic depth (needs the rng `dropout`).

        Returns:
          float32 `[batch, frames, joints, 3]` in metres; with `uncertainty` or `trajectory` a
          dict, see `inputs_outputs.Outputs.read`.
        """
        backbone = TemporalBackbone(**options_of(self, TemporalBackbone), name="backbone")
        return read_frames(self, backbone(keypoints, mask, train), keypoints.shape[2])
