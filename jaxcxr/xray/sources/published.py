"""Builds published data sets with labels of their own: views, schemas, doubtful labels, files.

A source subclasses `PublishedBuilder` and implements `films`, which reads its tables. All else is
shared: lateral films are left out unless asked for, labels become those of the schema, what the
tables say is printed, and each image is found by the end of its path.
"""

import abc
import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import rich.console
import rich.table

from jaxcxr import registry
from jaxcxr.data import progress, vocabulary
from jaxcxr.data.dataset import open_builder
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.data.vocabulary import NO_FINDING, UNCERTAIN
from jaxcxr.errors import UserError, some
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published_files import Files

SCHEMAS = ("own", *vocabulary.SCHEMAS)
VIEWS = ("frontal", "all")
_MEANINGS = {"unknown": UNKNOWN, "negative": NEGATIVE, "positive": POSITIVE}
_SYNONYMS = {"u-ignore": "unknown", "u-zeros": "negative", "u-ones": "positive"}


@dataclasses.dataclass(frozen=True)
class Film:
    """Describes an image as its data set's tables do.

    Attributes:
      image_id, patient_id: as in `builder.ImageRecord`.
      path: the end of the path of its file that tells it from others.
      split: "train", "validation" or "test"; "" to be assigned by patient.
      labels: the data set's name of a finding -> 1, 0 or `UNCERTAIN`; absent: blank.
      view: "PA", "AP", "L" or ""; `frontal` tells where it is "".
      frontal: whether it is a frontal film; None unknown.
      others: further fields of `builder.ImageRecord`.
      boxes: (name of a finding, x, y, width, height).
    """

    image_id: str
    patient_id: str
    path: str
    split: str
    labels: Mapping[str, int]
    view: str = ""
    frontal: bool | None = True
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    boxes: tuple[tuple[Any, ...], ...] = ()


@dataclasses.dataclass(eq=False)
class PublishedConfig(builder.UnsplitConfig):
    """Options of a published data set.

    Attributes:
      schema: names of the classes, "own" (as the data set has them), "chestxray14", "cxr15",
        "chexpert" or "union".
      views: "frontal" leaves lateral films and those of unknown view out; "all" takes them.
      val_fraction: share of the training patients that go to validation where no such split is
        published.
      test_fraction: share of the patients that go to the test split where none is published.
    """

    schema: str = "own"
    views: str = "frontal"

    def __post_init__(self):
        super().__post_init__()
        self._choice("schema", SCHEMAS)
        self._choice("views", VIEWS)


@dataclasses.dataclass(eq=False)
class LabelerConfig(PublishedConfig):
    """Options of a data set whose labels a program read from reports.

    Attributes:
      uncertain: what -1 means, "unknown" (U-Ignore), "negative" (U-Zeros) or "positive" (U-Ones).
      blank: what an empty cell means, that is a finding the report does not mention, "unknown" or
        "negative".
    """

    uncertain: str = "unknown"
    blank: str = "unknown"

    def __post_init__(self):
        self.uncertain = _SYNONYMS.get(self.uncertain.casefold(), self.uncertain)
        super().__post_init__()
        self._choice("uncertain", tuple(_MEANINGS))
        self._choice("blank", ("unknown", "negative"))


class PublishedBuilder(builder.XrayBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds a published data set; official splits are kept, others carved by patient."""

    own: ClassVar[tuple[str, ...]]  # its findings, without No Finding
    unaffected: ClassVar[tuple[str, ...]] = ()  # of these, No Finding says nothing

    @abc.abstractmethod
    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the tables.

        Returns:
          All films, and remarks on what was left out.

        Raises:
          UserError: a table is absent or malformed.
        """

    def settled_classes(self) -> tuple[str, ...]:
        """Returns the classes of the chosen schema."""
        schema = self.builder_config.schema
        return self.own if schema == "own" else vocabulary.SCHEMAS[schema]

    def _info(self):
        self.classes = self.settled_classes()
        return super()._info()

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Reads the tables, prints what they hold, and finds the images of the chosen views."""
        files = Files.below(raw)
        films, notes = self._listed(raw, files)
        show(self.name, films, self.own)
        films, carved = self._split(films)
        found = files.find([film.path for film in films])
        rows = self.completed(dict(zip(self._records(films), found, strict=True)))
        return builder.Collection.of(rows, (*notes, *carved))

    def _listed(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the films of the chosen views, with the labels that No Finding implies."""
        self.classes = self.settled_classes()
        films, notes = self.films(raw, files)
        films, left_out = self._of_views(films)
        films, blanks = _without_findings(films, self.own, self.unaffected)
        if not films:
            said = ". ".join((*notes, *left_out))
            raise UserError(f"{self.name}: no image in {raw} is left to prepare. {said}")
        counts = collections.Counter(film.image_id for film in films)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"{self.name}: {len(twice)} images are listed twice: {some(twice)}")
        return films, [*notes, *left_out, *blanks]

    def listing(self, raw: pathlib.Path) -> builder.ImageListing:
        """Reads the tables alone; a split that is not published is ""."""
        films, notes = self._listed(raw, Files.below(raw))
        return builder.ImageListing(tuple(self._records(films)), tuple(notes))

    def completed(self, rows: dict) -> dict:
        """Adds to records what their files tell; a source may override it."""
        return rows

    def _of_views(self, films: Sequence[Film]) -> tuple[list[Film], list[str]]:
        """Leaves out films that are not frontal, unless all are asked for."""
        if self.builder_config.views == "all":
            return list(films), []
        lateral = [film.image_id for film in films if film.frontal is False]
        unknown = [film.image_id for film in films if film.frontal is None]
        option = "--views all takes them"
        return [film for film in films if film.frontal], [
            *builder.note(lateral, f"images are not frontal and are left out; {option}"),
            *builder.note(unknown, f"images are left out, as nothing tells their view; {option}"),
        ]

    def _split(self, films: Sequence[Film]) -> tuple[list[Film], list[str]]:
        """Assigns the splits that are not published, by a hash of the patient's id."""
        config = self.builder_config
        official = {film.split for film in films} - {""}
        if official:
            val, test = 0.0 if "validation" in official else config.val_fraction, 0.0
            facts = [f"official splits: {', '.join(sorted(official))}"]
            if val:
                facts.append(f"of these, {val:.1%} of the training patients go to validation")
        else:
            val, test = config.fractions
            facts = ["no split is published; patients are assigned by a hash of their ids"]
        divided = "train" if official else ""
        result = [
            dataclasses.replace(film, split=builder.split_of(film.patient_id, val, test))
            if film.split == divided else film
            for film in films
        ]
        splits: dict[str, set[str]] = collections.defaultdict(set)
        for film in result:
            splits[film.patient_id].add(film.split)
        both = [patient for patient, names in splits.items() if len(names) > 1]
        fact = "patients are in two of the published splits, which are kept"
        return result, [*facts, *builder.note(both, fact)]

    def _parts(self) -> dict[str, list[str]]:
        """Class -> the findings of the data set that mean it or a part of it."""
        if self.builder_config.schema == "own":
            return {name: [name] for name in self.own}
        return {name: vocabulary.parts_of(name, self.own) for name in self.classes}

    def _records(self, films: Sequence[Film]) -> list[builder.ImageRecord]:
        config, parts = self.builder_config, self._parts()
        meaning = {UNCERTAIN: _MEANINGS[getattr(config, "uncertain", "unknown")]}
        blank = _MEANINGS[getattr(config, "blank", "unknown")]
        places = {part: i for i, name in enumerate(self.classes) for part in parts[name]}
        records = []
        for film in films:
            labels = (
                vocabulary.combined(film.labels.get(part, blank) for part in parts[name])
                for name in self.classes
            )
            records.append(builder.ImageRecord(
                image_id=film.image_id, patient_id=film.patient_id, source=self.name,
                split=film.split, labels=tuple(meaning.get(label, label) for label in labels),
                view=film.view, boxes=tuple(
                    (float(places[name]), *box) for name, *box in film.boxes if name in places
                ),
                **film.others,
            ))  # fmt: skip
        return records


def recognised(folder: pathlib.Path) -> tuple[PublishedBuilder, builder.ImageListing] | None:
    """Reads the tables of the published data set that a folder holds; None if it holds none."""
    for name, source in registry.SOURCES.items():
        if source.task != "cxr" or not issubclass(registry.builder_class(name), PublishedBuilder):
            continue
        opened = open_builder(registry.builder_class(name), folder, views="all")
        try:
            return opened, opened.listing(folder)
        except UserError:
            continue  # of another data set
    return None


def _without_findings(
    films: Sequence[Film], own: Sequence[str], unaffected: Sequence[str]
) -> tuple[list[Film], list[str]]:
    """Makes blank findings of a film with No Finding absent, as its definition says."""
    result, filled, contrary = [], 0, []
    for film in films:
        if film.labels.get(NO_FINDING) == POSITIVE:
            blank = [name for name in own if name not in film.labels and name not in unaffected]
            filled += len(blank)
            if any(film.labels.get(n) == POSITIVE for n in own if n not in unaffected):
                contrary.append(film.image_id)
            labels = dict.fromkeys(blank, NEGATIVE) | dict(film.labels)
            film = dataclasses.replace(film, labels=labels)
        result.append(film)
    notes = [f"{filled:,} blank labels are absent, as {NO_FINDING} is present"] if filled else []
    return result, [
        *notes, *builder.note(contrary, f"images have both {NO_FINDING} and a finding; both stay")
    ]


def show(name: str, films: Sequence[Film], own: Sequence[str]) -> None:
    """Prints how often each finding is present, absent, uncertain and blank in the tables."""
    patients = len({film.patient_id for film in films})
    table = rich.table.Table(
        "", "positive", "negative", "uncertain", "blank",
        title=f"{name}: {len(films):,} images of {patients:,} patients, labels as published",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    never = []
    for finding in (*own, NO_FINDING):
        counts = collections.Counter(film.labels.get(finding) for film in films)
        cells = [counts[key] for key in (POSITIVE, NEGATIVE, UNCERTAIN, None)]
        if counts[None] < len(films):
            table.add_row(finding, *(f"{count:,}" for count in cells))
        elif finding != NO_FINDING:
            never.append(finding)
    rich.console.Console().print(table)
    if never:
        progress.say(f"{name}: no image is labeled for {', '.join(never)}")


def labels_of(cells: Mapping[str, str], names: Iterable[str], where: str) -> dict[str, int]:
    """Reads the cells of findings: 1, 0, -1 (uncertain) or nothing (blank).

    Raises:
      UserError: a cell holds anything else.
    """
    labels = {}
    for name in names:
        text = cells[name]
        label = _CELLS.get(text)
        if label is None:
            try:
                label = _CELLS[f"{float(text):g}"]
            except (KeyError, ValueError):
                if text.casefold() in ("", "nan"):
                    continue
                raise UserError(
                    f"{where}: {text!r} in column {name} is no label; allowed: 1, 0, -1 and nothing"
                ) from None
        labels[name] = label
    return labels


_CELLS = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN, "1.0": POSITIVE, "0.0": NEGATIVE,
          "-1.0": UNCERTAIN}  # fmt: skip
