"""Lifters without attention over time: temporal convolutions, and one frame at a time."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.pose.inputs_outputs import frame_features, options_of, read_frames
from jaxcxr.models.pose.streaming import Windowed

_DENSE_INIT = nn.initializers.he_normal()
INPUTS = ("screen", "standardized")


def _features(keypoints: jax.Array, mask: jax.Array | None, inputs: str) -> jax.Array:
    """Features of each frame, float32 `[batch, frames, features]`."""
    batch, frames = keypoints.shape[:2]
    if inputs not in INPUTS:
        raise UserError(f"inputs={inputs!r} is not known; use {' or '.join(INPUTS)}.")
    if inputs == "standardized":
        return frame_features(keypoints, mask)
    seen = keypoints[..., 2:] > 0
    if mask is not None:
        seen = seen & mask[:, :, None, None]
    places = jnp.where(seen, keypoints[..., :2], 0.0)
    return places.astype(jnp.float32).reshape(batch, frames, -1)


class _Normed(nn.Module):
    """BatchNorm over the frames that are there, ReLU, dropout."""

    dropout: float
    momentum: float
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, there: jax.Array | None, train: bool) -> jax.Array:
        norm = nn.BatchNorm(
            use_running_average=not train, momentum=self.momentum, epsilon=1e-5,
            axis_name=self.axis_name, dtype=jnp.float32, name="norm",
        )
        mask = None if there is None else there[..., None]
        x = norm(x.astype(jnp.float32), mask=mask).astype(self.dtype)
        return nn.Dropout(self.dropout)(nn.relu(x), deterministic=not train)


class _Taps(nn.Module):
    """Convolution over frames whose taps the caller has put side by side, without a bias."""

    features: int
    taps: int
    dtype: Any

    @nn.compact
    def __call__(self, parts: list[jax.Array]) -> jax.Array:
        width = parts[0].shape[-1]
        shape = (self.taps, width, self.features)
        kernel = self.param("kernel", _DENSE_INIT, shape, jnp.float32)
        # One product: XLA's convolutions along one axis are several times slower on a CPU.
        joined = jnp.concatenate(parts, -1)
        return joined @ kernel.reshape(-1, self.features).astype(self.dtype)


class ConvolutionBackbone(nn.Module):
    """Arguments as in `PoseConvolution`."""

    channels: int
    widths: tuple[int, ...]
    dropout: float
    momentum: float
    causal: bool
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, there: jax.Array | None, train: bool, strided: bool
    ) -> jax.Array:
        """Returns `[batch, frames - receptive field + 1, channels]`; one frame where strided."""
        gap = 1
        for index, width in enumerate(self.widths):
            before = x
            parts, kept, there_after = self._cut(x, there, width, gap, strided)
            x = _Taps(self.channels, width, self.dtype, name=f"convolution_{index}")(parts)
            there = there_after
            options = (self.dropout, self.momentum, self.axis_name, self.dtype)
            x = _Normed(*options, name=f"after_{index}")(x, there, train)
            if index:
                x = _Taps(self.channels, 1, self.dtype, name=f"mix_{index}")([x])
                x = _Normed(*options, name=f"mixed_{index}")(x, there, train)
                x = kept(before) + x
            gap *= width
        return x

    def _cut(self, x, there, width: int, gap: int, strided: bool):
        """The taps of each output, a function for the input beside each output, and its mask."""
        middle = width - 1 if self.causal else width // 2
        if strided:
            slices = [slice(tap, None, width) for tap in range(width)]
        else:
            left = x.shape[1] - (width - 1) * gap
            slices = [slice(tap * gap, tap * gap + left) for tap in range(width)]
        # A window is there where its last frame is: padding stands after all others.
        mask = None if there is None else there[:, slices[-1]]
        return [x[:, s] for s in slices], lambda y: y[:, slices[middle]], mask


class PoseConvolution(nn.Module):
    """Temporal convolution lifter: residual blocks of dilated convolutions over frames.

    The geometry of VideoPose3D (Pavllo et al., CVPR 2019): with 1,024 channels, 17 joints and
    screen coordinates, 8,555,571, 12,753,971 and 16,952,371 parameters for 27, 81 and 243 frames.
    Every frame is lifted from a window about it (or before it, where causal); at the ends of a
    sequence the first and the last frame are repeated.

    Arguments:
      channels: width of the blocks.
      widths: taps of each convolution, odd; the receptive field is their product.
      dropout: rate after each convolution.
      momentum: of BatchNorm's running statistics.
      inputs: "screen" (x and y, 0 where unseen) or "standardized" (also the confidence, see
        `inputs_outputs.standardize`).
      causal: a frame is lifted from itself and those before it.
      uncertainty, trajectory: as in `PoseRecurrent`.
      axis_name: mapped axis over which BatchNorm averages.
      dtype: of the computation; parameters, normalisation and output are float32.
    """

    stream: ClassVar = Windowed
    of_window: ClassVar = {"strided": True}

    channels: int = 1024
    widths: tuple[int, ...] = (3, 3, 3)
    dropout: float = 0.25
    momentum: float = 0.9
    inputs: str = "screen"
    causal: bool = False
    uncertainty: bool = False
    trajectory: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def receptive_field(self) -> int:
        """Frames from which one is lifted."""
        return math.prod(self.widths)

    @nn.compact
    def __call__(
        self,
        keypoints: jax.Array,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        strided: bool = False,
    ) -> jax.Array:
        """Lifts sequences.

        Arguments:
          keypoints: float `[batch, frames, joints, 3]` as (x, y, confidence), x in [-1, 1].
          mask: bool `[batch, frames]`, False at padded frames, which stand after all others;
            they change no other frame, and the output there has no meaning.
          train: applies dropout, and BatchNorm by the batch (needs the rng `dropout`).
          strided: lifts the one frame of a window of `receptive_field` frames, with strided
            convolutions that compute nothing else.

        Returns:
          float32 `[batch, frames, joints, 3]` in metres, `[batch, 1, joints, 3]` where strided;
          with `uncertainty` or `trajectory` what `Outputs.of_frames` returns.
        """
        frames, joints = keypoints.shape[1:3]
        self._check(frames, strided)
        x, there = _features(keypoints, mask, self.inputs).astype(self.dtype), None
        if not strided:
            reach = self.receptive_field - 1
            x, there = _repeated(x, mask, reach if self.causal else reach // 2, reach)
        kind = ConvolutionBackbone
        backbone = kind(**options_of(self, kind), name="backbone")
        return read_frames(self, backbone(x, there, train, strided), joints)

    def _check(self, frames: int, strided: bool) -> None:
        if not self.widths or any(width < 1 or width % 2 == 0 for width in self.widths):
            raise UserError(f"widths={self.widths!r}: give odd numbers of taps, such as (3, 3, 3).")
        if strided and frames != self.receptive_field:
            raise UserError(
                f"a strided convolution lifts windows of {self.receptive_field} frames, not "
                f"{frames}; cut such windows."
            )


def _repeated(
    x: jax.Array, mask: jax.Array | None, before: int, both: int
) -> tuple[jax.Array, jax.Array | None]:
    """Repeats the first and the last frame that is there, and tells which frames are there."""
    frames = x.shape[1]
    index = jnp.arange(frames + both) - before
    if mask is None:
        return x[:, jnp.clip(index, 0, frames - 1)], None
    last = jnp.maximum(mask.sum(1, dtype=jnp.int32) - 1, 0)
    place = jnp.clip(index[None], 0, last[:, None])
    found = jnp.take_along_axis(x, place[:, :, None], axis=1)
    return found, index[None] <= last[:, None] + (both - before)


class FrameBackbone(nn.Module):
    """Arguments as in `PoseFrame`."""

    width: int
    blocks: int
    dropout: float
    momentum: float
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, there: jax.Array | None, train: bool) -> jax.Array:
        """Maps `[batch, frames, features]` to `[batch, frames, width]`."""
        count = 0

        def layer(x: jax.Array) -> jax.Array:
            nonlocal count
            dense = nn.Dense(self.width, dtype=self.dtype, kernel_init=_DENSE_INIT,
                             name=f"dense_{count}")
            options = (self.dropout, self.momentum, self.axis_name, self.dtype)
            x = _Normed(*options, name=f"after_{count}")(dense(x), there, train)
            count += 1
            return x

        x = layer(x)
        for _ in range(self.blocks):
            x = x + layer(layer(x))
        return x


class PoseFrame(nn.Module):
    """One frame at a time: two residual blocks of dense layers (Martinez et al., ICCV 2017).

    Arguments:
      width: of the layers.
      blocks: residual blocks of two layers.
      dropout: rate after each layer.
      The others are as in `PoseConvolution`.
    """

    stream: ClassVar = Windowed
    of_window: ClassVar[dict[str, Any]] = {}
    receptive_field: ClassVar = 1

    width: int = 1024
    blocks: int = 2
    dropout: float = 0.5
    momentum: float = 0.9
    inputs: str = "screen"
    uncertainty: bool = False
    trajectory: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Lifts each frame by itself; arguments and result as in `PoseConvolution`."""
        x = _features(keypoints, mask, self.inputs).astype(self.dtype)
        backbone = FrameBackbone(**options_of(self, FrameBackbone), name="backbone")
        return read_frames(self, backbone(x, mask, train), keypoints.shape[2])
