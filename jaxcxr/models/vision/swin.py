"""Swin transformers in timm's and torchvision's geometry (Liu et al. 2021, arXiv:2103.14030)."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.layers import by_example, rematerialized, tap
from jaxcxr.models.sequence import transformer
from jaxcxr.models.vision.classifier import ClassifierHead, colored
from jaxcxr.models.weights import stage_layouts

_INIT = nn.initializers.truncated_normal(0.02)
_MASKED = -100.0  # added to scores of pixels that lie together only by the shift


def _norm(x: jax.Array, name: str, dtype: Any) -> jax.Array:
    """LayerNorm in float32 with Swin's epsilon."""
    layer = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name)
    return layer(x.astype(jnp.float32)).astype(dtype)


def _windows(x: Any, window: int) -> Any:
    """`[batch, height, width, dim]` as windows `[batch * count, window^2, dim]` in row order."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, dim)
    return x.swapaxes(2, 3).reshape(-1, window * window, dim)


def _unwindowed(x: jax.Array, window: int, shape: tuple[int, ...]) -> jax.Array:
    """Inverse of `_windows`; `shape` is (batch, height, width)."""
    batch, height, width = shape
    x = x.reshape(batch, height // window, width // window, window, window, x.shape[-1])
    return x.swapaxes(2, 3).reshape(batch, height, width, x.shape[-1])


def _shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """What a shifted window adds to scores, float32 `[windows, window^2, window^2]`."""
    bands = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    region = np.zeros((1, height, width, 1), np.int32)
    for i, rows in enumerate(bands):
        for j, columns in enumerate(bands):
            region[:, rows, columns] = 3 * i + j
    region = np.asarray(_windows(region, window))[..., 0]
    return np.where(region[:, :, None] == region[:, None, :], 0, _MASKED).astype(np.float32)


class WindowAttention(nn.Module):
    """Attention of the pixels of a window to each other, with a learned bias by their offset.

    Arguments:
      heads: attention heads.
      window: pixels a side of the window that the table of offsets is made for.
      dtype: of the computation; softmax is float32.
    """

    heads: int
    window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        """Maps `[windows, side^2, dim]` to the same shape; `mask` is added to the scores.

        The side may be smaller than `window`, where an image has no more.
        """
        dim, side = x.shape[-1], int(np.sqrt(x.shape[1]))
        query, key, value = (
            nn.DenseGeneral((self.heads, dim // self.heads), dtype=self.dtype, kernel_init=_INIT,
                            name=name)(x)
            for name in ("query", "key", "value")
        )
        reach = 2 * self.window - 1
        table = self.param("relative_positions", _INIT, (reach * reach, self.heads))
        places = np.stack(np.meshgrid(range(side), range(side), indexing="ij"), -1).reshape(-1, 2)
        offset = places[:, None] - places[None] + self.window - 1
        bias = table[offset[..., 0] * reach + offset[..., 1]].transpose(2, 0, 1)
        query = query * np.asarray((dim // self.heads) ** -0.5, query.dtype)
        scores = jnp.einsum("wqhd,wkhd->whqk", query, key).astype(jnp.float32) + bias
        if mask is not None:
            count = len(mask)
            scores = scores.reshape(-1, count, *scores.shape[1:]) + mask[None, :, None]
            scores = scores.reshape(-1, *scores.shape[2:])
        weights = nn.softmax(scores).astype(self.dtype)
        y = jnp.einsum("whqk,wkhd->wqhd", weights, value)
        return nn.DenseGeneral(dim, axis=(-2, -1), dtype=self.dtype, kernel_init=_INIT,
                               name="out")(y)


class SwinBlock(nn.Module):
    """Attention in windows, which every other block shifts by half, then an MLP.

    Arguments:
      heads, window: as in `WindowAttention`.
      shifted: whether the windows are shifted.
      drop_path: stochastic-depth rate of the branches.
      dtype: of the computation.
    """

    heads: int
    window: int
    shifted: bool = False
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `[batch, height, width, dim]` to the same shape."""
        x = by_example(x)
        drop = transformer.DropPath(self.drop_path)
        x = x + drop(self._attended(_norm(x, "norm1", self.dtype)), train=train)
        mlp = transformer.MLP(4 * x.shape[-1], dtype=self.dtype, name="mlp")
        return x + drop(mlp(_norm(x, "norm2", self.dtype), train=train), train=train)

    def _attended(self, y: jax.Array) -> jax.Array:
        """Shifts, pads to whole windows, attends, and undoes both."""
        _, height, width, _ = y.shape
        window = min(self.window, height, width)
        # A side of a single window is not shifted.
        shift = self.window // 2 if self.shifted else 0
        shifts = tuple(shift if side > self.window else 0 for side in (height, width))
        if any(shifts):
            y = jnp.roll(y, tuple(-s for s in shifts), (1, 2))
        pads = tuple(-side % window for side in (height, width))
        y = jnp.pad(y, ((0, 0), (0, pads[0]), (0, pads[1]), (0, 0)))
        shape = y.shape[:3]
        mask = _shift_mask(shape[1], shape[2], window, shift) if all(shifts) else None
        attend = WindowAttention(self.heads, self.window, self.dtype, name="attention")
        y = _unwindowed(attend(_windows(y, window), mask), window, shape)[:, :height, :width]
        return jnp.roll(y, shifts, (1, 2)) if any(shifts) else y


class SwinBackbone(nn.Module):
    """Patches, stages of blocks, LayerNorm, global average pool; arguments as in `Swin`."""

    dim: int
    stages: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    patch: int = 4
    drop_path: float = 0.0
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Pools images `[batch, side, side, 1 or 3]` to features `[batch, dim 2^(stages - 1)]`."""
        height, width = images.shape[1:3]
        if height != width or height % self.patch:
            raise UserError(
                f"images of {height}x{width} are not square with a side that {self.patch} divides; "
                "change the image size or the option patch."
            )
        if len(self.stages) != len(self.heads):
            raise UserError(
                f"stages={self.stages} and heads={self.heads} differ in length; change either."
            )
        size = (self.patch, self.patch)
        x = nn.Conv(self.dim, size, size, padding="VALID", dtype=self.dtype, kernel_init=_INIT,
                    name="patch_embed")(colored(images, self.colors))
        x = _norm(x, "patch_norm", self.dtype)
        block = rematerialized(SwinBlock, self.remat, static_argnums=(2,))
        rates = iter(transformer.drop_path_rates(self.drop_path, sum(self.stages)))
        for stage, (depth, heads) in enumerate(zip(self.stages, self.heads, strict=True)):
            x = self._merged(x, f"stages_{stage}_downsample") if stage else x
            for index in range(depth):
                x = block(heads, self.window, index % 2 == 1, next(rates), self.dtype,
                          name=f"stages_{stage}_blocks_{index}")(x, train)
            x = tap(self, f"stage{stage + 1}", x)
        x = _norm(x, "norm", self.dtype)
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)

    def _merged(self, x: jax.Array, name: str) -> jax.Array:
        """Halves both sides: four neighbours become one token of twice the width."""
        batch, height, width, dim = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, dim)
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, x.shape[1], x.shape[3], 4 * dim)
        x = _norm(x, f"{name}_norm", self.dtype)
        return nn.Dense(2 * dim, use_bias=False, dtype=self.dtype, kernel_init=_INIT,
                        name=f"{name}_reduction")(x)


class Swin(nn.Module):
    """Swin transformer classifier of radiographs.

    Arguments:
      classes: number of logits.
      dim: width of the tokens of the first stage; doubles from stage to stage.
      stages: blocks in each stage.
      heads: attention heads in each stage.
      window: pixels a side of the windows of attention.
      patch: side of a patch in pixels.
      The others are as in `ViT`.
    """

    layouts: ClassVar = stage_layouts.SWIN

    classes: int = 15
    dim: int = 96
    stages: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch: int = 4
    drop_path: float = 0.0
    head_width: int = 0
    head_dropout: float = 0.0
    remat: str = "none"
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the two groups of parameters, `backbone` and `head`."""
        self.backbone = SwinBackbone(
            dim=self.dim,
            stages=tuple(self.stages),
            heads=tuple(self.heads),
            window=self.window,
            patch=self.patch,
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
        """Patterns of the parameters of each layer of the backbone, from the image on."""
        layers = [r"^backbone/patch"]
        for stage, depth in enumerate(self.stages):
            for index in range(depth):
                first = f"stages_{stage}_downsample|" if not index else ""
                layers.append(rf"^backbone/({first}stages_{stage}_blocks_{index}/)")
        return tuple(layers)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]`; arguments as in `ViT.__call__`."""
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


swin_tiny = functools.partial(Swin)
swin_base = functools.partial(Swin, dim=128, stages=(2, 2, 18, 2), heads=(4, 8, 16, 32))
