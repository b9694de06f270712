"""Says where the encoder blocks of a model are, for what draws, prunes or measures them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxcxr.models.attention.geometry import Geometry, of_layout


@dataclasses.dataclass(frozen=True)
class Stack:
    """Encoder blocks of a model that take their attention from one option.

    A model declares its stacks by a method `stacks(shape)`, `shape` being that of an input without
    the batch. Their parameters are at `backbone/NAME_0/attention`, `backbone/NAME_1/attention` ...

    Attributes:
      name: of the blocks, without their numbers.
      option: of the model, which names their kinds of attention.
      depth: number of blocks.
      tokens: number of tokens.
      layout: facts about the tokens, as `layers.layers` takes them.
    """

    name: str
    option: str
    depth: int
    tokens: int
    layout: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks."""
        return [f"{self.name}_{index}" for index in range(self.depth)]

    @property
    def where(self) -> Geometry:
        """Where the tokens stand."""
        return of_layout(**self.layout)


def stacks(model: Any, shape: tuple[int, ...]) -> tuple[Stack, ...]:
    """The stacks that a model declares for inputs of this shape; none by default."""
    return model.stacks(shape) if hasattr(model, "stacks") else ()
