"""Finds the tables and images of a published data set, in whatever folders a person put them."""

import collections
import dataclasses
import fnmatch
import gzip
import os
import pathlib
import re
import zlib
from collections.abc import Sequence

from jaxcxr.data import folders
from jaxcxr.data.text_files import fold
from jaxcxr.errors import UserError, some


@dataclasses.dataclass(frozen=True)
class Files:
    """Finds files below a folder, at any depth, by the ends of their paths.

    Attributes:
      root: the folder.
      paths: all files, relative to it, nearest and then alphabetically first.
    """

    root: pathlib.Path
    paths: tuple[pathlib.PurePath, ...]

    @classmethod
    def below(cls, root: pathlib.Path) -> "Files":
        """Lists the files of a folder."""
        start = len(os.path.join(root, ""))
        paths = [pathlib.PurePath(path[start:]) for path in folders.files_below(root).paths]
        return cls(root, tuple(sorted(paths, key=lambda path: (len(path.parts), path))))

    def needed_table(
        self, names: Sequence[str], wanted: str, columns: Sequence[str] = ()
    ) -> pathlib.Path:
        """Returns a table as `table` does.

        Raises:
          UserError: there is none; the message calls it `wanted`.
        """
        found = self.table(names, columns)
        if not found:
            raise UserError(f"{self.root}: no {wanted} in it or a folder of it")
        return found

    def table(self, names: Sequence[str], columns: Sequence[str] = ()) -> pathlib.Path | None:
        """Returns the table with the first of `names`, gzipped or not, nearest to the root.

        Arguments:
          names: without .gz; case does not matter, and `*` stands for anything.
          columns: a table of another data set has none of these.

        Raises:
          UserError: there are two at the same depth.
        """
        for name in names:
            there = [
                path for path in self.paths
                if _fits(path.name, name) and _has(self.root / path, columns)
            ]
            there = [path for path in there if len(path.parts) == len(there[0].parts)]
            stems = {str(path).casefold().removesuffix(".gz") for path in there}
            if len(stems) > 1:
                raise UserError(
                    f"{self.root} holds several tables {name}: {some(map(str, there))}; give --raw "
                    "the folder of one data set"
                )
            if there:
                return self.root / there[0]
        return None

    def find(self, wanted: Sequence[str]) -> list[pathlib.Path | None]:
        """Finds images by the longest end of their paths that fits; endings of files may differ.

        Arguments:
          wanted: paths whose last parts tell an image from others; all parts must fit. One that
            is right from the root on needs no search.

        Returns:
          For each its file, None if there is none.

        Raises:
          UserError: two files in different folders fit alike.
        """
        depths = {len(pathlib.PurePath(path).parts) for path in wanted}
        places: dict[tuple[str, ...], list[pathlib.PurePath]] = collections.defaultdict(list)
        for path in self.paths:
            parts = (*path.parent.parts, _stem(path.name))
            for depth in depths:
                if len(parts) >= depth:
                    places[parts[-depth:]].append(path)
        result: list[pathlib.Path | None] = []
        whole = set(self.paths)
        for name in wanted:
            path = pathlib.PurePath(name)
            if path in whole:
                result.append(self.root / path)
                continue
            there = places.get((*path.parent.parts, _stem(path.name)), [])
            same = [found for found in there if found.suffix.casefold() == path.suffix.casefold()]
            there = same or there
            if len({found.parent for found in there}) > 1:
                raise UserError(
                    f"{self.root}: {there[0]} and {there[1]} both fit {name}; give --raw the "
                    "folder of one data set"
                )
            result.append(self.root / there[0] if there else None)
        return result


def _fits(name: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(name.casefold().removesuffix(".gz"), wanted.casefold())


def _has(path: pathlib.Path, columns: Sequence[str]) -> bool:
    """Tells whether the first line of a table names one of the columns."""
    if not columns:
        return True
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.readline(2**16).replace(b"\0", b"").decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return True  # reading it says what is wrong
    found = {fold(cell.strip("\ufeff\ufffd\"' \r\n")) for cell in re.split("[,;\t]", head)}
    return any(fold(column) in found for column in columns)


def _stem(name: str) -> str:
    for ending in (".jpg", ".jpeg", ".png", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp"):
        while name.casefold().endswith(ending):
            name = name[: -len(ending)]
    return name
