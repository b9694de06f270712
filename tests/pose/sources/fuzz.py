"""Damaged label files: whatever is in a file, a parser returns rows or raises a UserError."""

import csv
import io
from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st

from jaxcxr.errors import UserError

_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32-be", "cp1252", "cp500")
_JUNK = (b"\0", b'"', b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b",,,,", b"\n\n", b"9" * 5000, b"-1e999")


def assert_only_user_errors(
    write_and_read: Callable[[bytes], object], valid: bytes, named: str, examples: int = 80
) -> None:
    """Feeds a parser with random bytes and with damaged copies of a file that is in its form.

    Arguments:
      write_and_read: writes the bytes as the label file and calls the parser.
      valid: content of a file that the parser reads; this is checked first.
      named: must occur in each error message: the name of the file.
      examples: how many files are tried.

    Raises:
      AssertionError: a message does not name the file. Any error but UserError comes out as it is.
    """
    write_and_read(valid)

    @hypothesis.settings(max_examples=examples, deadline=None, database=None)
    @hypothesis.given(damaged(valid))
    def check(content: bytes) -> None:
        try:
            write_and_read(content)
        except UserError as error:
            if named not in str(error):
                raise AssertionError(f"the message does not name {named}: {error}") from error

    check()


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Random bytes, or a file that was cut, overwritten, encoded otherwise or lost cells."""
    ways = [st.binary(max_size=200), _cut(valid), _overwritten(valid)]
    try:
        text = valid.decode("utf-8")
    except UnicodeDecodeError:
        text = valid.decode("latin-1") if b"\0" not in valid else ""  # else it is no text at all
    if text:
        ways += [_encoded(text), _cells_lost(text), _cells_replaced(text)]
    return st.one_of(ways)


def _cut(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, max(len(valid) - 1, 0)).map(lambda end: valid[:end])


@st.composite
def _overwritten(draw, valid: bytes) -> bytes:
    start = draw(st.integers(0, len(valid)))
    end = min(len(valid), start + draw(st.integers(0, 20)))
    return valid[:start] + draw(st.one_of(st.sampled_from(_JUNK), st.binary())) + valid[end:]


def _encoded(text: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from(_ENCODINGS).map(lambda name: text.encode(name, errors="replace"))


@st.composite
def _cells_lost(draw, text: str) -> bytes:
    """Takes a column away, or the end of one line."""
    rows = _rows(text)
    column = draw(st.integers(0, max(map(len, rows)) - 1))
    which = draw(st.one_of(st.none(), st.integers(0, len(rows) - 1)))
    if which is None:
        return _text([row[:column] + row[column + 1 :] for row in rows])
    return _text([row[:column] if i == which else row for i, row in enumerate(rows)])


@st.composite
def _cells_replaced(draw, text: str) -> bytes:
    rows = _rows(text)
    line = draw(st.integers(0, len(rows) - 1))
    if rows[line]:
        rows[line][draw(st.integers(0, len(rows[line]) - 1))] = draw(st.text(max_size=20))
    return _text(rows)


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""))) or [[""]]


def _text(rows: list[list[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue().encode("utf-8", errors="replace")
