"""Finds the files below a folder that a person put there."""

import collections
import dataclasses
import fnmatch
import glob
import os
import stat

_SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")
_RESOURCE = "__MACOSX"
_THUMBNAILS = "@eaDir"  # of network drives


@dataclasses.dataclass(frozen=True)
class FolderFiles:
    """Holds the files below a folder.

    Attributes:
      paths: sorted, folder by folder.
      skipped: reason -> how many files or folders were left out for it.
    """

    paths: tuple[str, ...]
    skipped: dict[str, int]

    def remark(self) -> str:
        """Says in one line what was left out; "" if nothing was."""
        if not self.skipped:
            return ""
        counts = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return f"left out: {counts}"


def files_below(folder: str | os.PathLike) -> FolderFiles:
    """Finds all files below a folder, through symbolic links too, each folder once.

    Left out are hidden files and folders, what systems add (`._NAME`, `__MACOSX`, `Thumbs.db`,
    `@eaDir`), links to nothing, and what is no file, such as a pipe that would wait for ever.
    A folder that can be reached directly and by a link is listed by its own name.
    """
    skipped: collections.Counter[str] = collections.Counter()
    entered: set[tuple[int, int]] = set()
    found: list[str] = []
    waiting, links = [os.fspath(folder)], collections.deque[str]()
    while waiting or links:
        here = waiting.pop() if waiting else links.popleft()
        try:
            state = os.stat(here)
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            skipped["folders that cannot be opened"] += 1
            continue
        if (state.st_dev, state.st_ino) in entered:
            continue
        entered.add((state.st_dev, state.st_ino))
        below = []
        for entry in entries:
            if reason := _strange(entry):
                skipped[reason] += 1
            elif not entry.is_dir():
                found.append(entry.path)
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                below.append(entry.path)
        waiting += reversed(below)
    return FolderFiles(tuple(sorted(found, key=os.path.split)), dict(skipped))


def files_matching(pattern: str) -> tuple[str, ...]:
    """Finds the files of a pattern such as `scans/**/*.dcm`, sorted.

    `**` stands for folders at any depth, entered as by `files_below`.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return tuple(sorted(filter(os.path.isfile, glob.glob(pattern))))
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base, rest = "".join(part + os.sep for part in parts[:plain]), parts[plain:]
    root = base or os.curdir
    names = (os.path.relpath(path, root) for path in files_below(root).paths)
    return tuple(base + name for name in names if _matches(name.split(os.sep), rest))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern == ["**"]:
        return bool(parts)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    fits = bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0])
    return fits and _matches(parts[1:], pattern[1:])


def _strange(entry: os.DirEntry) -> str:
    """Says why an entry is left out; "" if it is a file or folder to look at."""
    if entry.name.startswith("._") or entry.name == _RESOURCE:
        return "resource forks of macOS"
    if entry.name.startswith("."):
        return "hidden"
    if entry.name.lower() in _SYSTEM:
        return "files of Windows"
    if entry.name == _THUMBNAILS:
        return "thumbnails of a network drive"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "links to nothing"
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "pipes, sockets or devices"
    return ""
