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


@pytest.mark.parametrize(("one", "other"), [
    ("test/0000.png", "train/0000.png"), ("a/0000.png", "b/0000.png"),
    ("test/images/0000.png", "train/images/0000.png"), (r"x\test\i\0.png", "val/i/0.png"),
    ("valid/0.jpg", "Test/0.png"), ("x/y/0.png", "/data/x/z/0.png"),
])
def test_one_name_in_two_folders_is_no_match(one, other):
    with pytest.raises(UserError, match="same name in different folders"):
        image_paths.match([one], [other], "A", "B")
    # Where the other has its own counterpart, there is nothing to refuse.
    assert list(image_paths.match([one, other], [other], "A", "B")) == [-1, 0]


@pytest.mark.parametrize(("one", "other", "by_name"), [
    ("0.png", "train/0.png", 1), ("train/0.png", "0", 1), ("0.PNG", "0.jpg", 0),
    ("CheXpert-v1.0/valid/p1/s1/v.jpg", "/data/chexpert/valid/p1/s1/v.jpg", 0),
    (r"D:\films\a\0.dcm", "a/0.dcm", 0), ("./a//0.png", "a/0.png", 0), ("A/0.png", "a/0.png", 0),
])
def test_ends_of_paths_match_whatever_stands_before(one, other, by_name):
    for wanted, available in (([one], [other]), ([other], [one])):
        places = image_paths.match(wanted, available, "A", "B")
        assert places.tolist() == [0]
        assert image_paths.by_name_only(wanted, available, places) == by_name


def test_the_longest_end_wins_among_many_of_one_name():
    available = [f"p{i}/s{j}/view1.jpg" for i in range(40) for j in range(3)]
    wanted = [f"/root/set/{name}" for name in reversed(available)]
    expected = list(range(len(available)))[::-1]
    assert image_paths.match(wanted, available, "A", "B").tolist() == expected
    with pytest.raises(UserError, match=r"both match s1/view1\.jpg of A"):
        image_paths.match(["s1/view1.jpg"], available, "A", "B")


def test_the_folder_of_all_files_helps_to_choose():
    wanted = ["train/0.png", "test/0.png"]
    assert image_paths.match(wanted, ["0.png"], "A", "B", root="/x/test").tolist() == [-1, 0]
    with pytest.raises(UserError, match="same name"):
        image_paths.match(["train/0.png"], ["0.png"], "A", "B", root="/x/test")
    assert image_paths.match(["old/0.png"], ["0.png"], "A", "B", root="/x/y").tolist() == [0]
