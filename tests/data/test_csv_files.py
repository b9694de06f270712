"""The reader of label files: encodings, columns in any case and order, rows of other lengths."""

import pytest

from jaxcxr.data.csv_files import csv_rows, read_text
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


def test_latin1_only_where_allowed(tmp_path):
    content = "id,Age\n1,5°\n".encode("latin-1")
    assert rows(tmp_path, content, latin1=True)[0][1]["Age"] == "5°"
    assert rows(tmp_path, "id,Age\n1,5°\n".encode(), latin1=True)[0][1]["Age"] == "5°"
    with pytest.raises(UserError, match=r"table\.csv:2: not in UTF-8"):
        rows(tmp_path, content)


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
])
def test_what_is_wrong_is_said_with_the_place(tmp_path, content, words):
    with pytest.raises(UserError, match=rf"table\.csv.*{words}"):
        rows(tmp_path, content)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt")
