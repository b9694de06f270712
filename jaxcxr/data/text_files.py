"""Opens text and csv files as people save them, whatever the encoding, separator or compression."""

import csv
import dataclasses
import gzip
import hashlib
import io
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxcxr.errors import UserError

_GZIP, _UTF16 = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
# A first line for Excel, which says the separator.
_EXCEL = re.compile(r'"?sep=([,;|\t])"?\1*', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CsvFile:
    """A csv file with a header; cells are stripped, blank lines left out.

    Attributes:
      path: the file.
      fingerprint: its name and the SHA-256 of its bytes.
      head: `file:line` of the header.
      columns: the header.
      rows: one list of cells per row, as long as the header.
      lines: line number of each row.
    """

    path: pathlib.Path
    fingerprint: dict[str, str]
    head: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Returns `file:line` of a row."""
        return f"{self.path}:{self.lines[row]}"

    def column(self, names: Sequence[str]) -> int | None:
        """Returns the index of the first of `names` that is the key of a column; None if none is.

        Raises:
          UserError: two columns have that name.
        """
        folded = [column_key(name) for name in self.columns]
        name = next((name for name in names if name in folded), None)
        if name is None:
            return None
        if folded.count(name) > 1:
            shown = self.columns[folded.index(name)]
            raise UserError(f"{self.head}: several columns {shown!r}; remove all but one")
        return folded.index(name)

    def parse(self, column: int, parse: Callable, dtype) -> np.ndarray:
        """Parses the cells of a column, each different text once.

        Arguments:
          column: its index.
          parse: text to value; a ValueError says what is wrong with it, as in "is no number".
          dtype: of the result, `[rows, ...]`.

        Raises:
          UserError: a cell is wrong; the message names its place, text and column.
        """
        values: dict[str, object] = {}
        for i, row in enumerate(self.rows):
            text = row[column]
            if text not in values:
                try:
                    values[text] = parse(text)
                except ValueError as error:
                    raise UserError(
                        f"{self.where(i)}: {text!r} in column {self.columns[column]} {error}"
                    ) from None
        return np.array([values[row[column]] for row in self.rows], dtype)


def read_csv(
    path: str | pathlib.Path, needed: Sequence[str] = (), ragged: bool = False
) -> CsvFile:
    """Reads a csv file separated by commas, semicolons, tabs or bars, encoded as `read_text` knows.

    Arguments:
      path: the file.
      needed: columns that must be there, in any order and case; the result spells them like this.
      ragged: a row may be shorter or longer than the header, as long as it reaches the last of the
        needed columns.

    Raises:
      UserError: the file is absent, is no csv, lacks a column, has no row or a row of wrong length.
    """
    path = pathlib.Path(path)
    content = read_bytes(path)
    text = _decoded(content, path)
    source = io.StringIO(text, newline="")
    separator, told = _separator(text)
    reader = csv.reader(source, delimiter=separator, strict=not ragged)
    columns: list[str] = []
    rows, lines, head, least = [], [], "", 0
    try:
        for cells in reader:
            cells, where = [cell.strip() for cell in cells], f"{path}:{reader.line_num}"
            if not any(cells):
                continue
            if told:
                told = False
                continue
            if not columns:
                columns, head = _header(where, cells, needed), where
                least = 1 + max(map(columns.index, needed), default=-1) if ragged else len(columns)
                continue
            if len(cells) < least or (any(cells[len(columns) :]) and not ragged):
                expected = f"at least {least}" if ragged else f"{least}"
                raise UserError(f"{where}: {len(cells)} cells; {expected} are expected")
            rows.append((cells + [""] * (len(columns) - len(cells)))[: len(columns)])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a csv file ({error})") from error
    if not rows:
        names = ", ".join(needed or ("image_id", "..."))
        raise UserError(f"{path}: no line with data; the columns {names} are expected, and rows")
    return CsvFile(path, fingerprint_of(path, content), head, tuple(columns), rows, lines)


def csv_rows(
    path: pathlib.Path, needed: Sequence[str], ragged: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads a csv file as `read_csv` does; yields ("path:line", {column: cell}) of each row."""
    file = read_csv(path, needed, ragged)
    for i, row in enumerate(file.rows):
        yield file.where(i), dict(zip(file.columns, row, strict=True))


def _separator(text: str) -> tuple[str, bool]:
    """Returns the separator, and whether the first line says it: else the most frequent there."""
    head = next((line.strip(" \r\n") for line in io.StringIO(text) if line.strip()), "")
    if told := _EXCEL.fullmatch(head):
        return told[1], True
    return max(",;\t|", key=re.sub(r'"[^"]*"', "", head).count), False


def _header(where: str, cells: list[str], needed: Sequence[str]) -> list[str]:
    while not cells[-1]:  # some releases end each line with a comma
        cells = cells[:-1]
    as_needed = {name.casefold(): name for name in needed}
    header = [as_needed.get(cell.casefold(), cell) for cell in cells]
    for found, wrong in (
        ("no column", [name for name in needed if name not in header]),
        ("several columns", [name for name in needed if header.count(name) > 1]),
    ):
        if wrong:
            names = ", ".join(map(repr, wrong))
            raise UserError(f"{where}: {found} {names} among {', '.join(cells)[:300]}")
    return header


def read_list(path: str | pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """Reads a list of images, one name per line, each once; adds the list's name and SHA-256.

    Raises:
      UserError: as `read_text`, or the list is empty.
    """
    path = pathlib.Path(path)
    content = read_bytes(path)
    names = list(dict.fromkeys(filter(None, map(str.strip, _decoded(content, path).splitlines()))))
    if not names:
        raise UserError(f"{path}: empty; one image per line is needed")
    return names, fingerprint_of(path, content)


def read_text(path: pathlib.Path) -> str:
    """Reads a file in UTF-8, UTF-16 with a byte order mark, or else Latin-1; also gzipped.

    Raises:
      UserError: the file is absent, holds NUL bytes, or is in none of these encodings.
    """
    return _decoded(read_bytes(path), path)


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file; a UserError says why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _decoded(content: bytes, path: pathlib.Path) -> str:
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be decompressed: {error}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        try:
            text = content.decode("cp1252")  # Latin-1 as Windows has it
        except UnicodeDecodeError:
            raise UserError(f"{path}:{line}: not in UTF-8; save it as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{path}:{line}: no text: it holds NUL bytes; save it as UTF-8")
    return text


def fingerprint_of(path: pathlib.Path, content: bytes) -> dict[str, str]:
    """Returns the name of a file and the SHA-256 of its content."""
    return {"name": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def fold(name: str) -> str:
    """Strips case, spaces and underscores from the name of a column or class."""
    return re.sub(r"[\s_]+", "", name).casefold()


def column_key(name: str) -> str:
    """Reduces the name of a column to its letters and digits: `Patient-ID` becomes `patientid`."""
    return re.sub(r"[\W_]+", "", name).casefold()
