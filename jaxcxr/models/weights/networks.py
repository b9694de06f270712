"""Finds the network in a weight file, whatever wraps it: dicts, prefixes, other networks."""

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxcxr import registry
from jaxcxr.errors import UserError
from jaxcxr.models.weights import hub, weight_files
from jaxcxr.models.weights.layouts import Layout

_BOUNDARY = re.compile(r"[./]")
# Of several copies of a network in a file: moving averages and teachers are those that their
# authors evaluate (DINO, iBOT, timm), and queries rather than keys (MoCo).
_BEST = re.compile(r"(^|[./_])(teacher|ema|averaged)([./_]|$)")
_WORSE = re.compile(r"(^|[./_])(student|momentum|encoder_k|key_encoder)([./_]|$)")
_HEAD = "params/head/"
_NEARLY = 0.95  # of the tensors of the best: as much of a network as the best


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of a weight file.

    Attributes:
      path: of the file.
      layout: of its tensors.
      tensors: by the names of the layout.
      prefix: what stands before these names in the file, with its last separator.
      beside: names of the tensors of the file that are not of this network.
    """

    path: pathlib.Path
    layout: Layout
    tensors: Mapping[str, np.ndarray]
    prefix: str = ""
    beside: tuple[str, ...] = ()

    @property
    def stem_channels(self) -> int:
        """Channels that the first layer takes; 0 if that is not known."""
        for name, tensor in self.tensors.items():
            axis = self.layout.stem_axis(name)
            if axis is not None and tensor.ndim == 4:
                return tensor.shape[axis]
        return 0

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuses options of a model that weights in this layout leave open.

        Raises:
          UserError: the message says which to choose.
        """
        for option, allowed, reason in self.layout.needs:
            if options.get(option) not in allowed:
                raise UserError(
                    f"{self.path}: {reason}; choose --config.model.options.{option}="
                    f"{' or '.join(allowed)}."
                )

    def describe(self) -> str:
        """One line: file, part of it, and what else it holds."""
        part = f", {self.prefix.rstrip('./')}" if self.prefix else ""
        others = sorted({_BOUNDARY.split(name)[0] for name in self.beside} if not self.prefix else
                        {_common(name, self.prefix) for name in self.beside})
        more = ", ..." if len(others) > 4 else ""
        rest = f"; not {', '.join(others[:4])}{more}" if others else ""
        return f"{self.path}{part}: {len(self.tensors)} tensors{rest}"


def _common(name: str, prefix: str) -> str:
    """The beginning of a name, up to the first part that is not of the prefix."""
    end = 0
    for match in _BOUNDARY.finditer(name):
        if not prefix.startswith(name[: match.end()]):
            return name[: match.start()]
        end = match.end()
    return name if end else _BOUNDARY.split(name)[0]


def layouts_of(model_name: str) -> tuple[Layout, ...]:
    """The layouts that a model can be read from.

    Raises:
      UserError: no library has weights of it.
    """
    layouts = getattr(registry.model(model_name).func, "layouts", ())
    if not layouts:
        known = [name for name in registry.MODELS
                 if getattr(registry.model(name).func, "layouts", ())]
        raise UserError(
            f"there are no pretrained weights for model {model_name!r}: the weights of other "
            f"libraries are known for {', '.join(known)}; remove the option."
        )
    return layouts


def open_file(path: str | pathlib.Path, model_name: str, part: str = "") -> Network:
    """Reads the network that a weight file holds for a model.

    It is looked for behind any prefix and inside any dict of the file: where most of the names are
    those of one of the model's layouts.

    Arguments:
      path: as in `weight_files.read`, or a name as in `hub.local`.
      model_name: of `registry.MODELS`.
      part: a part of the names in the file, to choose among several networks: "student".

    Raises:
      UserError: the file cannot be read, holds several such networks, or lacks the part.
    """
    layouts = layouts_of(model_name)
    path = weight_files.locate(hub.local(path))
    arrays = weight_files.read(path)
    wanted = [p for p in _BOUNDARY.split(part) if p]
    names = [name for name in arrays if _contains(_BOUNDARY.split(name), wanted)]
    if not names:
        heads = sorted({_BOUNDARY.split(name)[0] for name in arrays})
        raise UserError(
            f"{path} has no part {part!r}; its names begin with {', '.join(heads[:10])}."
        )
    layout, prefix = _best(path, layouts, names)
    ours = {name: name[len(prefix):] for name in names if name.startswith(prefix)}
    if not any(_is_head(layout, name) for name in ours.values()):
        ours |= _head_above(layout, prefix, names)
    taken = {name: arrays[theirs] for theirs, name in ours.items()}
    taken = layout.prepare(taken) if layout.prepare else taken
    return Network(path, layout, taken, prefix, tuple(name for name in arrays if name not in ours))


def _is_head(layout: Layout, name: str) -> bool:
    return any(leaf.startswith(_HEAD) for leaf, _ in layout.leaves(name) or ())


def _head_above(layout: Layout, prefix: str, names: Collection[str]) -> dict[str, str]:
    """The head that stands before a backbone's prefix, as transformers' `vit.` and `classifier.`.

    Returns:
      Its names in the layout, by those in the file; the nearest if there are several.
    """
    for start in reversed([0, *(match.end() for match in _BOUNDARY.finditer(prefix))][:-1]):
        above = {name: name[start:] for name in names if name.startswith(prefix[:start])}
        if heads := {name: short for name, short in above.items() if _is_head(layout, short)}:
            return heads
    return {}


def _contains(names: list[str], wanted: list[str]) -> bool:
    """Whether the parts stand side by side in the name."""
    spots = range(len(names) - len(wanted) + 1)
    return any(names[i : i + len(wanted)] == wanted for i in spots)


def _best(
    path: pathlib.Path, layouts: tuple[Layout, ...], names: Collection[str]
) -> tuple[Layout, str]:
    """The layout and the prefix under which a file has most of a backbone."""
    found: dict[tuple[int, str], set[str]] = {}
    for number, layout in enumerate(layouts):
        for name in names:
            for start in (0, *(match.end() for match in _BOUNDARY.finditer(name))):
                leaves = layout.leaves(name[start:]) or ()
                targets = {leaf for leaf, _ in leaves if not leaf.startswith(_HEAD)}
                if targets:
                    found.setdefault((number, name[:start]), set()).update(targets)
    if not found:
        return layouts[-1], ""
    most = max(map(len, found.values()))
    best: dict[str, Any] = {}
    for (number, prefix), targets in sorted(found.items(), key=lambda item: -len(item[1])):
        if len(targets) >= _NEARLY * most:
            best.setdefault(prefix, layouts[number])
    ranks = {prefix: _rank(prefix) for prefix in best}
    chosen = [prefix for prefix in best if ranks[prefix] == max(ranks.values())]
    if len(chosen) > 1:
        parts = ", ".join(prefix.rstrip("./") or "(without a prefix)" for prefix in chosen)
        raise UserError(
            f"{path} holds {len(chosen)} networks: {parts}; choose one by "
            "--config.model.pretrained_part."
        )
    return best[chosen[0]], chosen[0]


def _rank(prefix: str) -> int:
    return bool(_BEST.search(prefix)) - bool(_WORSE.search(prefix))
