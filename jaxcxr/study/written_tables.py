"""Writes the tables of a study, of the runs that are finished."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxcxr.errors import UserError
from jaxcxr.study import pose_table, study_table
from jaxcxr.study.grid import Cell, Study, read_result


def write(
    study: Study, config_of: Callable[[str], Any], root: pathlib.Path
) -> Iterator[str]:
    """Writes the table of each data set that has a finished run, and that of lifted poses.

    Arguments:
      study: the study.
      config_of: name of a data set -> the config that all rows start from.
      root: the workdir.

    Yields:
      each table as Markdown, once it is written.

    Raises:
      UserError: no run of the study is finished.
    """
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
        yield text
        scored = {row: {seed: result for seed, result in runs.items() if "sequences" in result}
                  for row, runs in results.items()}
        if any(scored.values()):
            poses += pose_table.make(data, config.data.frames, scored, table.reference)
    if poses:
        (root / "poses.csv").write_text(pose_table.to_csv(poses), encoding="utf-8")
        text = pose_table.to_markdown(poses)
        (root / "poses.md").write_text(text, encoding="utf-8")
        yield text
    if not found:
        raise UserError(f"no run of the study is finished in {root}.")
