"""Densely connected networks in torchvision's geometry (Huang et al. 2017, arXiv:1608.06993)."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import rematerialized, tap
from jaxcxr.models.vision.classifier import ClassifierHead, colored
from jaxcxr.models.vision.convolution import convolve, stem_pool
from jaxcxr.models.weights.layout_tables import TORCHVISION_DENSENET

# He et al. 2015 (arXiv:1502.01852), the initialisation of torchvision's DenseNets.
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class _Layers(nn.Module):
    """Convolution and activation as every part of the network uses them."""

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.nowrap
    def conv(self, x: jax.Array, features: int, size: int, name: str, stride: int = 1) -> jax.Array:
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
    def norm_relu(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """BatchNorm and ReLU, computed in float32 whatever the compute dtype."""
        layer = nn.BatchNorm(
            momentum=0.9, epsilon=1e-5, dtype=jnp.float32, axis_name=self.axis_name, name=name
        )
        x = layer(x.astype(jnp.float32), use_running_average=not train)
        return nn.relu(x).astype(self.dtype)


class DenseLayer(_Layers):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3 over all features that precede it in its block.

    Arguments:
      growth: channels it adds.
      bn_size: channels of the 1x1 convolution over `growth`.
    """

    growth: int = 32
    bn_size: int = 4

    @nn.compact
    def __call__(self, features: tuple[jax.Array, ...], train: bool) -> jax.Array:
        """Returns `[batch, height, width, growth]` of maps `[batch, height, width, any]`."""
        # Joined here, so that with remat the parts are kept once and never their joins.
        x = jnp.concatenate(features, axis=-1)
        x = self.conv(self.norm_relu(x, "norm1", train), self.bn_size * self.growth, 1, "conv1")
        return self.conv(self.norm_relu(x, "norm2", train), self.growth, 3, "conv2")


class Transition(_Layers):
    """BatchNorm, ReLU, 1x1 to half the channels, 2x2 average pool."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `[batch, height // 2, width // 2, channels // 2]`."""
        x = self.conv(self.norm_relu(x, "norm", train), x.shape[-1] // 2, 1, "conv")
        # nn.avg_pool divides by a NumPy integer, which strict dtype promotion refuses.
        return nn.pool(x, 0.0, jax.lax.add, (2, 2), (2, 2), "VALID") / 4.0


class DenseNetBackbone(_Layers):
    """The convolutional part with its global average pool; arguments as in `DenseNet`.

    Layers carry torchvision's names and numbers, with the layer's number after an underscore
    (`denseblock4_1/conv1`), so the pattern `backbone/denseblock4` picks the last dense block. The
    last BatchNorm is `norm5` whatever the number of blocks.
    """

    stages: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    bn_size: int = 4
    width: int = 64
    stem: str = "imagenet"
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        if self.stem == "imagenet":
            x = self.norm_relu(self.conv(x, self.width, 7, "conv0", stride=2), "norm0", train)
            return stem_pool(x)
        if self.stem == "small":
            return self.norm_relu(self.conv(x, self.width, 3, "conv0"), "norm0", train)
        raise UserError(f"stem={self.stem!r} is not a DenseNet stem; use 'imagenet' or 'small'.")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Pools images `[batch, height, width, 1 or 3]` to features `[batch, channels]`."""
        both = {"dtype": self.dtype, "axis_name": self.axis_name}
        layer = rematerialized(DenseLayer, self.remat, static_argnums=(2,))
        x = self._stem(colored(images, self.colors), train)
        for stage, layers in enumerate(self.stages, 1):
            if stage > 1:
                if min(x.shape[1:3]) < 2:
                    height, width = images.shape[1:3]
                    raise UserError(
                        f"images of {height}x{width} are too small for the {len(self.stages)} "
                        "stages of this DenseNet; enlarge them or use stem='small'."
                    )
                x = Transition(**both, name=f"transition{stage - 1}")(x, train)
            features: tuple[jax.Array, ...] = (x,)
            for index in range(1, layers + 1):
                new = layer(
                    growth=self.growth,
                    bn_size=self.bn_size,
                    **both,
                    name=f"denseblock{stage}_{index}",
                )(features, train)
                features = (*features, new)
            x = jnp.concatenate(features, axis=-1)
            if stage < len(self.stages):
                x = tap(self, f"stage{stage}", x)
        x = tap(self, f"stage{len(self.stages)}", self.norm_relu(x, "norm5", train))
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)


class DenseNet(nn.Module):
    """DenseNet classifier of radiographs; DenseNet121 is the network of CheXNet.

    Arguments:
      stages: layers in each dense block.
      growth: channels that each layer adds.
      bn_size: channels of the 1x1 convolution of a layer over `growth`.
      width: channels of the stem.
      remat: "none", "dots" or "full", see `layers.rematerialized`. With "full", memory grows with
        the depth of a block, not its square (Pleiss et al. 2017, arXiv:1707.06990).
      The others are as in `ResNet`.
    """

    layouts: ClassVar = (TORCHVISION_DENSENET,)

    classes: int = 15
    stages: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    bn_size: int = 4
    width: int = 64
    stem: str = "imagenet"
    head_width: int = 256
    head_dropout: float = 0.25
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Makes the two groups of parameters, `backbone` and `head`."""
        self.backbone = DenseNetBackbone(
            stages=tuple(self.stages),
            growth=self.growth,
            bn_size=self.bn_size,
            width=self.width,
            stem=self.stem,
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
        numbers = range(1, len(self.stages) + 1)
        stages = (rf"^backbone/(denseblock{i}_|transition{i - 1}/)" for i in numbers)
        return (r"^backbone/(conv0|norm0)/", *stages)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]`; arguments as in `ResNet.__call__`."""
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


densenet121 = functools.partial(DenseNet, stages=(6, 12, 24, 16))
