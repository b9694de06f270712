"""Opens tables of any common kind as text: csv in its forms, Parquet, Excel workbooks."""

import dataclasses
import datetime
import io
import pathlib
import warnings
from collections.abc import Iterator, Sequence

import openpyxl
import pyarrow as pa
import pyarrow.parquet

from jaxcxr.data import text_files
from jaxcxr.data.text_files import CsvFile
from jaxcxr.errors import UserError

_PARQUET, _ZIP, _OLD_EXCEL = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


def read_table(path: str | pathlib.Path, sheet_with: Sequence[str] = ()) -> CsvFile:
    """Reads a table; its content tells the kind, whatever the file's ending.

    Arguments:
      path: csv (see `text_files.read_csv`), Parquet or xlsx. A whole number that is stored as a
        float, `12.0`, is read without its decimals, an empty cell and NaN as "".
      sheet_with: names of columns as `text_files.column_key` leaves them; of several filled sheets
        of a workbook, the only one with such a column is read.

    Raises:
      UserError: the file is absent or broken, has no row, or several sheets may be meant.
    """
    path = pathlib.Path(path).expanduser()
    content = text_files.read_bytes(path)
    if content.startswith(_PARQUET):
        head, rows = _parquet(path, content)
    elif content.startswith(_ZIP):
        head, rows = _workbook(path, content, sheet_with)
    elif content.startswith(_OLD_EXCEL):
        raise UserError(f"{path}: an Excel file of before 2007; save it as .xlsx or .csv")
    else:
        file = text_files.read_csv(path)
        return dataclasses.replace(file, rows=[list(map(_whole, row)) for row in file.rows])
    columns = [_text(cell) for cell in head]
    filled = [(line, [_text(cell) for cell in row]) for line, row in rows]
    filled = [(line, row) for line, row in filled if any(row)]
    if not filled:
        raise UserError(f"{path}: no row with data; a header and a row per image are expected")
    lines, cells = zip(*filled, strict=True)
    fingerprint = text_files.fingerprint_of(path, content)
    return CsvFile(path, fingerprint, str(path), tuple(columns), list(cells), list(lines))


def _parquet(path: pathlib.Path, content: bytes) -> tuple[Sequence, Iterator[tuple[int, list]]]:
    try:
        table = pyarrow.parquet.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from error
    columns = [column.to_pylist() for column in table.columns]
    rows = zip(*columns, strict=True) if columns else iter(())
    return table.column_names, ((i, list(row)) for i, row in enumerate(rows, 1))


def _workbook(
    path: pathlib.Path, content: bytes, sheet_with: Sequence[str]
) -> tuple[Sequence, Iterator[tuple[int, list]]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which do not matter
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = {sheet.title: _filled(sheet) for sheet in book.worksheets}
    except Exception as error:  # whatever zipfile and the XML parsers below openpyxl raise
        raise UserError(f"{path} is no workbook that can be read: {error}") from error
    sheets = {title: rows for title, rows in sheets.items() if rows}
    if not sheets:
        raise UserError(f"{path}: no sheet with data; a header and a row per image are expected")
    if len(sheets) > 1:
        sheets = {
            title: rows for title, rows in sheets.items()
            if any(text_files.column_key(_text(cell)) in sheet_with for cell in rows[0][1])
        } or sheets
    if len(sheets) > 1:
        raise UserError(
            f"{path}: the sheets {', '.join(sheets)} may all hold the labels; save the one that "
            "is meant as a csv file"
        )
    (_, head), *rows = next(iter(sheets.values()))
    width = max((i for i, cell in enumerate(head, 1) if _text(cell)), default=0)
    return head[:width], ((line, list(row)[:width]) for line, row in rows)


def _filled(sheet) -> list[tuple[int, tuple]]:
    """Returns the rows of a sheet that are not empty, with their numbers."""
    rows = sheet.iter_rows(values_only=True)
    return [
        (line, row) for line, row in enumerate(rows, 1)
        if any(cell not in (None, "") for cell in row)
    ]


def _whole(text: str) -> str:
    """Strips the decimal of `12.0`, as programs write numbers, such as patients, beside gaps."""
    return text[:-2] if text.endswith((".0", ",0")) and text[:-2].isdecimal() else text


def _text(cell) -> str:
    """Writes a cell as a csv file would hold it."""
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    if isinstance(cell, list | tuple):
        return "|".join(_text(part) for part in cell)
    return str(cell).strip()
