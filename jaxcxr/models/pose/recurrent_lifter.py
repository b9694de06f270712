"""Recurrent lifters: simple, LSTM and GRU cells over frames, one or both ways."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.pose.outputs import HEAD_INIT, Outputs
from jaxcxr.models.pose.standardization import standardize
from jaxcxr.models.pose.streaming import Stream
from jaxcxr.models.sequence.recurrent import Recurrent, first_carry, make_cell


def frame_features(keypoints: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Features of whole frames, float32 `[batch, frames, 3 joints + 3]`.

    Arguments:
      keypoints: float `[batch, frames, joints, 3]` as (x, y, confidence).
      mask: bool `[batch, frames]` or None.
    """
    pose, place = standardize(keypoints, mask)
    return jnp.concatenate([pose.reshape(*keypoints.shape[:2], -1), place], -1)


class _States(Stream):
    """A recurrent model of one direction, which carries the states of its layers."""

    @classmethod
    def start(cls, model: nn.Module, variables: Any, clip: jax.Array) -> tuple[Stream, Any]:
        """Makes the first states."""
        if model.bidirectional:
            raise UserError("a bidirectional model needs whole sequences; train it one way.")
        cell = make_cell(model.cell, model.width, model.dtype)
        first = jnp.zeros((clip.shape[0], 1, model.width), model.dtype)
        return cls(model, variables, 0), tuple(
            first_carry(cell, first) for _ in range(model.layers)
        )

    def _advance(self, carry: Any, frame: jax.Array, there: jax.Array) -> tuple[Any, Any]:
        del there
        model, params = self.model, self.variables["params"]
        x: Any = frame_features(frame[:, None], None)[:, 0].astype(model.dtype)
        states = []
        for layer, state in enumerate(carry):
            cell = make_cell(model.cell, model.width, model.dtype)
            state, x = cell.apply({"params": params["backbone"][f"forward_{layer}"]}, state, x)
            states.append(state)
        outputs = Outputs(frame.shape[1], model.uncertainty, model.trajectory)
        y: Any = nn.Dense(outputs.width, dtype=model.dtype).apply({"params": params["head"]}, x)
        return tuple(states), outputs.of_frames(y[:, None])


class PoseRecurrent(nn.Module):
    """Stacked recurrent layers from the keypoints of a frame to its joints.

    With one direction a frame is lifted from itself and those before it, as a stream needs.

    Arguments:
      cell: "lstm", "gru", "gru_thesis" or "rnn"; see `recurrent.CELLS`.
      width: of the state of one direction.
      layers: number of layers.
      bidirectional: run every layer both ways.
      dropout: rate between layers.
      uncertainty: also a log variance for each joint.
      trajectory: also where the root stands; see `outputs.Outputs.read` for both.
      dtype: of the computation; parameters and output are float32.
    """

    stream: ClassVar = _States

    cell: str = "lstm"
    width: int = 256
    layers: int = 2
    bidirectional: bool = False
    dropout: float = 0.0
    uncertainty: bool = False
    trajectory: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, keypoints: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> Any:
        """Lifts sequences; arguments, shapes and units as in `PoseTemporal.__call__`."""
        x = Recurrent(
            self.cell, self.width, self.layers, self.bidirectional, self.dropout, self.dtype,
            name="backbone",
        )(frame_features(keypoints, mask), mask, train=train)
        outputs = Outputs(keypoints.shape[2], self.uncertainty, self.trajectory)
        head = nn.Dense(outputs.width, dtype=self.dtype, kernel_init=HEAD_INIT, name="head")
        return outputs.of_frames(head(x))
