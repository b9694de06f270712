"""Joins label and prediction files of any framework by image and by class name."""

import dataclasses
import pathlib

import numpy as np

from jaxcxr.data import image_paths, label_tables
from jaxcxr.data.label_tables import LabelTable
from jaxcxr.data.text_files import read_list
from jaxcxr.errors import UserError, some
from jaxcxr.xray.images import manifest


@dataclasses.dataclass(frozen=True)
class Joined:
    """Holds labels and scores of the same images.

    Attributes:
      labels: int8 `[N, C]` in {1, 0, -1 unknown}; scores: float64 `[N, C]`.
      classes: the C names, as the label file has them.
      ids: `[N]`. patients: `[N]`, None if unknown.
      labels_only, predictions_only: classes that stand in one of the two files only.
      ignored: number of predictions for images that are not scored.
      unlabelled: images of the split list that have no label.
      by_name: images found by their file name only, as one of the files has no folders.
      inputs: role ("labels", "predictions", "split_list") to name and SHA-256 of the file.
    """

    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    patients: tuple[str, ...] | None
    labels_only: tuple[str, ...]
    predictions_only: tuple[str, ...]
    ignored: int
    unlabelled: tuple[str, ...]
    by_name: int
    inputs: dict[str, dict[str, str]]


def join(
    labels: str | pathlib.Path,
    predictions: str | pathlib.Path,
    split_list: str | pathlib.Path | None = None,
) -> Joined:
    """Reads both files and joins their rows and columns by name, in any order.

    Images match as `image_paths.match` says, classes as `label_tables.match_classes` says.

    Arguments:
      labels: see `label_tables.read`; or the folder of a prepared data set.
      predictions: see `label_tables.read_scores`.
      split_list: text file, one image per line; only these are scored.

    Raises:
      UserError: as the readers; an image has no prediction, or matches several; no class matches.
    """
    labels = _of_folder(pathlib.Path(labels))
    truth, guess = label_tables.read(labels), label_tables.read_scores(predictions)
    rows, patients = np.arange(len(truth.ids)), truth.patients()
    unlabelled: tuple[str, ...] = ()
    inputs = {"labels": truth.file.fingerprint, "predictions": guess.file.fingerprint}
    if split_list is not None:
        listed, inputs["split_list"] = read_list(split_list)
        found = image_paths.match(listed, truth.ids, split_list, labels)
        unlabelled = tuple(name for name, row in zip(listed, found, strict=True) if row < 0)
        rows = found[found >= 0]
        if not len(rows):
            raise UserError(
                f"{split_list}: none of its {len(listed)} images has a label in {labels}; the "
                f"list begins with {listed[0]}, the labels with {truth.ids[0]}"
            )
    ids = tuple(truth.ids[row] for row in rows)
    chosen = image_paths.match(ids, guess.ids, labels, predictions)
    absent = [name for name, row in zip(ids, chosen, strict=True) if row < 0]
    if absent:
        raise UserError(
            f"{predictions}: {len(absent)} of {len(ids)} images have no prediction: "
            f"{some(absent)}; predict them too, or name the images to score with --split-list"
        )
    labelled = truth.readable_classes(label_tables.label_of)
    if truth.finding_labels:
        # ChestX-ray14 has no label of COVID-19: known to be absent, it needs no prediction.
        labelled.remove("COVID-19")
    scored = guess.readable_classes(label_tables.score_of)
    pairs = _match_classes(truth, guess, labelled, scored)
    return Joined(
        labels=truth.labels(list(pairs))[rows],
        scores=guess.scores(list(pairs.values()))[chosen],
        classes=tuple(pairs),
        ids=ids,
        patients=None if patients is None else tuple(patients[row] for row in rows),
        labels_only=tuple(name for name in labelled if name not in pairs),
        predictions_only=tuple(name for name in scored if name not in pairs.values()),
        ignored=len(guess.ids) - len(ids),
        unlabelled=unlabelled,
        by_name=image_paths.by_name_only(ids, guess.ids, chosen),
        inputs=inputs,
    )


def _match_classes(
    truth: LabelTable, guess: LabelTable, labelled: list[str], scored: list[str]
) -> dict[str, str]:
    """Maps the classes of the labels that are predicted to their names there."""
    # A column of both files that one can read is a class, so that a wrong cell is an error.
    pairs = {
        name: theirs for name, theirs in
        label_tables.match_classes(truth.classes, guess.classes).items()
        if name in labelled or (theirs in scored and not truth.finding_labels)
    }
    if not pairs:
        for table, classes in ((truth, labelled), (guess, scored)):
            if not classes:
                raise UserError(
                    f"{table.file.path}: no column of a class among "
                    f"{', '.join(table.file.columns)}; one column per class is needed beside the "
                    "image's"
                )
        raise UserError(
            f"{guess.file.path}: none of its classes ({some(scored)}) is one of "
            f"{truth.file.path} ({some(labelled)}); name the columns as there, with or "
            "without the prefix prob_ or score_"
        )
    return pairs


def _of_folder(path: pathlib.Path) -> pathlib.Path:
    """Returns the table of a prepared data set's folder; other paths as they are."""
    if not path.is_dir():
        return path
    if not (path / manifest.NAME).is_file():
        raise UserError(
            f"{path}: no prepared data set; give its table of labels, or prepare it and give the "
            "folder that jaxcxr prepare names"
        )
    return path / manifest.NAME
