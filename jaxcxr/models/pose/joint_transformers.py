"""Transformers that lift with a token for each joint of each frame."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.attention import Stack
from jaxcxr.models.pose.inputs_outputs import HEAD_INIT, Outputs, options_of, standardize
from jaxcxr.models.pose.streaming import Cached
from jaxcxr.models.pose.transformers import Backbone
from jaxcxr.models.sequence import transformer

# Parent of each joint in the order of Human3.6M, -1 for the root.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


class JointsBackbone(Backbone):
    """Backbone of transformers over joint tokens; fields as in `PoseSpatioTemporal`."""

    joint_attention: str | tuple[str, ...]
    parents: tuple[int, ...]

    def tokens(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """A token for each joint of each frame, `[batch, frames, joints, dim]`."""
        pose, place = standardize(keypoints, mask)
        x = jnp.concatenate([pose, jnp.broadcast_to(place[:, :, None], pose.shape)], -1)
        x = nn.Dense(self.dim, dtype=self.dtype, name="embed")(x.astype(self.dtype))
        # As large as the embedded keypoints: at 0.02 a token hardly says which joint it is.
        init = nn.initializers.normal(0.5)
        names = self.param("joint_embed", init, (keypoints.shape[2], self.dim), jnp.float32)
        x = (x + names.astype(self.dtype)).swapaxes(1, 2)
        return self.positioned(x, train).swapaxes(1, 2)

    def joint_masks(self, mask: jax.Array | None, frames: int, joints: int) -> tuple:
        """The masks over frames, for a batch of joints."""
        return tuple(
            seen if seen is None or seen.shape[0] == 1 else jnp.repeat(seen, joints, axis=0)
            for seen in self.masks(mask, frames)
        )

    def along_joints(
        self, make: Callable[..., nn.Module], x: jax.Array, weights: Any, *, rate: float,
        name: str, train: bool,
    ) -> tuple[jax.Array, Any]:
        """A block over the joints of each frame; `x` `[batch, frames, joints, dim]` and back."""
        batch, frames, joints, dim = x.shape
        x = x.reshape(batch * frames, joints, dim)
        block = make(drop_path=rate, name=name)
        x, weights = transformer.run_block(block, x, None, train, weights)
        return x.reshape(batch, frames, joints, dim), weights

    def along_frames(
        self, index: int, make: Callable[..., nn.Module], x: jax.Array, masks: tuple,
        weights: Any, **options: Any,
    ) -> tuple[jax.Array, Any]:
        """A block over the frames of each joint; `x` `[batch, frames, joints, dim]` and back."""
        batch, _, joints, dim = x.shape
        x = x.swapaxes(1, 2).reshape(batch * joints, -1, dim)
        x, weights = self.over_frames(index, make, x, masks, weights, **options)
        return x.reshape(batch, joints, -1, dim).swapaxes(1, 2), weights


class SpatioTemporalBackbone(JointsBackbone):
    """Blocks over joints and over frames in turn; arguments as in `PoseSpatioTemporal`."""

    @nn.compact
    def __call__(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns joint features `[batch, frames, joints, dim]`."""
        x = self.tokens(keypoints, mask, train)
        masks = self.joint_masks(mask, *keypoints.shape[1:3])
        # Both directions are blocks of one residual stack.
        of_joints = self.blocks(
            self.joint_attention, 2 * self.depth, frames=False, parents=tuple(self.parents)
        )
        of_frames = self.blocks(self.attention, 2 * self.depth)
        joint_weights = frame_weights = None
        for index, rate in enumerate(transformer.drop_path_rates(self.drop_path, self.depth)):
            x, joint_weights = self.along_joints(
                of_joints[index], x, joint_weights, rate=rate, name=f"joints_{index}", train=train
            )
            x, frame_weights = self.along_frames(
                index, of_frames[index], x, masks, frame_weights,
                rate=rate, name=f"frames_{index}", train=train,
            )
        return self.normed(x)


class DualStreamBackbone(JointsBackbone):
    """Arguments as in `PoseDualStream`."""

    @nn.compact
    def __call__(self, keypoints: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """Returns joint features `[batch, frames, joints, dim]`."""
        x = self.tokens(keypoints, mask, train)
        masks = self.joint_masks(mask, *keypoints.shape[1:3])
        parents = tuple(self.parents)
        of_joints = self.blocks(
            self.joint_attention, 2 * self.depth, frames=False, parents=parents
        )
        of_frames = self.blocks(self.attention, 2 * self.depth)
        shared: dict[str, Any] = {}

        def joints(index: int, x: jax.Array, rate: float, stream: str) -> jax.Array:
            name = f"{stream}joints"
            x, shared[name] = self.along_joints(
                of_joints[index], x, shared.get(name), rate=rate, name=f"{name}_{index}",
                train=train,
            )
            return x

        def frames(index: int, x: jax.Array, rate: float, stream: str) -> jax.Array:
            name = f"{stream}frames"
            x, shared[name] = self.along_frames(
                index, of_frames[index], x, masks, shared.get(name),
                rate=rate, name=f"{name}_{index}", train=train,
            )
            return x

        for index, rate in enumerate(transformer.drop_path_rates(self.drop_path, self.depth)):
            first = frames(index, joints(index, x, rate, ""), rate, "")
            second = joints(index, frames(index, x, rate, "other_"), rate, "other_")
            # Softmax of zeros: an untrained layer takes the mean of both.
            fuse = nn.Dense(
                2, dtype=jnp.float32, kernel_init=nn.initializers.zeros, name=f"fuse_{index}"
            )
            both = jnp.concatenate([first, second], -1).astype(jnp.float32)
            share = jax.nn.softmax(fuse(both)).astype(self.dtype)
            x = share[..., :1] * first + share[..., 1:] * second
        return self.normed(x)


class PoseSpatioTemporal(nn.Module):
    """Spatio-temporal transformer lifter: one token for each joint of each frame.

    Attention over the joints of a frame alternates with attention over the frames of a joint (the
    idea of MixSTE, Zhang et al. 2022).

    Arguments:
      depth: number of pairs of blocks (joints, then frames).
      attention: kind of attention over frames, or the kinds that the pairs take in turn; see
        `attention.layers`.
      joint_attention: kind or kinds of attention over joints.
      parents: index of each joint's parent, -1 for the root, for attention over joints that asks
        how many bones lie between them; by default those of Human3.6M.
      The others are as in `PoseTemporal`.
    """

    stream: ClassVar = Cached
    backbone_class: ClassVar[type[JointsBackbone]] = SpatioTemporalBackbone
    # Of the names of the blocks, one for each stream.
    prefixes: ClassVar[tuple[str, ...]] = ("",)

    dim: int = 128
    depth: int = 4
    heads: int = 8
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.1
    attention: str | tuple[str, ...] = "mha"
    joint_attention: str | tuple[str, ...] = "mha"
    parents: tuple[int, ...] = PARENTS
    positions: str = "sinusoidal"
    max_length: int = 243
    causal: bool = False
    latency: int = 0
    norm: str = "pre"
    remat: str = "none"
    uncertainty: bool = False
    trajectory: bool = False
    decode: bool = False
    dtype: Any = jnp.float32

    @nn.nowrap
    def stacks(self, shape: tuple[int, ...]) -> tuple[Stack, ...]:
        """The blocks over the frames of a joint and over the joints of a frame, by stream."""
        parents = tuple(self.parents)
        return tuple(
            stack for prefix in self.prefixes for stack in (
                Stack(f"{prefix}frames", "attention", self.depth, shape[0]),
                Stack(f"{prefix}joints", "joint_attention", self.depth, len(parents),
                      {"parents": parents}),
            )
        )

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`."""
        kind = self.backbone_class
        backbone = kind(**options_of(self, kind), name="backbone")
        outputs = Outputs(keypoints.shape[2], self.uncertainty, self.trajectory)
        head = nn.Dense(outputs.joint_width, dtype=self.dtype, kernel_init=HEAD_INIT, name="head")
        return outputs.of_joints(head(backbone(keypoints, mask, train)))


class PoseDualStream(PoseSpatioTemporal):
    """Transformer lifter of two streams with learned fusion (DSTformer, Zhu et al., ICCV 2023).

    Layer i computes F_st = T1(S1(F)) and F_ts = S2(T2(F)), S and T being blocks over the joints
    of a frame and over the frames of a joint, each with weights of its own, and goes on with
    a_st F_st + a_ts F_ts, where (a_st, a_ts) = softmax(W [F_st, F_ts]) for every token.

    Arguments:
      depth: number of layers, each of four blocks.
      attention: kind of attention over frames, or the kinds that the layers take in turn, in both
        streams; see `attention.layers`.
      The others are as in `PoseSpatioTemporal`.
    """

    backbone_class: ClassVar = DualStreamBackbone
    prefixes: ClassVar = ("", "other_")

    depth: int = 3
