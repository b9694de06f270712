"""Residual networks in torchvision's geometry (He et al. 2016; stride in the 3x3, "v1.5")."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import rematerialized, tap
from jaxcxr.models.vision.classifier import ClassifierHead, colored
from jaxcxr.models.vision.convolution import convolve, stem_pool
from jaxcxr.models.weights import layout_tables

# He et al. 2015 (arXiv:1502.01852), the initialisation of torchvision's ResNets.
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Size and stride of the first convolution.
_STEMS = {"imagenet": (7, 2), "stride2": (7, 2), "stride1": (7, 1), "small": (3, 1)}


class _Layers(nn.Module):
    """Convolution and BatchNorm as every part of the network uses them."""

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.nowrap
    def conv(self, x: jax.Array, features: int, size: int, stride: int, name: str) -> jax.Array:
        """Convolution without bias; torch's symmetric padding, which "SAME" is not at stride 2."""
        return nn.Conv(
            features,
            (size, size),
            (stride, stride),
            padding=[(size // 2, size // 2)] * 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_CONV_INIT,
            conv_general_dilated=convolve,
            name=name,
        )(x)

    @nn.nowrap
    def norm(self, x: jax.Array, name: str, train: bool, *, zero: bool = False) -> jax.Array:
        """BatchNorm computed in float32 whatever the compute dtype."""
        layer = nn.BatchNorm(
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            axis_name=self.axis_name,
            scale_init=nn.initializers.zeros if zero else nn.initializers.ones,
            name=name,
        )
        return layer(x.astype(jnp.float32), use_running_average=not train).astype(self.dtype)


class Block(_Layers):
    """One residual block; `bottleneck` is 1x1, 3x3, 1x1 (x4 wide), otherwise 3x3, 3x3.

    Arguments:
      features: channels of the 3x3 convolution.
      stride: of the (first) 3x3 convolution and of the shortcut.
      bottleneck: which of the two forms.
      zero_init: starts the last BatchNorm scale at 0, so that the block starts as the identity.
    """

    features: int = 64
    stride: int = 1
    bottleneck: bool = True
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `[batch, height / stride, width / stride, features * (4 or 1)]`."""
        out = 4 * self.features if self.bottleneck else self.features
        # (channels, kernel size, stride) of each convolution on the residual branch.
        branch = (
            [(self.features, 1, 1), (self.features, 3, self.stride), (out, 1, 1)]
            if self.bottleneck
            else [(self.features, 3, self.stride), (out, 3, 1)]
        )
        y = x
        for index, (channels, size, stride) in enumerate(branch, 1):
            last = index == len(branch)
            y = self.conv(y, channels, size, stride, f"conv{index}")
            y = self.norm(y, f"bn{index}", train, zero=last and self.zero_init)
            y = y if last else nn.relu(y)
        if x.shape != y.shape:
            x = self.conv(x, out, 1, self.stride, "downsample_conv")
            x = self.norm(x, "downsample_bn", train)
        return nn.relu(x + y)


class ResNetBackbone(_Layers):
    """The convolutional part with its global average pool; arguments as in `ResNet`.

    Layers carry torchvision's names with the block index after an underscore (`layer4_0/conv1`),
    so the pattern `backbone/layer4` picks the last stage.
    """

    stages: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    width: int = 64
    stem: str = "imagenet"
    zero_init: bool = False
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Pools images `[batch, height, width, 1 or 3]` to features `[batch, channels]`."""
        x = colored(x, self.colors)
        if self.stem not in _STEMS:
            raise UserError(
                f"stem={self.stem!r} is not a ResNet stem; use {', '.join(map(repr, _STEMS))}."
            )
        size, stride = _STEMS[self.stem]
        x = nn.relu(self.norm(self.conv(x, self.width, size, stride, "conv1"), "bn1", train))
        if self.stem != "small":
            x = stem_pool(x)
        block = rematerialized(Block, self.remat, static_argnums=(2,))
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                x = block(
                    features=self.width * 2**stage,
                    stride=2 if stage and not index else 1,
                    bottleneck=self.bottleneck,
                    zero_init=self.zero_init,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
            x = tap(self, f"stage{stage + 1}", x)
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)


class ResNet(nn.Module):
    """ResNet classifier of radiographs.

    Arguments:
      classes: number of logits.
      stages: blocks in each stage.
      bottleneck: block form, see `Block`.
      width: channels of the first stage.
      stem: "imagenet" or "stride2" (7x7 stride 2, max pool), "stride1" (7x7 stride 1, max pool, as
        MONAI's by default), or "small" (3x3 stride 1, no pool) for small images.
      head_width: hidden units of the head, 0 for a single Dense.
      head_dropout: dropout rate of the head.
      zero_init: last BatchNorm scale of each block starts at 0 (Goyal et al. 2017, section 5.1).
      remat: "none", "dots" or "full" (least memory, about a third more time); see
        `layers.rematerialized`.
      colors: channels of the first layer, see `classifier.colored`.
      dtype: of the computation; parameters, BatchNorm and logits are float32.
      axis_name: mapped axis over which BatchNorm averages its statistics (pmap only; under jit
        with a sharded batch the statistics are already those of the whole batch).
    """

    layouts: ClassVar = layout_tables.RESNET

    classes: int = 15
    stages: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    width: int = 64
    stem: str = "imagenet"
    head_width: int = 256
    head_dropout: float = 0.25
    zero_init: bool = False
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Makes the two groups of parameters, `backbone` and `head`."""
        self.backbone = ResNetBackbone(
            stages=tuple(self.stages),
            bottleneck=self.bottleneck,
            width=self.width,
            stem=self.stem,
            zero_init=self.zero_init,
            remat=self.remat,
            colors=self.colors,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        self.head = ClassifierHead(
            self.classes, width=self.head_width, dropout=self.head_dropout, dtype=self.dtype
        )

    @nn.nowrap
    def depths(self) -> tuple[str, ...]:
        """Patterns of the parameters of each layer of the backbone, from the image on."""
        stages = (rf"^backbone/layer{i}_" for i, _ in enumerate(self.stages, 1))
        return (r"^backbone/(conv1|bn1)/", *stages)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]`.

        Arguments:
          images: float `[batch, height, width, 1 or 3]`, normalised as the weights expect.
          train: uses batch statistics and dropout (needs the rng `dropout`, `batch_stats` mutable).
        """
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


resnet18 = functools.partial(ResNet, stages=(2, 2, 2, 2), bottleneck=False)
resnet26 = functools.partial(ResNet, stages=(2, 2, 2, 2))
resnet50 = functools.partial(ResNet, stages=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, stages=(3, 4, 23, 3))
