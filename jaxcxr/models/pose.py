"""Transformers that lift sequences of 2D keypoints to 3D joints."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models import transformer
from jaxcxr.models.attention.layers import layers, shares
from jaxcxr.models.keypoints import standardize

# The features before the head have unit variance and joints lie decimetres from the root: an
# ordinary initialisation begins metres away, and a short run is over before the large random
# weights are unlearnt (motion phantoms, 1,000 steps: 52 mm instead of 36). This begins at 1 cm.
_HEAD_INIT = nn.initializers.normal(1e-3)

# Parent of each joint in the order of Human3.6M, -1 for the root.
_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


def _time_mask(mask: jax.Array | None, causal: bool, frames: int) -> jax.Array | None:
    """Attention mask over frames, `[batch or 1, 1, frames or 1, frames]`, or None."""
    keys = None if mask is None else transformer.key_mask(mask)
    if not causal:
        return keys
    past = transformer.causal_mask(frames)
    return past if keys is None else keys & past


class TemporalBackbone(nn.Module):
    """Encoder over frame tokens; arguments as in `PoseTemporal`."""

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
    norm: str
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns frame features `[batch, frames, dim]`."""
        batch, frames = keypoints.shape[:2]
        pose, place = standardize(keypoints, mask)
        x = jnp.concatenate([pose.reshape(batch, frames, -1), place], -1).astype(self.dtype)
        x = nn.Dense(self.dim, dtype=self.dtype, name="embed")(x)
        std = transformer.position_std(self.norm, self.dim)
        x = transformer.TimePositions(self.positions, self.max_length, std, name="positions")(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        makers = layers(
            self.attention,
            self.depth,
            heads=self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
        )
        seen = _time_mask(mask, self.causal, frames)
        rates, weights = transformer.drop_path_rates(self.drop_path, self.depth), None
        for index, (make, rate) in enumerate(zip(makers, rates, strict=True)):
            block = transformer.encoder_block(self.remat, shares(make))(
                make,
                self.mlp_ratio,
                self.dropout,
                rate,
                self.dtype,
                self.norm,
                self.depth,
                name=f"blocks_{index}",
            )
            x, weights = transformer.run_block(block, x, seen, train, weights)
        return transformer.LayerNorm(self.dtype, name="norm")(x) if self.norm == "pre" else x


class PoseTemporal(nn.Module):
    """Temporal transformer lifter: one token holds all joints of a frame.

    The output is what the target is: with root-relative targets the root of the output is only
    near 0, and subtracting the predicted root is the caller's choice.

    Arguments:
      dim: width of the tokens.
      depth: number of blocks.
      heads: attention heads.
      mlp_ratio: hidden units of the MLPs over `dim`.
      dropout: rate after the positions, on the attention outputs and in the MLPs.
      attention_dropout: rate on the attention weights.
      drop_path: stochastic-depth rate of the last block; rises linearly from 0.
      attention: kind of attention, or the kinds that the blocks take in turn; see
        `attention.layers.layers`.
      positions: "sinusoidal" (any number of frames) or "learned" (up to `max_length`).
      max_length: rows of the learned positions.
      causal: a frame sees no later frame, so that the model can run on a stream.
      norm: "pre", "post" or "tfixup"; see `transformer.Block`.
      remat: recompute the blocks in the backward pass.
      dtype: of the computation; parameters, LayerNorm, softmax and output are float32.
    """

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
    norm: str = "pre"
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Lifts sequences.

        Arguments:
          keypoints: float `[batch, frames, joints, 3]` as (x, y, confidence), x in [-1, 1].
          mask: bool `[batch, frames]`, False at padded frames; these change no other frame, and
            the output there has no meaning.
          train: applies dropout and stochastic depth (needs the rng `dropout`).

        Returns:
          float32 `[batch, frames, joints, 3]` in metres.
        """
        batch, frames, joints, _ = keypoints.shape
        x = TemporalBackbone(
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            drop_path=self.drop_path,
            attention=self.attention,
            positions=self.positions,
            max_length=self.max_length,
            causal=self.causal,
            norm=self.norm,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(keypoints, mask, train)
        x = nn.Dense(joints * 3, dtype=self.dtype, kernel_init=_HEAD_INIT, name="head")(x)
        return x.reshape(batch, frames, joints, 3).astype(jnp.float32)


class SpatioTemporalBackbone(nn.Module):
    """Blocks over joints and over frames in turn; arguments as in `PoseSpatioTemporal`."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    dropout: float
    attention_dropout: float
    drop_path: float
    attention: str | tuple[str, ...]
    joint_attention: str | tuple[str, ...]
    parents: tuple[int, ...]
    positions: str
    max_length: int
    causal: bool
    norm: str
    remat: bool
    dtype: Any

    def _layers(
        self, kinds: str | tuple[str, ...], **layout: Any
    ) -> list[Callable[..., nn.Module]]:
        """What makes each block of one of the two directions, from its drop-path rate and name."""
        makers = layers(
            kinds,
            self.depth,
            heads=self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            **layout,
        )
        return [
            functools.partial(
                transformer.encoder_block(self.remat, shares(make)),
                make,
                self.mlp_ratio,
                self.dropout,
                dtype=self.dtype,
                norm=self.norm,
                # Both directions are blocks of one residual stack.
                layers=2 * self.depth,
            )
            for make in makers
        ]

    @nn.compact
    def __call__(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns joint features `[batch, frames, joints, dim]`."""
        batch, frames, joints, _ = keypoints.shape
        pose, place = standardize(keypoints, mask)
        x = jnp.concatenate([pose, jnp.broadcast_to(place[:, :, None], pose.shape)], -1)
        x = nn.Dense(self.dim, dtype=self.dtype, name="embed")(x.astype(self.dtype))
        # As large as the embedded keypoints: at 0.02 a token hardly says which joint it is.
        init = nn.initializers.normal(0.5)
        names = self.param("joint_embed", init, (joints, self.dim), jnp.float32)
        x = (x + names.astype(self.dtype)).swapaxes(1, 2)
        std = transformer.position_std(self.norm, self.dim)
        x = transformer.TimePositions(self.positions, self.max_length, std, name="positions")(x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train).swapaxes(1, 2)
        seen = _time_mask(mask, self.causal, frames)
        if seen is not None and seen.shape[0] > 1:
            seen = jnp.repeat(seen, joints, axis=0)
        over_joints = self._layers(self.joint_attention, parents=tuple(self.parents))
        over_frames = self._layers(self.attention)
        joint_weights = frame_weights = None
        for index, rate in enumerate(transformer.drop_path_rates(self.drop_path, self.depth)):
            x = x.reshape(batch * frames, joints, self.dim)
            block = over_joints[index](drop_path=rate, name=f"joints_{index}")
            x, joint_weights = transformer.run_block(block, x, None, train, joint_weights)
            x = x.reshape(batch, frames, joints, self.dim)
            x = x.swapaxes(1, 2).reshape(batch * joints, frames, self.dim)
            block = over_frames[index](drop_path=rate, name=f"frames_{index}")
            x, frame_weights = transformer.run_block(block, x, seen, train, frame_weights)
            x = x.reshape(batch, joints, frames, self.dim).swapaxes(1, 2)
        return transformer.LayerNorm(self.dtype, name="norm")(x) if self.norm == "pre" else x


class PoseSpatioTemporal(nn.Module):
    """Spatio-temporal transformer lifter: one token for each joint of each frame.

    Attention over the joints of a frame alternates with attention over the frames of a joint (the
    idea of MixSTE, Zhang et al. 2022). The output is what the target is: subtracting the predicted
    root is the caller's choice.

    Arguments:
      dim: width of the tokens.
      depth: number of pairs of blocks (joints, then frames).
      heads: attention heads.
      mlp_ratio: hidden units of the MLPs over `dim`.
      dropout: rate after the positions, on the attention outputs and in the MLPs.
      attention_dropout: rate on the attention weights.
      drop_path: stochastic-depth rate of the last pair; rises linearly from 0.
      attention: kind of attention over frames, or the kinds that the pairs take in turn; see
        `attention.layers.layers`.
      joint_attention: kind or kinds of attention over joints.
      parents: index of each joint's parent, -1 for the root, for attention over joints that asks
        how many bones lie between them; by default those of Human3.6M.
      positions: "sinusoidal" (any number of frames) or "learned" (up to `max_length`).
      max_length: rows of the learned positions.
      causal: a frame sees no later frame, so that the model can run on a stream.
      norm: "pre", "post" or "tfixup"; see `transformer.Block`.
      remat: recompute the blocks in the backward pass.
      dtype: of the computation; parameters, LayerNorm, softmax and output are float32.
    """

    dim: int = 128
    depth: int = 4
    heads: int = 8
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.1
    attention: str | tuple[str, ...] = "mha"
    joint_attention: str | tuple[str, ...] = "mha"
    parents: tuple[int, ...] = _PARENTS
    positions: str = "sinusoidal"
    max_length: int = 243
    causal: bool = False
    norm: str = "pre"
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`."""
        x = SpatioTemporalBackbone(
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            drop_path=self.drop_path,
            attention=self.attention,
            joint_attention=self.joint_attention,
            parents=self.parents,
            positions=self.positions,
            max_length=self.max_length,
            causal=self.causal,
            norm=self.norm,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(keypoints, mask, train)
        x = nn.Dense(3, dtype=self.dtype, kernel_init=_HEAD_INIT, name="head")(x)
        return x.astype(jnp.float32)
