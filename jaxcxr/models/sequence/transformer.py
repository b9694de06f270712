"""Parts of transformer encoders: blocks with three styles of normalisation, masks."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models import layers
from jaxcxr.models.attention import shares

_DENSE_INIT = nn.initializers.xavier_uniform()

NORMS = ("pre", "post", "tfixup")

# Parts of attention and MLP that T-Fixup scales: values, outputs, and both Dense of the MLP.
_SCALED = re.compile(r"(^|_)(value|out|fc1|fc2)$")


def key_mask(valid: jax.Array) -> jax.Array:
    """Attention mask `[batch, 1, 1, keys]` of the bool `valid` `[batch, keys]`."""
    return valid[:, None, None, :]


def causal_mask(length: int) -> jax.Array:
    """Attention mask `[1, 1, length, length]`: a position sees itself and those before it."""
    return jnp.tril(jnp.ones((1, 1, length, length), bool))


class LayerNorm(nn.Module):
    """Layer normalisation computed in float32 and returned in `dtype`; epsilon 1e-6 as in ViT."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `x`, with parameters `scale` and `bias`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return layers.layer_norm(x.astype(jnp.float32), scale, bias).astype(self.dtype)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops the whole branch of an example while training."""

    rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, rate: jax.Array | None = None
    ) -> jax.Array:
        """Returns `x` `[batch, ...]` with whole examples set to 0, at `rate` where one is given."""
        if rate is not None and train:
            shape = (x.shape[0], *(1,) * (x.ndim - 1))
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - rate, shape)
            return jnp.where(kept, x / (1.0 - rate).astype(x.dtype), jnp.zeros((), x.dtype))
        broadcast = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, broadcast_dims=broadcast)(x, deterministic=not train)


class MLP(nn.Module):
    """Dense -> exact GELU -> Dense, back to the width of the input; dropout after each."""

    width: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[..., dim]` to `[..., dim]`."""
        y = nn.Dense(self.width, dtype=self.dtype, kernel_init=_DENSE_INIT, name="fc1")(x)
        y = nn.Dropout(self.dropout)(layers.gelu(y), deterministic=not train)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=_DENSE_INIT, name="fc2")(y)
        return nn.Dropout(self.dropout)(y, deterministic=not train)


def check_norm(norm: str) -> None:
    """Raises a UserError for an unknown style of normalisation."""
    if norm not in NORMS:
        raise UserError(f"norm={norm!r} is not known; use one of {', '.join(NORMS)}.")


def position_std(norm: str, dim: int) -> float:
    """Standard deviation of learned positions: dim^-1/2 with T-Fixup, otherwise as in ViT."""
    return dim**-0.5 if norm == "tfixup" else 0.02


def tfixup_scale(layers: int, *, decoder: bool = False) -> float:
    """T-Fixup's factor (Huang et al. 2020, section 3.2): 0.67 N^-1/4, of decoders (9N)^-1/4."""
    return (9 * layers) ** -0.25 if decoder else 0.67 * layers**-0.25


def call_scaled(scale: float, module: nn.Module, *args: Any, **options: Any) -> Any:
    """Calls a module; where that initialises it, scales its kernels as T-Fixup does.

    Arguments:
      scale: factor of the kernels of values, outputs and MLP; queries and keys keep theirs.
      module: attention of any kind, or an `MLP`.
      *args: of the call, arrays.
      **options: of the call.

    Returns:
      What the module returns; while it initialises, computed before the scaling.
    """
    if scale == 1.0 or not module.is_initializing():
        return module(*args, **options)
    known: set[tuple] = set()

    def remember(tree: Any) -> Any:
        known.update(path for path, _ in jax.tree_util.tree_leaves_with_path(tree))
        return tree

    def scaled(path: tuple, leaf: jax.Array) -> jax.Array:
        names = [key.key for key in path]
        fits = names[-1] == "kernel" and any(_SCALED.search(name) for name in names)
        return leaf * scale if fits and path not in known else leaf

    return nn.map_variables(
        lambda module, *args: module(*args, **options),
        "params",
        trans_in_fn=remember,
        trans_out_fn=lambda tree: jax.tree_util.tree_map_with_path(scaled, tree),
        mutable=True,
    )(module, *args)


class Block(nn.Module):
    """Residual branches of encoder and decoder blocks, and where they are normalised.

    Arguments:
      attention: makes the attention when called with `name=`; see `attention.factory`.
      mlp_ratio: hidden units of the MLP over the width.
      dropout: rate on the outputs of the attention and in the MLP.
      drop_path: stochastic-depth rate of the branches.
      dtype: of the computation.
      norm: "pre" is x + F(LN(x)), the stack ends with a LayerNorm of its own; "post" is
        LN(x + F(x)) (Vaswani et al. 2017), which needs a warm-up of the learning rate; "tfixup"
        is x + F(x) with kernels scaled at initialisation (Huang et al. 2020), without warm-up.
      layers: blocks of the stack, for the scale of T-Fixup.
      layer_scale: of each channel of a branch at initialisation (LayerScale, Touvron et al. 2021,
        arXiv:2103.17239, eq. 4); 0: branches are not scaled.
    """

    attention: Callable[..., nn.Module]
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    norm: str = "pre"
    layers: int = 1
    layer_scale: float = 0.0

    def _before(self, x: jax.Array, name: str) -> jax.Array:
        """Input of the branch that the norm `name` belongs to."""
        check_norm(self.norm)
        return LayerNorm(self.dtype, name=name)(x) if self.norm == "pre" else x

    def _after(
        self, x: jax.Array, y: jax.Array, name: str, train: bool, rate: jax.Array | None = None
    ) -> jax.Array:
        """`x` with the branch `y`, dropped at `rate` where it is not the block's own."""
        if self.layer_scale:
            init = nn.initializers.constant(self.layer_scale)
            scale = self.param(name.replace("norm", "ls"), init, (y.shape[-1],), jnp.float32)
            y = y * scale.astype(y.dtype)
        x = layers.kept(x + DropPath(self.drop_path)(y, train=train, rate=rate))
        return LayerNorm(self.dtype, name=name)(x) if self.norm == "post" else x

    def _attended(
        self, x: jax.Array, y: jax.Array, name: str, train: bool, rate: jax.Array | None = None
    ) -> jax.Array:
        """`x` with the attention's output `y`."""
        y = nn.Dropout(self.dropout)(y, deterministic=not train)
        return self._after(x, y, name, train, rate)

    def _with_mlp(
        self, x: jax.Array, name: str, train: bool, rate: jax.Array | None = None
    ) -> jax.Array:
        """`x` with the branch of the MLP."""
        mlp = MLP(round(x.shape[-1] * self.mlp_ratio), self.dropout, self.dtype, name="mlp")
        y = self._call(mlp, self._before(x, name), train=train)
        return self._after(x, y, name, train, rate)

    def _call(self, module: nn.Module, *args: Any, **options: Any) -> Any:
        """Output of the module of a branch, whose kernels T-Fixup scales."""
        scale = tfixup_scale(self.layers) if self.norm == "tfixup" else 1.0
        return call_scaled(scale, module, *args, **options)


class EncoderBlock(Block):
    """Self-attention, then an MLP, each a residual branch; arguments as in `Block`."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        distance: jax.Array | None = None,
        train: bool = False,
        weights: jax.Array | None = None,
    ) -> Any:
        """Encodes `[batch, length, dim]`; `mask` and `distance` go to the attention.

        Around `SharedAttention` it takes the weights of the block before, and returns its own too.
        """
        shared = shares(self.attention)
        options = {"weights": weights} if shared else {}
        attend = self.attention(name="attention")
        y = self._call(
            attend, self._before(x, "norm1"), mask=mask, distance=distance, train=train, **options
        )
        y, weights = y if shared else (y, None)
        x = self._with_mlp(self._attended(x, y, "norm1", train), "norm2", train)
        return (x, weights) if shared else x


def encoder_block(remat: str | bool) -> type[nn.Module]:
    """Returns the class of a block that is rematerialised as `layers.rematerialized` says."""
    return layers.rematerialized(EncoderBlock, remat, static_argnums=(4,))


def run_block(
    block: nn.Module,
    x: jax.Array,
    mask: jax.Array | None,
    train: bool,
    weights: jax.Array | None,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a block; returns its output and the weights that the next may share."""
    x = layers.by_example(x)
    if shares(block.attention):
        return block(x, mask, None, train, weights)
    return block(x, mask, None, train), None


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic-depth rate of each block, rising linearly from 0 to `rate`."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
