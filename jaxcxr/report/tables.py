"""Formats tables, for the screen or as Markdown, and writes the files of a result."""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcxr.errors import UserError


def flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Splits each `NAME_interval` of an entry into `NAME_interval_low` and `_high`."""
    columns = {}
    for name, value in entry.items():
        if "_interval" in name:
            columns[f"{name}_low"], columns[f"{name}_high"] = value or (None, None)
        else:
            columns[name] = value
    return columns


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Formats lines of cells as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def markdown(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Formats a header and lines of cells as Markdown, `left` columns to the left."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    rule = "|".join("---" if column < left else "---:" for column in range(len(lines[0])))
    return [rows[0], f"|{rule}|", *rows[1:]]


def number(value: float | None, form: str = ".3f", undefined: str = "n/a") -> str:
    """Formats a number; None and NaN give `undefined`."""
    return undefined if value is None or math.isnan(value) else format(value, form)


def span(
    interval: Sequence[float] | None, form: str = ".3f", undefined: str = "n/a"
) -> str:
    """Formats an interval; None and NaN give `undefined`."""
    if interval is None or math.isnan(interval[0]):
        return undefined
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]"


def value_or_none(value: float) -> float | None:
    """Turns NaN into None, for JSON."""
    return None if math.isnan(value) else float(value)


def interval_or_none(interval: Sequence[float]) -> list[float] | None:
    """Turns an undefined interval into None, for JSON."""
    return None if math.isnan(interval[0]) else [float(bound) for bound in interval]


def write_csv(path: pathlib.Path, header: Sequence[str], lines: Iterable[Sequence]) -> None:
    """Writes a csv, whole or not at all: an existing file is complete."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(itertools.chain([header], lines))
    partial.replace(path)


def write_result(
    out: pathlib.Path, result: Mapping, rows: Sequence[Mapping], parts: Sequence[str]
) -> None:
    """Writes `result` to metrics.json, `rows` to metrics.csv and `parts` to metrics.md.

    Arguments:
      out: folder, made if absent.
      result: JSON types.
      rows: the first has all columns.
      parts: paragraphs.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
        (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
        (out / "metrics.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        with (out / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} cannot be written ({error.strerror}); choose another folder "
            "with --out DIR"
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that is reported for classes, groups or models.

    Attributes:
      name: its key in metrics.json and column in metrics.csv.
      undefined: where it has no value, in words.
      title: head of its column; "" keeps it in the files alone.
      brief: head of its column in tables of 80 characters; "" leaves it out of them.
      page: head of its column on the report page; "" leaves it out.
      higher: whether more of it is better; None: neither.
      form: format of its values.
      unit: of its values; "" for a share.
      span: whether tables show its interval beside it.
      brief_span: whether tables of 80 characters do.
      macro: whether its unweighted mean over classes is reported.
    """

    name: str
    undefined: str
    title: str = ""
    brief: str = ""
    page: str = ""
    higher: bool | None = True
    form: str = ".3f"
    unit: str = ""
    span: bool = True
    brief_span: bool = False
    macro: bool = True

    @property
    def interval(self) -> str:
        """Key of its interval."""
        return f"{self.name}_interval"

    def entry(self, value: float, interval: Sequence[float] | None = None) -> dict:
        """Returns value and, where given, interval under their keys; None where undefined."""
        found: dict[str, float | list[float] | None] = {self.name: value_or_none(value)}
        if interval is not None:
            found[self.interval] = interval_or_none(interval)
        return found

    def number(self, entry: Mapping) -> str:
        """Formats the value: "n/a" where undefined, "" where the entry has no such metric."""
        return number(entry[self.name], self.form) if self.name in entry else ""

    def cell(self, entry: Mapping) -> str:
        """Returns the value as text, with its interval where there is one."""
        ends = entry.get(self.interval) if self.span else None
        return self.number(entry) + (f" {span(ends, self.form)}" if ends else "")
