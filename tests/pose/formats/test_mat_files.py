"""MATLAB files: whole ones are read as by SciPy, damaged ones never end the program."""

import io

import hypothesis
import numpy as np
import pytest
import scipy.io
from hypothesis import strategies as st

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import mat_files
from tests.pose.sources import fuzz

CONTENT = {"x": np.arange(6.0).reshape(2, 3), "name": "a", "s": {"y": np.ones(3, np.float32)}}


def content(compressed=True):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, CONTENT, do_compression=compressed)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_whole_file_is_read(tmp_path, compressed):
    path = tmp_path / "a.mat"
    path.write_bytes(content(compressed))
    found = mat_files.read(path)
    np.testing.assert_array_equal(found["x"], CONTENT["x"])
    np.testing.assert_array_equal(found["s"].y, CONTENT["s"]["y"])
    assert found["name"] == "a"
    assert "x" not in mat_files.read(path, ["name"])


def test_what_is_no_file_of_these_versions(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(UserError, match="no file at"):
        mat_files.read(path)
    for start, message in ((b"MATLAB 7.3 MAT-file", "save it with MATLAB's save"),
                           (b"text", "lacks MATLAB's header"), (b"", "lacks MATLAB's header")):
        path.write_bytes(start.ljust(200, b" ") if start else b"")
        with pytest.raises(UserError, match=message):
            mat_files.read(path)
    path.write_bytes(content()[:-1])
    with pytest.raises(UserError, match="ends too early"):
        mat_files.read(path)


def test_damage_of_what_is_compressed_is_found(tmp_path):
    path, valid = tmp_path / "a.mat", content()

    def write_and_read(damaged):
        path.write_bytes(damaged)
        mat_files.read(path)

    fuzz.assert_only_user_errors(write_and_read, valid, "a.mat", examples=200)


# Finding a crash takes a process for each file.
@pytest.mark.slow
def test_damage_of_what_is_not_compressed_ends_another_process(tmp_path):
    path, valid = tmp_path / "a.mat", content(compressed=False)

    @hypothesis.settings(max_examples=20, deadline=None, database=None)
    @hypothesis.given(st.integers(128, len(valid) - 1), st.binary(min_size=1, max_size=4))
    def check(place, junk):
        path.write_bytes(valid[:place] + junk + valid[place + len(junk):])
        try:
            mat_files.read(path)
        except UserError as error:
            if "a.mat" not in str(error):
                raise AssertionError(f"does not name the file: {error}") from error

    check()


def test_a_file_that_ends_scipys_reader_is_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    path.write_bytes(content(compressed=False))
    monkeypatch.setattr(mat_files, "_TRY", "import os; os.abort()")
    with pytest.raises(UserError, match=r"a\.mat is damaged .*it crashes the reader"):
        mat_files.read(path)
    monkeypatch.setattr(mat_files, "_TRY", "import time; time.sleep(60)")
    monkeypatch.setattr(mat_files, "_PATIENCE", 0.2)
    with pytest.raises(UserError, match="took more than 0 s"):
        mat_files.read(path)
