"""Layouts: the names and shapes that another library gives to the weights of a model.

A model class declares the layouts that it can be read from as `layouts`; see `layout_tables`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import numpy as np

Read = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
    """Converts a tensor between its form in a file and that in the model.

    Attributes:
      read: takes the tensor of the file and the shape in the model. May raise ValueError with the
        reason why the tensor does not fit.
      write: the inverse.
    """

    read: Read
    write: Callable[[np.ndarray], np.ndarray]


def _first_hwio(w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums over RGB for a one-channel model: the response to three identical channels."""
    if w.ndim == 4 and w.shape[2] == 3 and shape[2] == 1:
        return w.sum(axis=2, keepdims=True)
    return w


def _thirds(w: np.ndarray) -> np.ndarray:
    """Spreads a kernel of one input channel equally over three."""
    return np.repeat(w / 3, 3, axis=2) if w.shape[2] == 1 else w


def _hwio(w: np.ndarray) -> np.ndarray:
    return w.transpose(2, 3, 1, 0)


def _oihw(w: np.ndarray) -> np.ndarray:
    return w.transpose(3, 2, 0, 1)


KEEP = Transform(lambda w, shape: w, lambda w: w)
# `[out, in]` to `[in, out]` or, where the model has heads, `[in, heads, width]`.
DENSE = Transform(lambda w, shape: w.T.reshape(shape), lambda w: w.reshape(len(w), -1).T)
# `[out, in]` to `[heads, width, out]`.
FROM_HEADS = Transform(DENSE.read, lambda w: w.reshape(-1, w.shape[-1]).T)
# `[out]` to `[heads, width]`.
FLAT = Transform(lambda w, shape: w.reshape(shape), lambda w: w.reshape(-1))
# OIHW to HWIO; the first convolution may have one channel here and three there.
CONV = Transform(lambda w, shape: _hwio(w), _oihw)
FIRST_CONV = Transform(
    lambda w, shape: _first_hwio(_hwio(w), shape), lambda w: _oihw(_thirds(w))
)
FIRST_CONV_HWIO = Transform(_first_hwio, _thirds)
_STEM_AXES = {FIRST_CONV: 1, FIRST_CONV_HWIO: 2}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of the library.

    Attributes:
      theirs: its name, with `{}` for each number: "layer{}.{}.conv{}.weight".
      ours: name of the leaf, with the same numbers: "params/backbone/layer{}_{}/conv{}/kernel".
        Several leaves are parts of one tensor, in order along its first axis.
      transform: of each leaf.
    """

    theirs: str
    ours: tuple[str, ...]
    transform: Transform = KEEP

    def read(self, part: int) -> Read:
        """Takes the tensor and the shape of a leaf, and returns the leaf."""
        if len(self.ours) == 1:
            return self.transform.read
        return lambda w, shape: self.transform.read(np.split(w, len(self.ours))[part], shape)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's weights in the files of a library.

    Attributes:
      entries: every tensor.
      renamed: pattern and replacement of names that some files have, applied in order.
      prepare: changes the tensors of a file before they are read; None: nothing.
      ignored: pattern of tensors that the model has no place for.
      class_token: our name of the token that models with mean pooling do without.
      positions: our name of the positions, which are resampled to the model's grid.
      method: of the resampling, "cubic" or "linear".
      antialias: of the resampling.
      library: what the weights are exported for; "" where they are only read.
      fixed: options of the model that the library's architecture fixes.
      names: (our name of a model, theirs), where they differ.
      needs: options that files of this layout leave open: (name, values to choose from, why).
      inputs: of `weights.inputs.NAMED`, if all published files of the layout with three channels
        expect the same; "" where files differ.
      head: their name of the last layer. One with a hidden layer is written as
        `Sequential(Linear, ReLU, Dropout, Linear)` of this name.
      constructor: Python that makes the model there, with fields `{name}`, `{classes}`,
        `{image_size}` and the model's options.
    """

    entries: tuple[Entry, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    prepare: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    ignored: str = ""
    class_token: str = ""
    positions: str = ""
    method: str = "cubic"
    antialias: bool = True
    library: str = ""
    fixed: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    needs: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    inputs: str = ""
    head: str = ""
    constructor: str = ""

    def leaves(self, name: str) -> list[tuple[str, Read]] | None:
        """Leaves that a tensor of a file holds, with their conversions; None if it is unknown."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        if self.ignored and re.fullmatch(self.ignored, name):
            return []
        for entry in self.entries:
            match = _pattern(entry.theirs).fullmatch(name)
            if match:
                return [(our.format(*match.groups()), entry.read(part))
                        for part, our in enumerate(entry.ours)]
        return None

    def stem_axis(self, name: str) -> int | None:
        """Axis of the input channels in the kernel of the first layer; None of other tensors."""
        for entry in self.entries:
            if entry.transform in _STEM_AXES and _pattern(entry.theirs).fullmatch(name):
                return _STEM_AXES[entry.transform]
        return None

    def tensors(
        self, leaves: Mapping[str, np.ndarray], hidden_head: bool = False
    ) -> dict[str, np.ndarray]:
        """Converts the leaves of a model to the library's tensors.

        Arguments:
          leaves: "/"-joined name of the model's -> array.
          hidden_head: whether the head has a hidden layer.

        Raises:
          ValueError: a leaf has no place there.
        """
        entries = self.entries
        if hidden_head:
            hidden = linear(f"{self.head}.0", "params/head/hidden")
            entries = (*hidden, *linear(f"{self.head}.3", HEAD), *entries)
        parts: dict[str, dict[int, np.ndarray]] = {}
        for name, value in leaves.items():
            entry, part, numbers = _place(name, entries)
            theirs = entry.theirs.format(*numbers)
            parts.setdefault(theirs, {})[part] = entry.transform.write(value)
        return {
            name: pieces[0] if len(pieces) == 1
            else np.concatenate([pieces[part] for part in sorted(pieces)])
            for name, pieces in parts.items()
        }


@functools.cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(r"(\d+)".join(map(re.escape, template.split("{}"))))


def _place(name: str, entries: tuple[Entry, ...]) -> tuple[Entry, int, tuple[str, ...]]:
    for entry in entries:
        for part, ours in enumerate(entry.ours):
            match = _pattern(ours).fullmatch(name)
            if match:
                return entry, part, match.groups()
    raise ValueError(f"{name} has no place in this layout")


BACKBONE, HEAD = "params/backbone", "params/head/logits"


def tensor(theirs: str, ours: str, transform: Transform = KEEP) -> Entry:
    """Entry of one tensor that is one leaf."""
    return Entry(theirs, (ours,), transform)


def linear(
    theirs: str, ours: str, kernel: Transform = DENSE, bias: Transform = KEEP
) -> tuple[Entry, ...]:
    """Entries of a layer of torch with `weight` and `bias`."""
    return (
        tensor(f"{theirs}.weight", f"{ours}/kernel", kernel),
        tensor(f"{theirs}.bias", f"{ours}/bias", bias),
    )


def norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """Entries of a normalisation layer of torch."""
    return (
        tensor(f"{theirs}.weight", f"{ours}/scale"), tensor(f"{theirs}.bias", f"{ours}/bias"),
    )


def batch_norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """Entries of a BatchNorm of torch; `ours` is its name inside a collection."""
    return (
        *norm(theirs, f"params/{ours}"),
        tensor(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
        tensor(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
    )
