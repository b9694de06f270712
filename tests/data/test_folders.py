"""Files below a folder: links, loops, and what is no film."""

import glob
import os
import socket

import pytest

from jaxcxr.data import folders


def test_links_are_entered_once_and_strange_entries_are_counted(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "a/deep", root / "__MACOSX", root / ".hidden", other / "series"):
        folder.mkdir(parents=True)
    for file in (root / "b.png", root / "a/x.png", root / "a/deep/y", root / "._b.png",
                 root / "__MACOSX/._b.png", root / ".hidden/z.png", root / "Thumbs.db",
                 root / ".DS_Store", other / "series/film.dcm"):
        file.write_bytes(b"x")
    (root / "0_loop").symlink_to(root)
    (root / "0_same").symlink_to(root / "a")
    (root / "linked").symlink_to(other)
    (other / "back").symlink_to(root / "a" / "deep")
    (root / "one.png").symlink_to(other / "series/film.dcm")
    (root / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket.dcm"))
        found = folders.files_below(root)
    assert [os.path.relpath(path, root) for path in found.paths] == [
        "b.png", "one.png", "a/x.png", "a/deep/y", "linked/series/film.dcm"]
    assert found.skipped == {
        "resource forks of macOS": 2, "hidden": 2, "files of Windows": 1, "links to nothing": 1,
        "pipes, sockets or devices": 2}
    assert found.remark().startswith("left out: ")
    assert folders.files_below(other / "series").remark() == ""


@pytest.mark.parametrize("pattern", [
    "*.png", "**/*.png", "**", "a/**/*", "**/b/*.dcm", "a/**/b/**/*.dcm", "[ac]/*.png", "none/**",
])
@pytest.mark.parametrize("absolute", [False, True])
def test_patterns_are_those_of_glob(tmp_path, monkeypatch, pattern, absolute):
    for name in ("a/x.png", "a/b/y.dcm", "a/b/c/z.dcm", "c/x.png", "top.png", "b/w.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    pattern = str(tmp_path / pattern) if absolute else pattern
    expected = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    assert sorted(folders.files_matching(pattern)) == expected


def test_a_pattern_does_not_run_in_circles(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(b"x")
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert folders.files_matching(f"{tmp_path}/**/*.png") == (f"{tmp_path}/a/x.png",)
