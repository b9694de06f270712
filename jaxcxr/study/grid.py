"""Defines a study, its rows, seeds and data sets, the config of each run, and its tables."""

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table

Overrides = Mapping[str, Any]
RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared.

    Arguments:
      data: names of the data sets, in order; arguments of the file's `get_config`.
      rows: name -> what it changes in the config, as {dotted key: value}, or a function from a
        `Context` to that. A row that depends on others comes after them.
      reference: the row that all are compared with; of several, the one with the best mean of the
        monitored metric on the validation split.
      seeds: of the config.
      finalists: 0, or how many rows have more than the first seed: the best of a data set by the
        monitored metric on the validation split. The reference and the best row that is no
        candidate for it have all seeds too.
    """

    data: tuple[str, ...]
    rows: Mapping[str, Overrides | Callable[["Context"], Overrides]]
    reference: str | tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    finalists: int = 0

    def __post_init__(self):
        for name in (*self.data, *self.rows):
            if not name or any(c not in _NAME for c in name):
                raise UserError(
                    f"{name!r} is no name of a row or data set: it names a folder; use letters, "
                    "digits, '.', '_' and '-'."
                )
        for name in self.references:
            if name not in self.rows:
                raise UserError(
                    f"reference {name!r} is no row of the study; rows: {', '.join(self.rows)}."
                )
        if not self.data or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("a study needs at least one data set and one seed, no seed twice.")
        if self.finalists < 0:
            raise UserError(f"a study has {self.finalists} finalists; give 0 (all rows) or more.")

    @property
    def references(self) -> tuple[str, ...]:
        """Rows among which the reference is chosen."""
        return (self.reference,) if isinstance(self.reference, str) else tuple(self.reference)


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One run: a row with a seed on a data set."""

    data: str
    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}/{self.row}/seed_{self.seed}"


class Waiting(Exception):
    """A row needs the result of another that is not there; `cell` says which."""

    def __init__(self, cell: Cell):
        super().__init__(str(cell))
        self.cell = cell


@dataclasses.dataclass(frozen=True)
class Context:
    """What a row that is a function may look at.

    Attributes:
      config: what the row starts from, with the seed set.
    """

    data: str
    seed: int
    config: Any
    root: pathlib.Path

    def finished(self, row: str) -> dict[str, Any]:
        """The result of another row with the same seed on the same data, as in `result.json`.

        Its entry `learned` holds the spans, orders and gates that heads learned: parameter path
        -> list of one number for each head.
        """
        cell = Cell(self.data, row, self.seed)
        result = read_result(self.root / str(cell))
        if result is None:
            raise Waiting(cell)
        return result


def load(path: pathlib.Path) -> tuple[Study, Callable[[str], Any]]:
    """Loads a study file: its study and its `get_config`.

    Raises:
      UserError: the file cannot be read or is no study.
    """
    if not path.is_file():
        raise UserError(f"there is no study file {path}.")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no study file: its name does not end in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read the study file {path}: {error}") from error
    for name in ("get_study", "get_config"):
        if not hasattr(module, name):
            raise UserError(f"{path} is no study file: it has no function {name}().")
    return module.get_study(), module.get_config


def cells(study: Study) -> list[Cell]:
    """Lists all runs: one data set after another, all rows of a seed before the next seed.

    With finalists the first seed comes first on all data sets, so that a table is there early.
    """
    rounds = (study.seeds[:1], study.seeds[1:]) if study.finalists else (study.seeds,)
    return [
        Cell(data, row, seed)
        for seeds in rounds for data in study.data for seed in seeds for row in study.rows
    ]


def out_of_the_race(
    study: Study, root: pathlib.Path, cell: Cell, higher: bool, failed: Collection[Cell] = ()
) -> bool:
    """Tells whether a run is left out because its row is no finalist.

    Arguments:
      failed: runs that will not be finished; their rows are no finalists.
    """
    first = study.seeds[0]
    if not study.finalists or cell.seed == first:
        return False
    values = {}
    for row in study.rows:
        qualifier = Cell(cell.data, row, first)
        if qualifier in failed:
            continue
        result = read_result(root / str(qualifier))
        if result is None:
            raise Waiting(qualifier)
        values[row] = result["validation"][result["monitor"]]
    ranking = sorted(values, key=values.__getitem__, reverse=higher)
    reference = [row for row in ranking if row in study.references]
    others = [row for row in ranking if row not in study.references]
    return cell.row not in (*ranking[: study.finalists], *reference[:1], *others[:1])


def resolve(study: Study, config_of, root: pathlib.Path, cell: Cell):
    """Builds the validated config of a run.

    Raises:
      Waiting: the row needs a result that is not there.
      UserError: its overrides do not fit the config.
    """
    from jaxcxr import config as config_lib

    config = config_of(cell.data)
    config.seed = cell.seed
    overrides = study.rows[cell.row]
    if callable(overrides):
        overrides = overrides(Context(cell.data, cell.seed, config, root))
    try:
        config.update_from_flattened_dict(dict(overrides))
    except (KeyError, TypeError) as error:
        raise UserError(f"row {cell.row!r} does not fit the config: {error.args[0]}") from error
    config_lib.validate(config)
    return config


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """Reads the result of a run; None if it is not finished."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_tables(
    study: Study, config_of: Callable[[str], Any], root: pathlib.Path
) -> Iterator[tuple[str, Table | None]]:
    """Writes the table of each data set that has a finished run, and that of lifted poses.

    Arguments:
      config_of: name of a data set -> the config that all rows start from.

    Yields:
      Each table as Markdown, once it is written, and as of a result file, but for the poses.
    """
    from jaxcxr.study import study_table

    found, poses = False, []
    for data in study.data:
        results = {
            row: {
                seed: result for seed in study.seeds
                if (result := read_result(root / str(Cell(data, row, seed)))) is not None
            }
            for row in study.rows
        }
        if not any(results.values()):
            continue
        config = config_of(data)
        found, higher = True, config.checkpoint.mode == "max"
        table = study_table.make(data, results, study.references, higher)
        (root / f"table_{data}.csv").write_text(study_table.to_csv(table), encoding="utf-8")
        text = study_table.to_markdown(table)
        (root / f"table_{data}.md").write_text(text, encoding="utf-8")
        yield text, Table(
            ("data", *study_table.header(table)),
            [(data, *line) for line in study_table.cells(table)],
            f"Reference: {table.reference}." if table.reference else "",
        )
        scored = {row: {seed: result for seed, result in runs.items() if "sequences" in result}
                  for row, runs in results.items()}
        if any(scored.values()):
            poses += study_table.make_poses(data, config.data.frames, scored, table.reference)
    if poses:
        (root / "poses.csv").write_text(study_table.poses_csv(poses), encoding="utf-8")
        text = study_table.poses_markdown(poses)
        (root / "poses.md").write_text(text, encoding="utf-8")
        yield text, None
    if not found:
        raise UserError(f"no run of the study is finished in {root}.")
