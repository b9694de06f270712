"""Files below a folder: links, loops, and what is no film."""

import os
import socket

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
