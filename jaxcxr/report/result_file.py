"""Writes what was measured as a result file, which `docs/tables.py` turns into a table."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence

from jaxcxr.errors import UserError

PACKAGES = ("jaxcxr", "jax", "flax", "optax", "grain")
# flag of /proc/cpuinfo -> name, the widest first
_INSTRUCTIONS = {"avx512f": "AVX-512", "avx2": "AVX2"}


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
    path: str | pathlib.Path, table: Table, versions: Mapping, command: str = "", date: str = ""
) -> None:
    """Writes a result file.

    Arguments:
      path: of the file, by custom docs/results/NAME.json.
      table: what was measured.
      versions: of Python and packages, as `config.provenance` gives them.
      command: that measured; this process's by default.
      date: on which it did, ISO 8601; today by default.

    Raises:
      UserError: the file cannot be written.
    """
    head = {
        "command": command or command_line(),
        "date": date or datetime.date.today().isoformat(),
        "versions": versions_line(versions),
        "machine": machine(),
        **({"note": table.note} if table.note else {}),
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


def command_line() -> str:
    """Formats the command of this process as one types it: `jaxcxr ...`, `python -m ...`."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else ""
    if not module:
        program = [pathlib.Path(sys.argv[0]).name]
    elif module == "jaxcxr":
        program = ["jaxcxr"]
    else:
        program = ["python", "-m", module]
    return shlex.join([*program, *sys.argv[1:]])


def versions_line(versions: Mapping) -> str:
    """Formats the versions that matter to a measurement on one line."""
    packages = versions["packages"]
    named = [f"{name} {packages[name]}" for name in PACKAGES if name in packages]
    return ", ".join([*named, f"Python {versions['python']}"])


def machine() -> str:
    """Describes the kind of machine: accelerators, CPU cores and their instruction set."""
    import jax  # lazily: what reads result files alone needs no accelerator

    kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    accelerators = f"{len(kinds)} x {kinds[0]}, " if kinds else ""
    return f"{accelerators}{os.cpu_count()} CPU cores, {_instruction_set()}"


def _instruction_set() -> str:
    name = platform.machine().replace("x86_64", "x86-64").replace("AMD64", "x86-64")
    if name in ("arm64", "aarch64"):
        return f"{name} with NEON"  # part of the architecture
    try:
        flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        return f"{name}, instruction set not recorded"
    widest = next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), "")
    return f"{name} with {widest}" if widest else name
