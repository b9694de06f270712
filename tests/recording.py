"""Writes what tests measure as result files: `pytest -n 0 ... --record docs/results`."""

import pathlib

from jaxcxr import config
from jaxcxr.report import result_file


class Recorder:
    """Collects tables over a session; each is written anew whenever a test adds to it."""

    def __init__(self, folder: str | None):
        self._folder = folder
        self._tables: dict[str, result_file.Table] = {}

    def __call__(self, name, *rows, columns=(), note="", **values):
        """Adds rows and values, as a reader sees them, to NAME.json; does nothing without a folder.

        A row replaces one that begins alike.
        """
        old = self._tables.get(name, result_file.Table(columns, [], note))
        kept = {row[0]: row for row in [*old.rows, *rows]}
        table = result_file.Table(
            old.columns or columns, list(kept.values()), old.note or note, {**old.values, **values}
        )
        self._tables[name] = table
        if self._folder:
            path = pathlib.Path(self._folder, f"{name}.json")
            result_file.write(path, table, config.origin())
