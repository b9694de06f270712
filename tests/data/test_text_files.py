"""Text and csv files: encodings, separators, columns in any case and order, ragged rows."""

import csv
import gzip
import hashlib
import io

import pytest

from jaxcxr.data.text_files import csv_rows, read_csv, read_list, read_text
from jaxcxr.errors import UserError


def rows(tmp_path, content, columns=("id", "Age"), **how):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    return list(csv_rows(path, columns, **how))


def test_rows_come_with_their_line_and_stripped_cells(tmp_path):
    found = rows(tmp_path, b'\xef\xbb\xbf Age ,x,id\r\n 5 ,"a\nb", 1\r\n\r\n,,\r\n6,,2\r\n')
    assert [cells for _, cells in found] == [
        {"Age": "5", "x": "a\nb", "id": "1"}, {"Age": "6", "x": "", "id": "2"},
    ]
    assert [where.rpartition(":")[2] for where, _ in found] == ["3", "6"]


def test_columns_match_in_any_case_and_are_called_as_asked_for(tmp_path):
    assert rows(tmp_path, b"ID,aGE,Other\n1,2,3\n")[0][1] == {"id": "1", "Age": "2", "Other": "3"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("separator", ",;\t")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_encoding_separator_and_compression(tmp_path, encoding, separator, pack):
    lines = [["id", "a,b;c", "Age"], ["é", "38 °C", "5"], ["b", "\t; ,", "-1,5"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(lines)
    path = tmp_path / "table.csv"
    path.write_bytes(pack(text.getvalue().encode(encoding)))
    file = read_csv(path, ("id", "Age"))
    assert file.columns == ("id", "a,b;c", "Age")
    assert file.rows == [["é", "38 °C", "5"], ["b", "; ,", "-1,5"]]
    assert file.fingerprint["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("separator", ",;\t|")
@pytest.mark.parametrize("first", ["sep={0}", "SEP={0}", '"sep={0}"', "sep={0}{0}{0}"])
def test_a_first_line_for_excel_tells_the_separator(tmp_path, separator, first):
    lines = [first.format(separator), separator.join(("id", "Age")), separator.join("12")]
    found = rows(tmp_path, "\r\n".join(lines).encode())
    assert [(where.rpartition(":")[2], cells) for where, cells in found] == [
        ("3", {"id": "1", "Age": "2"}),
    ]


def test_lists_are_read_as_tables_are(tmp_path):
    path = tmp_path / "list.txt"
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        path.write_bytes("é.png\r\n\r\n b.png\r\né.png".encode(encoding))
        assert read_list(path)[0] == ["é.png", "b.png"]


def test_ragged_rows_reach_the_last_needed_column(tmp_path):
    content = b"x,id,Age,y,z\n1,2,3\n1,2,3,4,5,6\n"
    found = [cells for _, cells in rows(tmp_path, content, ragged=True)]
    assert found[0] == {"x": "1", "id": "2", "Age": "3", "y": "", "z": ""}
    assert found[1] == {"x": "1", "id": "2", "Age": "3", "y": "4", "z": "5"}
    with pytest.raises(UserError, match=r"table\.csv:2: 3 cells; 5 are expected"):
        rows(tmp_path, content)
    with pytest.raises(UserError, match=r"table\.csv:2: 2 cells; at least 3 are expected"):
        rows(tmp_path, b"x,id,Age,y\n1,2\n", ragged=True)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "no line with data; the columns id, Age are expected"),
    (b"id,Age\n", "no line with data"),
    (b"id\n1\n", r":1: no column 'Age' among id"),
    (b"id,Age,age\n1,2,3\n", r":1: several columns 'Age' among id, Age, age"),
    (b"id,Age\n1,\0\n", r":2: no text: it holds NUL bytes"),
    (b'id,Age\n1,"2" 3\n', r":2: not a csv file"),
    (b"id,Age\n1,\x81\n", r":2: not in UTF-8; save it as UTF-8"),
    (b"\xff\xfei\0d", r":1: no text: it holds NUL bytes"),
    (b"\x1f\x8bno gzip", r" cannot be decompressed"),
])
def test_what_is_wrong_is_said_with_the_place(tmp_path, content, words):
    with pytest.raises(UserError, match=rf"table\.csv.*{words}"):
        rows(tmp_path, content)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt")
