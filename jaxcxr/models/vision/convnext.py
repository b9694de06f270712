"""ConvNeXt in timm's and torchvision's geometry (Liu et al. 2022, arXiv:2201.03545)."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import rematerialized, tap
from jaxcxr.models.sequence import transformer
from jaxcxr.models.vision.classifier import ClassifierHead, colored
from jaxcxr.models.weights import stage_layouts

_INIT = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, MLP of four times the width, scale, residual.

    Arguments:
      layer_scale: of the branch at initialisation, one for each channel.
      drop_path: stochastic-depth rate of the branch.
      dtype: of the computation.
    """

    layer_scale: float = 1e-6
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[batch, height, width, channels]` to the same shape."""
        width = x.shape[-1]
        y = nn.Conv(width, (7, 7), padding=3, feature_group_count=width, dtype=self.dtype,
                    kernel_init=_INIT, name="conv_dw")(x)
        y = transformer.LayerNorm(self.dtype, name="norm")(y)
        y = transformer.MLP(4 * width, dtype=self.dtype, name="mlp")(y, train=train)
        gamma = self.param("gamma", nn.initializers.constant(self.layer_scale), (width,))
        return x + transformer.DropPath(self.drop_path)(y * gamma.astype(y.dtype), train=train)


class ConvNeXtBackbone(nn.Module):
    """Four stages, global average pool, LayerNorm; arguments as in `ConvNeXt`."""

    stages: tuple[int, ...]
    widths: tuple[int, ...]
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Pools images `[batch, height, width, 1 or 3]` to features `[batch, widths[-1]]`."""
        if len(self.stages) != len(self.widths):
            raise UserError(
                f"stages={self.stages} and widths={self.widths} differ in length; change either."
            )
        smallest = 4 * 2 ** (len(self.stages) - 1)
        if min(images.shape[1:3]) < smallest:
            raise UserError(
                f"images of {images.shape[1]}x{images.shape[2]} are too small for the "
                f"{len(self.stages)} stages of this ConvNeXt; give at least {smallest} pixels."
            )
        block = rematerialized(ConvNeXtBlock, self.remat, static_argnums=(2,))
        rates = iter(transformer.drop_path_rates(self.drop_path, sum(self.stages)))
        x = self._reduced(colored(images, self.colors), 4, self.widths[0], "stem_conv")
        x = transformer.LayerNorm(self.dtype, name="stem_norm")(x)
        for stage, (depth, width) in enumerate(zip(self.stages, self.widths, strict=True)):
            if stage:
                x = transformer.LayerNorm(self.dtype, name=f"stages_{stage}_downsample_norm")(x)
                x = self._reduced(x, 2, width, f"stages_{stage}_downsample_conv")
            for index in range(depth):
                x = block(self.layer_scale, next(rates), self.dtype,
                          name=f"stages_{stage}_blocks_{index}")(x, train)
            x = tap(self, f"stage{stage + 1}", x)
        x = x.astype(jnp.float32).mean((1, 2))
        return transformer.LayerNorm(self.dtype, name="norm")(x)

    def _reduced(self, x: jax.Array, size: int, width: int, name: str) -> jax.Array:
        """Convolution over disjoint squares of `size` pixels."""
        return nn.Conv(width, (size, size), (size, size), padding="VALID", dtype=self.dtype,
                       kernel_init=_INIT, name=name)(x)


class ConvNeXt(nn.Module):
    """ConvNeXt classifier of radiographs.

    Arguments:
      classes: number of logits.
      stages: blocks in each stage.
      widths: channels of each stage.
      layer_scale: of each branch at initialisation.
      drop_path: stochastic-depth rate of the last block; rises linearly from 0.
      The others are as in `ViT`.
    """

    layouts: ClassVar = (stage_layouts.TIMM_CONVNEXT,)

    classes: int = 15
    stages: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    head_width: int = 0
    head_dropout: float = 0.0
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the two groups of parameters, `backbone` and `head`."""
        self.backbone = ConvNeXtBackbone(
            stages=tuple(self.stages),
            widths=tuple(self.widths),
            layer_scale=self.layer_scale,
            drop_path=self.drop_path,
            remat=self.remat,
            colors=self.colors,
            dtype=self.dtype,
        )
        self.head = ClassifierHead(
            self.classes, width=self.head_width, dropout=self.head_dropout, dtype=self.dtype
        )

    @nn.nowrap
    def depths(self) -> tuple[str, ...]:
        """Patterns of the parameters of each layer of the backbone, from the image on.

        Blocks of a long stage are taken by threes.
        """
        layers = [r"^backbone/stem"]
        for stage, depth in enumerate(self.stages):
            size = 3 if depth > 3 else depth
            for start in range(0, depth, size):
                blocks = "|".join(map(str, range(start, min(start + size, depth))))
                first = f"stages_{stage}_downsample|" if not start else ""
                layers.append(rf"^backbone/({first}stages_{stage}_blocks_({blocks})/)")
        return tuple(layers)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]`; arguments as in `ViT.__call__`."""
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


convnext_tiny = functools.partial(ConvNeXt)
convnext_small = functools.partial(ConvNeXt, stages=(3, 3, 27, 3))
convnext_base = functools.partial(
    ConvNeXt, stages=(3, 3, 27, 3), widths=(128, 256, 512, 1024)
)
