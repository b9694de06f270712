"""Recurrent layers over padded sequences: simple, LSTM and GRU cells, stacked, both directions."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError, did_you_mean


class ResetBeforeGRUCell(nn.RNNCellBase):
    """GRU whose reset gate acts before the recurrent product, as Cho et al. 2014 print it.

    With R and Z the reset and update gates (thesis eq. 2.17 and 2.18, where the last term needs
    the candidate of this step):

      R, Z = sigmoid(x W_xR + h W_hR + b_R), sigmoid(x W_xZ + h W_hZ + b_Z)
      candidate = tanh(x W_xh + (R * h) W_hh + b_h)
      new h = Z * h + (1 - Z) * candidate

    `nn.GRUCell` and cuDNN take R * (h W_hh + b_hn) instead, another function of the same weights.
    The parameters are named as those of `nn.GRUCell`.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step from the state `[..., features]`; returns the new state twice."""
        of_input = functools.partial(nn.Dense, self.features, dtype=self.dtype)
        of_state = functools.partial(
            nn.Dense,
            self.features,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.orthogonal(),
        )
        reset = nn.sigmoid(of_input(name="ir")(inputs) + of_state(name="hr")(carry))
        update = nn.sigmoid(of_input(name="iz")(inputs) + of_state(name="hz")(carry))
        candidate = nn.tanh(of_input(name="in")(inputs) + of_state(name="hn")(reset * carry))
        state = update * carry + (1 - update) * candidate
        return state, state

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
        """The state of zeros for inputs of `input_shape` `[..., in]`; `rng` is not used."""
        del rng
        return jnp.zeros((*input_shape[:-1], self.features), jnp.float32)

    @property
    def num_feature_axes(self) -> int:
        """Axes of an input that are not of the batch."""
        return 1


# name in a config -> cell; "gru_thesis" resets before the recurrent product, "gru" after it
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "rnn": nn.SimpleCell,
    "lstm": nn.OptimizedLSTMCell,
    "gru": nn.GRUCell,
    "gru_thesis": ResetBeforeGRUCell,
}


def make_cell(kind: str, width: int, dtype: Any, name: str | None = None) -> nn.RNNCellBase:
    """Makes a recurrent cell of a kind of `CELLS`, whose state has `width` and `dtype`."""
    if kind not in CELLS:
        raise UserError(
            f"no cell is called {kind!r}.{did_you_mean(kind, CELLS)} Cells: {', '.join(CELLS)}."
        )
    return CELLS[kind](width, dtype=dtype, name=name)


def hidden(carry: Any) -> jax.Array:
    """The hidden state h of a carry: of (c, h) of an LSTM, and of the others the carry itself."""
    return carry[1] if isinstance(carry, tuple) else carry


def first_carry(cell: nn.RNNCellBase, x: jax.Array) -> Any:
    """Zero state before the inputs `x` `[batch, ..., in]`, in the dtype of the cell."""
    # Cells make it in the dtype of their parameters, and a scan must not change a dtype.
    carry = cell.initialize_carry(jax.random.key(0), (x.shape[0], x.shape[-1]))
    return jax.tree.map(lambda state: state.astype(cell.dtype), carry)


def keep(mask: jax.Array, new: Any, old: Any) -> Any:
    """`new` where the bool `mask` `[batch]` is True, `old` elsewhere, over pytrees."""
    return jax.tree.map(lambda a, b: jnp.where(mask[:, None], a, b), new, old)


def run_cell(
    cell: nn.RNNCellBase,
    x: jax.Array,
    mask: jax.Array | None = None,
    *,
    reverse: bool = False,
) -> tuple[Any, jax.Array]:
    """Runs a cell over a sequence, from the zero state.

    A step outside the mask leaves the state as it is, so that both directions begin at the real
    end of each sequence, which `nn.RNN` with lengths does not do for empty ones or in bfloat16.

    Arguments:
      cell: any Linen cell with a state of one axis.
      x: `[batch, steps, in]`.
      mask: bool `[batch, steps]`, False at padding, wherever it stands.
      reverse: run from the last step to the first; outputs stay where their inputs are.

    Returns:
      (state after all steps, outputs `[batch, steps, width]`, 0 at padding).
    """

    if mask is not None:
        # What stands at padding must not matter, not even where it is NaN.
        x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))

    def step(cell, carry, inputs):
        x, real = inputs
        new, output = cell(carry, x)
        if real is None:
            return new, output
        return keep(real, new, carry), jnp.where(real[:, None], output, 0)

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
        reverse=reverse,
    )
    return scan(cell, first_carry(cell, x), (x, mask))


class Recurrent(nn.Module):
    """Stacked recurrent layers from features to features.

    A bidirectional layer puts the states of both directions side by side (Schuster & Paliwal
    1997; thesis eq. 2.10), and the next layer sees both.

    Arguments:
      cell: a key of `CELLS`.
      width: of the state of one direction.
      dropout: rate between layers, as in `torch.nn.LSTM` none after the last.
    """

    cell: str = "lstm"
    width: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Returns `[batch, frames, width]` of the last layer, twice as wide where bidirectional.

        Arguments:
          x: `[batch, frames, in]`.
          mask: bool `[batch, frames]`, False at padding, where the output is 0.
        """
        return self.run(x, mask, train=train)[0]

    @nn.compact
    def run(
        self, x: jax.Array, mask: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, tuple[tuple[Any, ...], ...]]:
        """Returns outputs as a call does, and the final state of each direction of each layer."""
        if self.layers < 1:
            raise UserError(f"layers={self.layers} of a recurrent network; give at least 1.")
        x, carries = x.astype(self.dtype), []
        for layer in range(self.layers):
            if layer:
                x = nn.Dropout(self.dropout)(x, deterministic=not train)
            ways = [self._way(layer, x, mask, reverse) for reverse in self._directions]
            carries.append(tuple(carry for carry, _ in ways))
            x = jnp.concatenate([outputs for _, outputs in ways], axis=-1)
        return x, tuple(carries)

    @property
    def _directions(self) -> tuple[bool, ...]:
        return (False, True) if self.bidirectional else (False,)

    def _way(self, layer: int, x: jax.Array, mask: jax.Array | None, reverse: bool) -> tuple:
        name = f"{'backward' if reverse else 'forward'}_{layer}"
        cell = make_cell(self.cell, self.width, self.dtype, name)
        return run_cell(cell, x, mask, reverse=reverse)
