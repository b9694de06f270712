"""Tables as csv files from anywhere: their cells, and where each stands, for messages."""

import csv
import dataclasses
import hashlib
import io
import pathlib
import re
from collections.abc import Sequence

from jaxcxr.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A csv file: cells without spaces around them, and where each row stands.

    Attributes:
      path: the file.
      fingerprint: its name and the SHA-256 of its bytes.
      columns: the header.
      rows: one list of cells per row, as long as the header.
      lines: line number of each row.
    """

    path: pathlib.Path
    fingerprint: dict[str, str]
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.path}:{self.lines[row]}"

    def column(self, folded: Sequence[str]) -> int | None:
        """Index of the first of the columns named, in the order of the names."""
        names = [fold(name) for name in self.columns]
        return next((names.index(name) for name in folded if name in names), None)


def read_sheet(path: pathlib.Path) -> Sheet:
    """Reads a csv file with a header, blank lines left out.

    Raises:
      UserError: it cannot be read, is no UTF-8 csv, has no rows, or rows of other lengths.
    """
    text, fingerprint = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: tuple[str, ...] = ()
    rows, lines = [], []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = _header(cells, path)
                continue
            if len(cells) < len(columns) or any(cells[len(columns) :]):
                raise UserError(
                    f"{path}:{reader.line_num}: {len(cells)} cells, but the header has "
                    f"{len(columns)} columns"
                )
            rows.append(cells[: len(columns)])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a csv file ({error})") from error
    if not rows:
        raise UserError(f"{path}: {'only a header' if columns else 'empty'}; rows are needed")
    return Sheet(path, fingerprint, columns, rows, lines)


def _header(cells: list[str], path: pathlib.Path) -> tuple[str, ...]:
    while not cells[-1]:  # some releases end each line with a comma
        cells = cells[:-1]
    if len(cells) == 1:
        for mark, name in ((";", "semicolons"), ("\t", "tabs")):
            if mark in cells[0]:
                raise UserError(f"{path}:1: separated by {name}; save it with commas")
    return tuple(cells)


def read_list(path: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """Images of a split list, one name per line, and the list's name and SHA-256.

    Raises:
      UserError: it cannot be read, is not UTF-8 text, or is empty.
    """
    text, fingerprint = read_text(path)
    names = list(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))
    if not names:
        raise UserError(f"{path}: empty; one image per line is needed")
    return names, fingerprint


def read_text(path: pathlib.Path) -> tuple[str, dict[str, str]]:
    """Text of a UTF-8 file, and its name and SHA-256.

    Raises:
      UserError: it cannot be read, or is not UTF-8 text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
        bad = text.find("\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        line = (text or content[:bad].decode("latin-1"))[:bad].count("\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8")
    return text, {"name": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def fold(name: str) -> str:
    """The name of a column or class without case, spaces and underscores."""
    return re.sub(r"[\s_]+", "", name).casefold()
