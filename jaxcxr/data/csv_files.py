"""Label files in csv and text as they are published: one reader for all their differences."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

from jaxcxr.errors import UserError


def csv_rows(
    path: pathlib.Path, columns: Sequence[str], *, latin1: bool = False, ragged: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads a csv file that has at least these columns, in any order and case.

    Arguments:
      path: the file, in UTF-8, with or without byte order mark.
      columns: names of the columns that are needed.
      latin1: what is not UTF-8 is taken for Latin-1.
      ragged: a row may be shorter or longer than the header, as long as it reaches the last of the
        needed columns.

    Yields:
      ("path:line", {column: cell}) of each row that is not empty, all stripped. The needed columns
      are called as in `columns`, others as in the file.

    Raises:
      UserError: the file is absent, no csv, lacks a column or has no row; or a row's length.
    """
    reader = csv.reader(io.StringIO(read_text(path, latin1), newline=""), strict=not ragged)
    header, least, empty = None, 0, True
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            where = f"{path}:{reader.line_num}"
            if header is None:
                header = _header(where, cells, columns)
                least = 1 + max(map(header.index, columns)) if ragged else len(header)
            elif len(cells) < least or (len(cells) > len(header) and not ragged):
                expected = f"at least {least}" if ragged else f"{least}"
                raise UserError(f"{where}: {len(cells)} cells; {expected} are expected")
            else:
                empty = False
                padded = cells + [""] * (len(header) - len(cells))
                yield where, dict(zip(header, padded, strict=False))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a csv file ({error})") from error
    if empty:
        raise UserError(f"{path}: no line with data; the columns {', '.join(columns)} are expected")


def _header(where: str, cells: list[str], columns: Sequence[str]) -> list[str]:
    as_needed = {name.casefold(): name for name in columns}
    header = [as_needed.get(cell.casefold(), cell) for cell in cells]
    for found, wrong in (
        ("no column", [name for name in columns if name not in header]),
        ("several columns", [name for name in columns if header.count(name) > 1]),
    ):
        if wrong:
            names = ", ".join(map(repr, wrong))
            raise UserError(f"{where}: {found} {names} among {', '.join(cells)[:300]}")
    return header


def read_text(path: pathlib.Path, latin1: bool = False) -> str:
    """Text of a file, as `csv_rows` reads it.

    Raises:
      UserError: the file is absent, holds NUL bytes, or is not UTF-8 (and `latin1` is False).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise UserError(f"{path}:{line}: no text: it holds NUL bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if latin1:
            return content.decode("latin-1")
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not in UTF-8; save it as UTF-8") from error
