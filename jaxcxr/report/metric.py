"""One record for each number that is reported; columns of tables and files are made from them."""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxcxr.report import tables


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
    span: bool = True
    brief_span: bool = False
    macro: bool = True

    @property
    def interval(self) -> str:
        """Key of its interval."""
        return f"{self.name}_interval"

    def entry(self, value: float, interval: Sequence[float] | None = None) -> dict:
        """Value and, where given, interval under their keys; None where undefined."""
        found: dict[str, float | list[float] | None] = {self.name: tables.value_or_none(value)}
        if interval is not None:
            found[self.interval] = tables.interval_or_none(interval)
        return found

    def number(self, entry: Mapping) -> str:
        """The value as text: "n/a" where undefined, "" where the entry has no such metric."""
        return tables.number(entry[self.name], self.form) if self.name in entry else ""

    def cell(self, entry: Mapping) -> str:
        """The value as text, with its interval where there is one."""
        ends = entry.get(self.interval) if self.span else None
        return self.number(entry) + (f" {tables.span(ends, self.form)}" if ends else "")
