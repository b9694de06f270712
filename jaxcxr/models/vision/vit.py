"""Vision transformers in timm's structure (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import Stack, layers
from jaxcxr.models.layers import sinusoidal_2d
from jaxcxr.models.sequence import scanned, transformer
from jaxcxr.models.vision.classifier import ClassifierHead, colored
from jaxcxr.models.weights import layout_tables
from jaxcxr.models.weights.layouts import Layout


class ViTBackbone(nn.Module):
    """Patches -> positions -> encoder -> pooled features; arguments as in `ViT`."""

    dim: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    pool: str = "token"
    positions: str = "learned"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    attention: str | tuple[str, ...] = "mha"
    norm: str = "pre"
    registers: int = 0
    layer_scale: float = 0.0
    remat: str = "none"
    scan: bool = False
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    def _patches(self, images: jax.Array) -> jax.Array:
        """Embedded patches `[batch, rows, columns, dim]`."""
        images = colored(images, self.colors)
        height, width = images.shape[1:3]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"images of {height}x{width} do not divide into patches of {self.patch}; "
                "change the image size or the option patch."
            )
        size = (self.patch, self.patch)
        return nn.Conv(
            self.dim, size, size, padding="VALID", dtype=self.dtype, name="patch_embed"
        )(images)

    def _with_positions(self, grid: jax.Array) -> jax.Array:
        """Tokens `[batch, prefix + rows * columns, dim]`, the class token first if there is one."""
        batch, rows, columns, dim = grid.shape
        tokens = grid.reshape(batch, rows * columns, dim)
        prefix, std = int(self.pool == "token"), transformer.position_std(self.norm, dim)
        if prefix:
            init = nn.initializers.normal(std) if self.norm == "tfixup" else nn.initializers.zeros
            token = self.param("cls_token", init, (1, 1, dim), jnp.float32)
            token = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, dim))
            tokens = jnp.concatenate([token, tokens], axis=1)
        if self.positions == "sinusoidal":
            codes = jnp.asarray(sinusoidal_2d(rows, columns, dim), self.dtype)
            return tokens.at[:, prefix:].add(codes)
        if self.positions != "learned":
            raise UserError(
                f"positions={self.positions!r} is not known; use 'learned' or 'sinusoidal'."
            )
        shape = (1, prefix + rows * columns, dim)
        table = self.param("pos_embed", nn.initializers.normal(std), shape, jnp.float32)
        return tokens + table.astype(self.dtype)

    def _with_registers(self, tokens: jax.Array, prefix: int) -> jax.Array:
        """The tokens with the registers, which have no position, before those of the patches."""
        if not self.registers:
            return tokens
        shape = (1, self.registers, tokens.shape[-1])
        table = self.param("registers", nn.initializers.normal(1e-6), shape, jnp.float32)
        table = jnp.broadcast_to(table.astype(tokens.dtype), (tokens.shape[0], *shape[1:]))
        return jnp.concatenate([tokens[:, :prefix], table, tokens[:, prefix:]], axis=1)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns features `[batch, dim]` of images `[batch, height, width, 1 or 3]`."""
        if self.pool not in ("token", "mean"):
            raise UserError(f"pool={self.pool!r} is not known; use 'token' or 'mean'.")
        grid = self._patches(images)
        token = int(self.pool == "token")
        prefix = token + self.registers
        x = self._with_registers(self._with_positions(grid), token)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        makers = layers(
            self.attention,
            self.depth,
            heads=self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            grid=grid.shape[1:3],
            global_tokens=prefix,
        )
        if self.scan:
            x = scanned.run(
                makers, x, None, train=train, drop_path=self.drop_path, remat=self.remat,
                mlp_ratio=self.mlp_ratio, dropout=self.dropout, dtype=self.dtype, norm=self.norm,
                layer_scale=self.layer_scale,
            )
            makers = []
        rates, weights = transformer.drop_path_rates(self.drop_path, len(makers)), None
        for index, (make, rate) in enumerate(zip(makers, rates, strict=True)):
            block = transformer.encoder_block(self.remat)(
                make,
                self.mlp_ratio,
                self.dropout,
                rate,
                self.dtype,
                self.norm,
                self.depth,
                self.layer_scale,
                name=f"blocks_{index}",
            )
            x, weights = transformer.run_block(block, x, None, train, weights)
        if self.norm == "pre":
            x = transformer.LayerNorm(self.dtype, name="norm")(x)
        if self.pool == "token":
            return x[:, 0]
        return x[:, prefix:].astype(jnp.float32).mean(1).astype(self.dtype)


class ViT(nn.Module):
    """Vision transformer classifier of radiographs.

    Learned positions belong to the grid of the images at initialisation.

    Arguments:
      classes: number of logits.
      dim: width of the tokens.
      depth: number of blocks.
      heads: attention heads.
      patch: side of a patch in pixels; must divide both sides of the image.
      mlp_ratio: hidden units of the MLPs over `dim`.
      pool: "token" (a class token) or "mean" (of all patches, without class token).
      positions: "learned" or "sinusoidal" (2-D, no parameters).
      dropout: rate after the positions, on the attention outputs and in the MLPs.
      attention_dropout: rate on the attention weights.
      drop_path: stochastic-depth rate of the last block; rises linearly from 0.
      attention: kind of attention, or the kinds that the blocks take in turn; see
        `attention.layers`. The class token is global where a kind has global tokens.
      norm: "pre", "post" or "tfixup"; see `transformer.Block`. Weight files are of "pre".
      registers: tokens beside the patches for what belongs to no place (Darcet et al. 2024,
        arXiv:2309.16588).
      layer_scale: see `transformer.Block`.
      head_width: hidden units of the head, 0 for a single Dense.
      head_dropout: dropout rate of the head.
      remat: "none", "full", "dots" or "weight_dots"; see `layers.rematerialized`.
      scan: compile the blocks, which must be equal, as one loop; see `scanned`.
      colors: channels of the first layer, see `classifier.colored`.
      dtype: of the computation; parameters, LayerNorm, softmax and logits are float32.
    """

    layouts: ClassVar[tuple[Layout, ...]] = layout_tables.VIT

    classes: int = 15
    dim: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    mlp_ratio: float = 4.0
    pool: str = "token"
    positions: str = "learned"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    attention: str | tuple[str, ...] = "mha"
    norm: str = "pre"
    registers: int = 0
    layer_scale: float = 0.0
    head_width: int = 0
    head_dropout: float = 0.0
    remat: str = "none"
    scan: bool = False
    colors: tuple[tuple[float, float], ...] = ()
    dtype: Any = jnp.float32

    def setup(self):
        """Makes the two groups of parameters, `backbone` and `head`."""
        self.backbone = ViTBackbone(
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            patch=self.patch,
            mlp_ratio=self.mlp_ratio,
            pool=self.pool,
            positions=self.positions,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            drop_path=self.drop_path,
            attention=self.attention,
            norm=self.norm,
            registers=self.registers,
            layer_scale=self.layer_scale,
            remat=self.remat,
            scan=self.scan,
            colors=self.colors,
            dtype=self.dtype,
        )
        self.head = ClassifierHead(
            self.classes, width=self.head_width, dropout=self.head_dropout, dtype=self.dtype
        )

    @nn.nowrap
    def stacks(self, shape: tuple[int, ...]) -> tuple[Stack, ...]:
        """The blocks over the tokens of images of shape `(height, width, channels)`."""
        grid = (shape[0] // self.patch, shape[1] // self.patch)
        prefix = int(self.pool == "token") + self.registers
        layout = {"grid": grid, "global_tokens": prefix}
        tokens = prefix + grid[0] * grid[1]
        return (Stack("blocks", "attention", self.depth, tokens, layout),)

    @nn.nowrap
    def depths(self) -> tuple[str, ...]:
        """Patterns of the parameters of each layer of the backbone, from the image on."""
        first = r"^backbone/(cls_token|pos_embed|patch_embed|registers)"
        return (first, *(rf"^backbone/blocks_{i}/" for i in range(self.depth)))

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns float32 logits `[batch, classes]`.

        Arguments:
          images: float `[batch, height, width, 1 or 3]`, normalised as the weights expect.
          train: applies dropout and stochastic depth (needs the rng `dropout`).
        """
        return self.head(self.backbone(images.astype(self.dtype), train), train=train)


class DinoV2(ViT):
    """The vision transformer of DINOv2 and RAD-DINO (Oquab et al. 2024, arXiv:2304.07193).

    Patches of 14 pixels and LayerScale; with `registers=4` the variant with registers. RAD-DINO's
    images have 518 pixels a side.
    """

    layouts: ClassVar[tuple[Layout, ...]] = layout_tables.DINOV2


vit_tiny = functools.partial(ViT, dim=192, heads=3)
vit_small = functools.partial(ViT, dim=384, heads=6)
vit_base = functools.partial(ViT, dim=768, heads=12)
_dinov2 = functools.partial(DinoV2, patch=14, layer_scale=1e-5)
dinov2_small = functools.partial(_dinov2, dim=384, heads=6)
dinov2_base = functools.partial(_dinov2, dim=768, heads=12)
dinov2_large = functools.partial(_dinov2, dim=1024, heads=16, depth=24)
