"""Ids of images: which rows of two files are of the same image."""

import pytest

from jaxcxr.data import image_paths
from jaxcxr.errors import UserError


def test_ids_match_whole_before_they_match_in_part():
    def match(wanted, available):
        return list(image_paths.match(wanted, available, "A", "B"))

    assert match(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == [1, 0]
    assert match(["scans/1.png", "2"], ["2.PNG", r"C:\scans\1.png"]) == [1, 0]
    # The numbers of DICOM are no file endings.
    assert match(["1.2.840.5", "1.2.840.6"], ["1.2.840.6.dcm", "1.2.840.5.dcm"]) == [1, 0]
    # What is taken by its whole id is no other image's.
    assert match(["a/1.png", "b/1.png"], ["a/1.png"]) == [0, -1]
    with pytest.raises(UserError, match=r"B: a/1.png and b/1.png both match 1.png of A"):
        match(["1.png"], ["a/1.png", "b/1.png"])
    with pytest.raises(UserError, match=r"A: a/1.png and b/1.png both match 1 of B"):
        match(["a/1.png", "b/1.png"], ["1"])
