"""Pickled arrays: what is data is read, what is a program is not run."""

import contextlib
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcxr.data import object_arrays
from jaxcxr.errors import UserError
from tests.pose.sources import fuzz

CONTENT = {
    "S1": {"Directions 1": np.arange(12, dtype=np.float32).reshape(2, 2, 3)},
    "names": ["a", "b"],
    "number": np.float64(2.5),
    "ragged": [np.zeros((1, 2)), np.asfortranarray(np.arange(6.0).reshape(2, 3))],
    "nothing": None,
}


def equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        np.testing.assert_array_equal(a, b)


def test_object_arrays_of_npz_files_are_what_numpy_reads(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, positions_3d=CONTENT, plain=np.arange(5), empty=np.zeros((0, 3)))
    found = object_arrays.read_npz(path)
    with np.load(path, allow_pickle=True) as reference:
        equal(found["positions_3d"], reference["positions_3d"].item())
        np.testing.assert_array_equal(found["plain"], reference["plain"])
    assert found["empty"].shape == (0, 3)


def test_object_arrays_with_dimensions_stay_arrays(tmp_path):
    objects = np.empty(2, object)
    objects[:] = [np.zeros(3), {"a": 1}]
    np.savez(tmp_path / "a.npz", x=objects)
    found = object_arrays.read_npz(tmp_path / "a.npz")["x"]
    assert found.shape == (2,)
    assert found[1] == {"a": 1}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    equal(object_arrays.read_pickle(path), CONTENT)


class Malicious:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_is_refused_and_does_not_run(tmp_path):
    trace = tmp_path / "trace"
    np.savez(tmp_path / "a.npz", positions_3d=np.array({"S1": Malicious(trace)}, object))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, Malicious(trace)]))
    for read, name in ((object_arrays.read_npz, "a.npz"), (object_arrays.read_pickle, "a.pkl")):
        with pytest.raises(UserError, match=r"posix.system|nt.system"):
            read(tmp_path / name)
    assert not trace.exists()
    pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert trace.exists()  # so the file would have done harm


@pytest.mark.parametrize("value", [
    np.ndarray, np.dtype, os.getcwd, pytest.approx(1.0), range(3), object.__new__,
])
def test_objects_that_are_no_data_are_refused(tmp_path, value):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": value}))
    with pytest.raises(UserError, match=r"a\.pkl was not read"):
        object_arrays.read_pickle(tmp_path / "a.pkl")


def test_an_array_of_another_class_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.ma.masked_array([1.0], [True])))
    with pytest.raises(UserError, match=r"not data|of its own"):
        object_arrays.read_pickle(tmp_path / "a.pkl")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_user_errors(tmp_path_factory, data):
    whole = pickle.dumps(CONTENT, data.draw(st.integers(2, 4)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    broken = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    if broken:
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "broken.pkl"
    path.write_bytes(bytes(broken))
    with contextlib.suppress(UserError):  # a changed number is still a number
        object_arrays.read_pickle(path)


@pytest.mark.parametrize("compression", [
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA,
])
def test_damaged_archives_are_user_errors(tmp_path, compression):
    np.savez(tmp_path / "plain.npz", positions=CONTENT, numbers=np.arange(100.0))
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(tmp_path / "plain.npz") as plain, \
            zipfile.ZipFile(path, "w", compression) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        object_arrays.read_npz(path)

    fuzz.assert_only_user_errors(read, path.read_bytes(), "a.npz", examples=60)


def test_files_that_are_no_archives(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        object_arrays.read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(UserError, match=r"b\.npz is damaged"):
        object_arrays.read_npz(tmp_path / "b.npz")
    with pytest.raises(UserError, match="no file at"):
        object_arrays.read_pickle(tmp_path / "absent.pkl")
