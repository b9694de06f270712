"""The transformer lifter of two streams: joints before frames, and frames before joints."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.models.attention.stacks import Stack
from jaxcxr.models.pose.joint_transformers import (
    PARENTS,
    JointsBackbone,
    joint_stacks,
    lift_joints,
)
from jaxcxr.models.pose.streaming import Cached
from jaxcxr.models.sequence import transformer


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


class PoseDualStream(nn.Module):
    """Transformer lifter of two streams with learned fusion (DSTformer, Zhu et al., ICCV 2023).

    Layer i computes F_st = T1(S1(F)) and F_ts = S2(T2(F)), S and T being blocks over the joints
    of a frame and over the frames of a joint, each with weights of its own, and goes on with
    a_st F_st + a_ts F_ts, where (a_st, a_ts) = softmax(W [F_st, F_ts]) for every token.

    Arguments:
      depth: number of layers, each of four blocks.
      attention: kind of attention over frames, or the kinds that the layers take in turn, in both
        streams; see `attention.layers.layers`.
      The others are as in `PoseSpatioTemporal`.
    """

    stream: ClassVar = Cached

    dim: int = 128
    depth: int = 3
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
        """The blocks of both streams."""
        return (*joint_stacks(self, shape[0]), *joint_stacks(self, shape[0], "other_"))

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`."""
        return lift_joints(self, DualStreamBackbone, keypoints, mask, train)
