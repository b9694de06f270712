"""Writes what was measured as a result file, which `docs/tables.py` turns into a table."""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcxr.errors import UserError

PACKAGES = ("jaxcxr", "jax", "flax", "optax", "grain")

@dataclasses.dataclass(frozen=True)
class Table:
    """A table of measured numbers, each as the text that a reader sees.

    Attributes:
      columns: the heading of each column.
      rows: a cell for each column.
      note: what a reader must know beside the command: sizes, number of rounds.
      values: single numbers by name, for use inside a sentence.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(
    path: str | pathlib.Path, table: Table, origin: Mapping, date: str = "", **more: Any
) -> None:
    """Writes a result file.

    Arguments:
      path: of the file, by custom docs/results/NAME.json.
      table: what was measured.
      origin: command, machine and versions, as `config.origin` gives them.
      date: of the measurement, ISO 8601; today by default.
      **more: what else the file holds, JSON types.

    Raises:
      UserError: the file cannot be written.
    """
    head = {
        "command": origin["command"],
        "date": date or datetime.date.today().isoformat(),
        "versions": versions_line(origin),
        "machine": origin["machine"],
        **({"note": table.note} if table.note else {}),
        **more,
        "columns": list(table.columns),
        "values": dict(table.values),
    }
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in table.rows)
    text = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    try:
        pathlib.Path(path).write_text(f'{text},\n  "rows": [\n{rows}\n  ]\n}}\n', encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another file."
        ) from error


def versions_line(versions: Mapping) -> str:
    """Formats the versions that matter to a measurement on one line."""
    packages = versions["packages"]
    named = [f"{name} {packages[name]}" for name in PACKAGES if name in packages]
    return ", ".join([*named, f"Python {versions['python']}"])
