"""Reads images of one's own: a folder and a table of labels, or one folder for each class.

Any table with a column of images and either a column for each finding or one with the names of the
findings. What was understood is printed before anything is written.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import ClassVar

from jaxcxr.data import image_paths, label_tables, progress, text_files, vocabulary
from jaxcxr.data.table_files import read_table
from jaxcxr.errors import BadRecord, UserError, some
from jaxcxr.xray.sources import (
    builder,
    images_folders,
    images_options,
    images_splits,
    images_table,
    understood,
)

NAME = "images"
READING = "reading.json"  # beside the records: what they were made from

_LISTS = {"train": "train_list", "validation": "val_list", "test": "test_list"}
_VALIDATION, _TEST = 0.125, 0.2
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_FROM_HEADER = ("patient", "sex", "age", "view")


@dataclasses.dataclass(eq=False)
class ImagesConfig(builder.UnsplitConfig):
    """Options of a data set of one's own.

    Attributes:
      dataset: name of the prepared data set, which configs ask for.
      images: folder of the images, at any depth.
      labels: table of labels: csv, tsv, gzipped or not, Parquet or xlsx; without, each class has
        a folder.
      columns: what columns are, where their names do not tell, as ROLE=COLUMN,..., or a YAML file;
        the roles are image, patient, study, split, source, view, sex, age and labels (a column
        of names of classes).
      classes: the classes, as CLASS or CLASS=COLUMN; without, all columns that read as labels.
      ignore: columns to leave out.
      blank: what an empty cell means, "unknown", "negative" or "positive".
      uncertain: what -1 means, "unknown", "negative" or "positive".
      separator: between the names in a column of labels, or "none".
      train_list: file with a training image on each line.
      val_list: file with a validation image on each line.
      test_list: file with a test image on each line.
      val_fraction: share of the patients that go to validation where no validation split is given.
      test_fraction: share of the patients that go to the test split where no split is given.
      allow_missing: prepare what is there when images of the table are absent, and name these in
        missing.txt.
      seed: of the split by patient.
      raw: the same as images.
    """

    SOURCE: ClassVar[str] = NAME

    dataset: str = "own"
    images: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    labels: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    columns: tuple[str, ...] = dataclasses.field(default=(), metadata=builder.RUN_ONLY)
    classes: tuple[str, ...] = dataclasses.field(default=(), metadata=builder.RUN_ONLY)
    ignore: tuple[str, ...] = dataclasses.field(default=(), metadata=builder.RUN_ONLY)
    blank: str = dataclasses.field(default="unknown", metadata=builder.RUN_ONLY)
    uncertain: str = dataclasses.field(default="unknown", metadata=builder.RUN_ONLY)
    separator: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    train_list: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    val_list: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    test_list: str = dataclasses.field(default="", metadata=builder.RUN_ONLY)
    val_fraction: float = dataclasses.field(default=_VALIDATION, metadata=builder.RUN_ONLY)
    test_fraction: float = dataclasses.field(default=_TEST, metadata=builder.RUN_ONLY)
    allow_missing: bool = dataclasses.field(default=False, metadata=builder.RUN_ONLY)
    seed: int = dataclasses.field(default=0, metadata=builder.RUN_ONLY)

    def __post_init__(self):
        super().__post_init__()
        for option in ("blank", "uncertain"):
            self._choice(option, tuple(images_options.MEANINGS))
        if not _WORD.fullmatch(self.dataset):
            raise UserError(
                f"{NAME}: dataset is {self.dataset!r}; use letters, digits, dots and hyphens."
            )

    def _variant(self) -> str:
        """Names the variant by the data set's name; `Images.confirm` watches over the rest."""
        return f"{self.dataset}_{self.size}_{self.equalize}_{self.encoding}"

    def meaning(self) -> images_options.Meaning:
        """Reads what the options say about the table."""
        return images_options.read(
            self.columns, self.classes, self.ignore, blank=self.blank, uncertain=self.uncertain,
            separator=self.separator,
        )


class Images(builder.XrayBuilder):
    """Split by a column, by lists or by folders, else at random by patient."""

    name = NAME
    builder_config_class = ImagesConfig

    classes: tuple[str, ...] = ()
    description = "Images and labels of the user's own."
    homepage = ""
    citation = ""
    given = ("--images", "DIR", "--labels", "FILE")

    def raw_folder(self) -> pathlib.Path:
        """Returns the folder of the images."""
        config = self.builder_config
        if not config.images and not config.raw:
            raise UserError(
                f"{NAME}: where are the images? Give --images DIR and --labels FILE, or DIR with a "
                "folder for each class."
            )
        return builder.given_path("images", config.images or config.raw)

    def collect(self, raw: pathlib.Path) -> builder.Collection:
        """Reads the table or the folders, prints what they hold, and finds the images."""
        files, notes = images_folders.find(raw)
        if self.builder_config.labels:
            paths, extra = self._of_table(files, raw)
        else:
            paths, extra = self._of_folders(files, raw)
        return builder.Collection.of(paths, (*notes, *extra))

    def confirm(self, directory: pathlib.Path) -> None:
        """Refuses a prepared data set of this name that was made from other data or options."""
        config = self.builder_config
        if not (config.images or config.raw):
            return
        before = json.loads((directory / READING).read_text(encoding="utf-8"))
        now = self._reading()
        changed = [key for key in now if now[key] != before.get(key)]
        if changed:
            raise UserError(
                f"{directory} was prepared from other data or options ({', '.join(changed)}); give "
                "this data set another name by --dataset NAME, or remove that folder first."
            )

    def write_index(self, directory: pathlib.Path) -> None:
        """Writes the manifest, and what the data set was made from."""
        text = json.dumps(self._reading(), indent=1)
        (directory / READING).write_text(f"{text}\n", encoding="utf-8")
        super().write_index(directory)

    def _reading(self) -> dict:
        """Describes what determines the records, files by their content."""
        config = self.builder_config
        options = (
            "columns", "classes", "ignore", "blank", "uncertain", "separator", "val_fraction",
            "test_fraction", "allow_missing", "seed",
        )
        reading = {name: getattr(config, name) for name in options}
        reading = json.loads(json.dumps(reading))
        for name in ("labels", *_LISTS.values()):
            path = getattr(config, name)
            reading[name] = ""
            if path:
                content = text_files.read_bytes(builder.given_path(name, path))
                reading[name] = hashlib.sha256(content).hexdigest()
        if not config.labels:
            names = "\n".join(images_folders.find(self.raw_folder())[0])
            reading["images"] = hashlib.sha256(names.encode()).hexdigest()
        return reading

    def _of_table(self, files: dict[str, pathlib.Path], raw: pathlib.Path):
        """Returns records with their files, None where it is absent, and remarks."""
        path = builder.given_path("labels", self.builder_config.labels)
        meaning = self.builder_config.meaning()
        available = list(files)

        def match(ids):
            return image_paths.match(ids, available, path, raw, root=str(raw))

        def found(ids):
            try:
                return int((match(list(dict.fromkeys(filter(None, ids)))) >= 0).sum())
            except UserError:
                return 0

        table = images_table.read(read_table(path, label_tables.IMAGE_COLUMNS), meaning, found)
        places = match(table.ids)
        understood.show_columns(str(path), table.used, table.ignored)
        by_name = image_paths.by_name_only(table.ids, available, places)
        there = [files[available[place]] if place >= 0 else None for place in places.tolist()]
        unused = [name for i, name in enumerate(available) if i not in set(places.tolist())]
        notes = [*table.notes, *builder.note(unused, f"images have no row in {path.name}")]
        if by_name:
            notes.append(f"{by_name} of {len(table.ids)} images were found by file name only")
        self.classes = table.classes
        facts = {role: list(cells) for role, cells in table.cells.items()}
        return self._records(table.ids, table.labels, facts, there, table.where, path, notes)

    def _of_folders(self, files: dict[str, pathlib.Path], raw: pathlib.Path):
        """Returns records with their files, and remarks."""
        meaning = self.builder_config.meaning()
        names, classes, splits, notes = images_folders.classes_of(list(files), raw)
        folders = sorted(set(classes), key=str.casefold)
        chosen = images_table.chosen_classes(folders, meaning, str(raw))
        labels = images_table.labels_of([[name] for name in classes], chosen, meaning.blank)
        by_source = {source: name for name, source in chosen.items()}
        rows = [
            (f"{folder}/", f"class {by_source[folder]}" if folder in by_source
             else "no finding: negative for every class")
            for folder in folders
        ]
        understood.show_columns(str(raw), rows, ())
        self.classes = tuple(chosen)
        facts = {"split": splits} if any(splits) else {}
        there = [files[name] for name in names]
        return self._records(names, labels, facts, there, names, raw, list(notes))

    def _records(self, ids, labels, facts, files, where, origin, notes):
        """Makes the record of each image, with its patient and split."""
        config = self.builder_config
        self._add_headers(facts, files)
        patients = self._patients(ids, facts, where, notes)
        splits = self._split_rows(ids, patients, facts, where, origin, notes)
        ages, views, sexes = (facts.get(role, [""] * len(ids)) for role in ("age", "view", "sex"))
        self._note_unread(facts, notes)
        sources = facts.get("source", [""] * len(ids))
        records = {}
        for i, split in enumerate(splits):
            if not split:
                continue
            record = builder.ImageRecord(
                image_id=ids[i].replace("\\", "/"),
                patient_id=f"{config.dataset}/{patients[i]}",
                source=sources[i] or config.dataset,
                split=split,
                labels=tuple(labels[i].tolist()),
                view=vocabulary.view_of(views[i]),
                sex=vocabulary.sex_of(sexes[i]),
                age=label_tables.years(ages[i]),
            )
            records[record] = files[i]
        out = [name for name, split in zip(ids, splits, strict=True) if not split]
        notes += builder.note(out, "images are in no split and are left out")
        return records, tuple(notes)

    def _add_headers(self, facts: dict[str, list[str]], files) -> None:
        """Adds patient, sex, age and view from headers of DICOM files, where no column tells."""
        wanted = [role for role in _FROM_HEADER if role not in facts]
        dicoms = [i for i, path in enumerate(files) if path and images_folders.is_dicom(path)]
        if not wanted or not dicoms:
            return
        from jaxcxr.xray.images import dicom  # lazily: pydicom is slow to import

        found = {role: [""] * len(files) for role in wanted}
        with progress.Progress("reading the headers", len(dicoms), brief=True) as bar:
            for i in dicoms:
                try:
                    header = dicom.read_header(files[i])
                except BadRecord:
                    continue  # preparing the image names it
                finally:
                    bar.advance(1)
                told = {"patient": header.patient_id, "sex": header.sex, "view": header.view,
                        "age": str(header.age) if header.age >= 0 else ""}
                for role in wanted:
                    found[role][i] = told[role]
        facts |= {role: cells for role, cells in found.items() if any(cells)}
        said = [role for role in wanted if role in facts]
        if said:
            progress.say(f"{NAME}: from the DICOM headers: {', '.join(said)}")

    def _patients(self, ids, facts, where, notes: list[str]) -> list[str]:
        """Returns the patient of each image."""
        for role in ("patient", "study"):
            if role not in facts:
                continue
            cells = facts[role]
            empty = [name for name, cell in zip(ids, cells, strict=True) if not cell]
            notes += builder.note(empty, f"images have no {role} and count as one of their own")
            if role == "study":
                notes.append(
                    "no column of patients: each study counts as a patient, so images of one "
                    "patient may stand in several splits"
                )
            return [cell or f"image {name}" for name, cell in zip(ids, cells, strict=True)]
        notes.append(
            "no column of patients: each image counts as a patient of its own, so images of one "
            "patient may stand in several splits, which makes results look better than they are; "
            "name the column by --columns patient=COLUMN if there is one"
        )
        return list(ids)

    def _split_rows(self, ids, patients, facts, where, origin, notes: list[str]) -> list[str]:
        """Returns the split of each image, "" for none: by lists, by a column or by patient."""
        config = self.builder_config
        lists = {
            split: builder.given_path(option.replace("_", "-"), getattr(config, option))
            for split, option in _LISTS.items() if getattr(config, option)
        }
        shares = {"validation": config.val_fraction, "test": config.test_fraction}
        if lists:
            splits = images_splits.from_lists(lists, ids, origin)
            how = f"by {', '.join(path.name for path in lists.values())}"
        elif "split" in facts:
            splits = images_splits.from_words(facts["split"], where)
            how = "as given"
        else:
            carved = images_splits.carve(patients, shares, config.seed)
            notes.append(f"split at random by patient, seed {config.seed}")
            return [carved[patient] for patient in patients]
        images_splits.check_patients(patients, splits, origin)
        if "validation" not in splits and "train" in splits and config.val_fraction:
            training = {p for p, split in zip(patients, splits, strict=True) if split == "train"}
            carved = images_splits.carve(
                training, {"validation": config.val_fraction}, config.seed
            )
            splits = [
                carved[patient] if split == "train" else split
                for patient, split in zip(patients, splits, strict=True)
            ]
            how += (
                f", and {config.val_fraction:.1%} of the training patients for validation, seed "
                f"{config.seed}; --val-fraction 0 leaves them in training"
            )
        notes.append(f"split {how}")
        return splits

    def _note_unread(self, facts, notes: list[str]) -> None:
        """Notes cells of sex, age and view that say nothing."""
        readers = {
            "sex": vocabulary.sex_of, "view": vocabulary.view_of,
            "age": lambda text: "" if label_tables.years(text) < 0 else text,
        }
        for role, read in readers.items():
            unread = sorted({text for text in facts.get(role, ()) if text and not read(text)})
            if unread:
                notes.append(f"not understood, and unknown, as {role}: {some(map(repr, unread))}")
