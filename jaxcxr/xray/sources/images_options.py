"""Reads the options that say how a table of one's own is meant."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from jaxcxr.data import label_tables, text_files
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.errors import UserError, nearest_or_known

# Role of a column -> its entry in `label_tables.COLUMNS`.
ROLES = {
    "image": "image_id", "patient": "patient_id", "study": "study_id", "split": "split",
    "source": "source", "view": "view", "sex": "sex", "age": "age",
}  # fmt: skip
LABELS = "labels"  # role of a column with the names of classes
MEANINGS = {"unknown": UNKNOWN, "negative": NEGATIVE, "positive": POSITIVE}
_KEYS = (*ROLES, LABELS, "classes", "ignore", "values")
_YAML = (".yaml", ".yml", ".json")


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Says how a table is meant, as far as the user told.

    Attributes:
      columns: role -> column.
      classes: class -> column, or -> name in a column of labels; empty: all that read as labels.
      ignored: columns left out.
      values: text of a cell -> label, beside those that `label_tables.label_of` knows.
      blank, uncertain: the label of an empty cell and of -1.
      separator: between the names in a column of labels; "": found, "none": there is none.
    """

    columns: Mapping[str, str]
    classes: Mapping[str, str]
    ignored: tuple[str, ...]
    values: Mapping[str, int]
    blank: int
    uncertain: int
    separator: str

    def label_of(self, text: str) -> int:
        """Parses the cell of a label, see `label_tables.label_of`."""
        if text.casefold() in self.values:
            return self.values[text.casefold()]
        return label_tables.label_of(text, self.blank, self.uncertain)


def read(
    columns: Sequence[str], classes: Sequence[str], ignore: Sequence[str], *,
    blank: str, uncertain: str, separator: str,
) -> Meaning:
    """Reads the options of the source `images`.

    Arguments:
      columns: `ROLE=COLUMN` each, or one path of a YAML file with roles, `labels`, `classes`,
        `ignore` and `values` as keys.
      classes: `CLASS` or `CLASS=COLUMN` each.
      ignore: columns.
      blank, uncertain: of `MEANINGS`.
      separator: see `Meaning`.

    Raises:
      UserError: a wrong form, an unknown role, or a file that cannot be read.
    """
    given: dict[str, Any] = {}
    for word in columns:
        role, equals, column = word.partition("=")
        if equals:
            given[role.strip()] = column.strip()
        elif word.casefold().endswith(_YAML):
            given |= _file(pathlib.Path(word).expanduser())
        else:
            raise UserError(
                f"images: --columns {word!r} is neither ROLE=COLUMN nor a YAML file; roles: "
                f"{', '.join((*ROLES, LABELS))}."
            )
    for key in given:
        if key not in _KEYS:
            raise UserError(f"images: --columns has no role {key!r}.{nearest_or_known(key, _KEYS)}")
    named = given.pop("classes", None) or {}
    pairs = {str(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {
        str(name): str(name) for name in named
    }
    for word in classes:
        name, equals, column = word.partition("=")
        pairs[name.strip()] = (column if equals else name).strip()
    values = {str(k).casefold(): v for k, v in (given.pop("values", None) or {}).items()}
    for text, value in values.items():
        if value not in (POSITIVE, NEGATIVE, UNKNOWN):
            raise UserError(f"images: values: {text!r} means {value!r}; allowed: 1, 0, -1.")
    ignored = tuple(map(str, given.pop("ignore", None) or ()))
    return Meaning(
        columns={role: str(column) for role, column in given.items()},
        classes=pairs,
        ignored=(*ignored, *ignore),
        values={text: int(value) for text, value in values.items()},
        blank=MEANINGS[blank],
        uncertain=MEANINGS[uncertain],
        separator=separator,
    )


def _file(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text_files.read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    lists = {"classes": (dict, list), "ignore": (list,), "values": (dict,)}
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected lines such as 'image: COLUMN'; see docs/own-data.md")
    for key, value in found.items():
        allowed = lists.get(key, (str, int, float))
        if value is not None and not isinstance(value, allowed):
            raise UserError(f"{path}: {key} cannot be {value!r}; see docs/own-data.md")
    return {str(key): value for key, value in found.items() if value is not None}
