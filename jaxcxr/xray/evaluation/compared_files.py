"""Reads the predictions of models to compare, several seeds as one model."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcxr.data import label_tables
from jaxcxr.data.label_tables import LABEL_PREFIX
from jaxcxr.data.text_files import fold, read_csv
from jaxcxr.errors import UserError, some
from jaxcxr.xray.evaluation import calibration_fit, scored_files
from jaxcxr.xray.evaluation.calibration import NAME, Calibration


@dataclasses.dataclass(frozen=True)
class Model:
    """One model: its runs differ by their seed alone.

    Attributes:
      name: "A", "B", ...
      paths: of the runs, as given.
      scores: float64 `[seeds, N, C]`.
      probabilities, found: `[seeds, N, C]`, calibrated, and the findings at the shipped
        thresholds; none unless every run has a calibration.
    """

    name: str
    paths: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray | None
    found: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Compared:
    """Models on the same images.

    Attributes:
      labels: int8 `[N, C]`. classes: the C names.
      patients: `[N]`; none if unknown.
      models: at least two.
      inputs: for each run its files' names and SHA-256.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    patients: tuple[str, ...] | None
    models: tuple[Model, ...]
    inputs: dict[str, dict]


def read(
    models: Mapping[str, Mapping[str, pathlib.Path]],
    labels: str | None = None,
    split_list: str | None = None,
) -> Compared:
    """Reads all predictions and puts them on the same images and classes.

    Arguments:
      models: name -> run of each of its seeds, as given -> file of its predictions.
      labels: file of the true labels; none: each file of predictions has its own, which must agree.
      split_list: text file, one image per line; only these are compared.

    Raises:
      UserError: as `scored_files.join`; images, labels or classes differ; a file has no labels.
    """
    joined = {
        path: scored_files.join(labels or _with_labels(file), file, split_list)
        for files in models.values() for path, file in files.items()
    }
    first_path, first = next(iter(joined.items()))
    found = []
    for name, files in models.items():
        scores = np.stack([_aligned(joined[path], path, first_path, first) for path in files])
        found.append(Model(name, tuple(files), scores, *_calibrated(tuple(files), scores, first)))
    inputs = {path: of.inputs for path, of in joined.items()}
    return Compared(first.labels, first.classes, first.patients, tuple(found), inputs)


def _with_labels(file: pathlib.Path) -> pathlib.Path:
    if not any(map(LABEL_PREFIX.match, read_csv(file).columns)):
        raise UserError(f"{file}: no column label_CLASS; give the true labels with --labels FILE")
    return file


def _aligned(
    joined: scored_files.Joined, path: str, first_path: str, first: scored_files.Joined
) -> np.ndarray:
    """Scores in the order of the first run's images and classes."""
    if set(map(fold, joined.classes)) != set(map(fold, first.classes)):
        differ = set(map(fold, joined.classes)) ^ set(map(fold, first.classes))
        shown = [n for n in (*first.classes, *joined.classes) if fold(n) in differ]
        raise UserError(
            f"{path}: not the classes of {first_path}; they differ in {some(shown)}"
        )
    place = label_tables.match_images(first.ids, joined.ids, first_path, path)
    if len(joined.ids) != len(first.ids) or (place < 0).any():
        absent = [name for name, row in zip(first.ids, place, strict=True) if row < 0]
        here = set(range(len(joined.ids))) - set(place.tolist())
        only = [*absent, *(joined.ids[i] for i in sorted(here))]
        raise UserError(
            f"{path}: not the images of {first_path}; {len(only)} are in one of both only: "
            f"{some(only)}; name the common ones with --split-list"
        )
    order = [list(map(fold, joined.classes)).index(fold(name)) for name in first.classes]
    labels = joined.labels[place][:, order]
    wrong = np.argwhere(labels != first.labels)
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{path}: not the labels of {first_path}; {len(wrong)} differ, the first is "
            f"{first.classes[column]} of {first.ids[row]}"
        )
    return joined.scores[place][:, order]


def _calibrated(
    paths: Sequence[str], scores: np.ndarray, joined: scored_files.Joined
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Probabilities and findings, if every run is a workdir with a calibration."""
    files = [pathlib.Path(path) / NAME for path in paths]
    if not all(file.is_file() for file in files):
        return None, None
    probabilities, found = [], []
    for path, file, values in zip(paths, files, scores, strict=True):
        calibration_fit.checked_scores(dataclasses.replace(joined, scores=values), path)
        calibration = Calibration.load(file).select(joined.classes)
        probabilities.append(calibration.from_scores(values))
        found.append(calibration.findings(probabilities[-1]))
    return np.stack(probabilities), np.stack(found)
