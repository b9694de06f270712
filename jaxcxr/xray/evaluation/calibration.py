"""Turns outputs of a model into probabilities and findings by `calibration.json`, in NumPy alone.

    calibration = Calibration.load("runs/demo/calibration.json")
    probabilities = calibration.probabilities(logits)  # [..., classes]
    found = calibration.findings(probabilities)  # bool, at the thresholds shipped

The file is plain JSON, for any language to read:

    {"format": "jaxcxr calibration", "version": 1,
     "about": {"fitted_on": "validation", ...},
     "classes": [{"name": "Effusion", "method": "platt",
                  "parameters": {"slope": 1.3, "intercept": -2.1}, "threshold": 0.31,
                  "thresholds": {"f1": 0.31, "youden": 0.12, ...}, "prevalence": 0.11,
                  "positives": 33, "negatives": 268, "unknown": 0, "fallback": false, "note": "",
                  "target_prevalence": null}, ...]}

Methods, of the logit z of a class, s(x) = 1 / (1 + exp(-x)):

    identity     p = s(z)
    temperature  p = s(z / temperature)
    platt        p = s(slope z + intercept)
    isotonic     p = probabilities interpolated linearly at z between logits, constant outside

With a `target_prevalence` t, of a class that had `prevalence` q where it was fitted, p becomes
p t / q / (p t / q + (1 - p) (1 - t) / (1 - q)). A finding is p >= threshold. `calibration_fit`
fits such files, on validation images alone.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcxr.errors import UserError

FORMAT, VERSION = "jaxcxr calibration", 1
NAME = "calibration.json"
# method -> its parameters
METHODS = {
    "identity": (),
    "temperature": ("temperature",),
    "platt": ("slope", "intercept"),
    "isotonic": ("logits", "probabilities"),
}
# Scores this near to 0 or 1 are told apart by no float32 sigmoid.
_SMALLEST = 2.0**-24


@dataclasses.dataclass(frozen=True)
class ClassCalibration:
    """Calibrates one class of a `Calibration`.

    Attributes:
      parameters: name -> number, or list of numbers, as the method of `METHODS` has them.
      threshold: least probability of a predicted finding.
      thresholds: the same by every rule that could be fitted, by name.
      prevalence: share of positives among the labels it was fitted on, NaN without any.
      positives, negatives, unknown: numbers of these labels.
      fallback: whether the method asked for had too few labels, so that this is "identity".
      note: remarks for readers, such as why it fell back.
      target_prevalence: share of positives where it is used; None: as `prevalence`.
    """

    name: str
    method: str
    parameters: Mapping[str, Any]
    threshold: float
    thresholds: Mapping[str, float]
    prevalence: float
    positives: int
    negatives: int
    unknown: int
    fallback: bool = False
    note: str = ""
    target_prevalence: float | None = None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Computes probabilities float64 `[...]` of logits `[...]`."""
        logits = np.asarray(logits, np.float64)
        values = self.parameters
        if self.method == "isotonic":
            fitted = np.interp(logits, values["logits"], values["probabilities"])
        elif self.method == "platt":
            fitted = sigmoid(values["slope"] * logits + values["intercept"])
        else:
            fitted = sigmoid(logits / values.get("temperature", 1.0))
        if self.target_prevalence is None:
            return fitted
        return shift(fitted, self.prevalence, self.target_prevalence)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Turns a model's outputs into probabilities and findings, class by class.

    Attributes:
      classes: in the order of the model's outputs.
      about: data and versions that it was fitted on, JSON types only.
    """

    classes: tuple[ClassCalibration, ...]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(entry.name for entry in self.classes)

    @property
    def thresholds(self) -> np.ndarray:
        """Thresholds of the probabilities, float64 `[classes]`."""
        return np.array([entry.threshold for entry in self.classes])

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Computes calibrated probabilities, float64 `[..., classes]`; NaN where a logit is NaN.

        Raises:
          ValueError: the last axis of the logits is not that of the classes.
        """
        logits = self._checked(logits)
        columns = [c.probabilities(logits[..., i]) for i, c in enumerate(self.classes)]
        return np.stack(columns, axis=-1)

    def from_scores(self, scores: np.ndarray) -> np.ndarray:
        """Computes `probabilities` of scores in [0, 1], as `predictions/*.csv` hold them."""
        return self.probabilities(logit(scores))

    def findings(self, probabilities: np.ndarray) -> np.ndarray:
        """Predicts the findings, bool `[..., classes]`, of calibrated probabilities.

        Raises:
          ValueError: the last axis is not that of the classes, or a probability is NaN.
        """
        probabilities = self._checked(probabilities)
        if np.isnan(probabilities).any():
            raise ValueError("a probability is NaN, of which no finding can be said")
        return probabilities >= self.thresholds

    def with_prevalences(self, prevalences: Mapping[str, float]) -> "Calibration":
        """Adapts the calibration to where findings are rarer or more common than they were.

        Posterior odds change by the odds of the prevalences (Saerens et al., "Adjusting the outputs
        of a classifier to new a priori probabilities", 2002, eq. 2.4), as if positives looked like
        positives elsewhere and negatives like negatives. Thresholds move along, so that they stand
        for the same sensitivity and specificity. A class that fell back to "identity" has no
        probabilities to adjust: it stays as it is, and its note says so.

        Raises:
          UserError: no such class, or a prevalence that is not above 0 and below 1.
        """
        strange = [name for name in prevalences if name not in self.names]
        if strange:
            raise UserError(
                f"prevalence of {strange[0]!r}: no such class; known: {', '.join(self.names)}"
            )
        for name, value in prevalences.items():
            if not 0 < value < 1:
                raise UserError(f"prevalence of {name} is {value}; allowed: above 0 and below 1")
        classes = [
            _with_prevalence(entry, prevalences[entry.name]) if entry.name in prevalences else entry
            for entry in self.classes
        ]
        return dataclasses.replace(self, classes=tuple(classes))

    def select(self, names: Sequence[str]) -> "Calibration":
        """Selects some classes, in the order given; a UserError where one is not calibrated."""
        by_name = {entry.name: entry for entry in self.classes}
        absent = [name for name in names if name not in by_name]
        if absent:
            raise UserError(
                f"the calibration has no class {absent[0]!r}; it has {', '.join(self.names)}"
            )
        return dataclasses.replace(self, classes=tuple(by_name[name] for name in names))

    def to_json(self) -> dict[str, Any]:
        """Makes the content of the file, JSON types only; NaN is null."""
        entries = [dataclasses.asdict(entry) for entry in self.classes]
        for entry in entries:
            if math.isnan(entry["prevalence"]):
                entry["prevalence"] = None
        return {
            "format": FORMAT, "version": VERSION, "about": dict(self.about), "classes": entries,
        }

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the file, whole or not at all."""
        path = pathlib.Path(path)
        text = json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str = "calibration") -> "Calibration":
        """Reads the content of a file; `where` names it in messages.

        Raises:
          UserError: it is no calibration, is of a newer version, or is damaged.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise UserError(f"{where}: not a {NAME}; a run or `jaxcxr calibrate` writes one")
        if content.get("version") != VERSION:
            raise UserError(
                f"{where}: version {content.get('version')!r} of the format, but this jaxcxr reads "
                f"{VERSION}; use the jaxcxr that wrote it, or fit it again by `jaxcxr calibrate`"
            )
        try:
            classes = tuple(_entry(item) for item in content["classes"])
            if not classes or len({entry.name for entry in classes}) < len(classes):
                raise ValueError("no class, or a class twice")
            return cls(classes, dict(content["about"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{where}: damaged ({error}); fit it again by `jaxcxr calibrate`"
            ) from error

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Calibration":
        """Reads the file; a UserError where it cannot be read, or as `from_json`."""
        path = pathlib.Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise UserError(f"{path}: no JSON ({error})") from error
        return cls.from_json(content, str(path))

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if not values.ndim or values.shape[-1] != len(self.classes):
            raise ValueError(
                f"{list(values.shape)} must be [..., {len(self.classes)}]: one column per class"
            )
        return values


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Computes 1 / (1 + exp(-x)) without overflow."""
    values = np.asarray(values, np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def logit(scores: np.ndarray) -> np.ndarray:
    """Computes log(p / (1 - p)), p clipped to within 2^-24 of 0 and 1."""
    scores = np.clip(np.asarray(scores, np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.log(scores) - np.log1p(-scores)


def shift(probabilities: np.ndarray | float, prevalence: float, target: float) -> np.ndarray:
    """Adapts probabilities `[...]` from one prevalence to a target prevalence (Saerens 2002)."""
    positive = np.asarray(probabilities, np.float64) * (target / prevalence)
    negative = (1.0 - np.asarray(probabilities, np.float64)) * ((1 - target) / (1 - prevalence))
    return positive / (positive + negative)


def _with_prevalence(entry: ClassCalibration, target: float) -> ClassCalibration:
    if entry.fallback:
        note = f"{entry.note}; not adjusted to a prevalence of {target:g}"
        return dataclasses.replace(entry, note=note)
    if not 0 < entry.prevalence < 1:
        raise UserError(
            f"{entry.name}: no prevalence is known where it was fitted ({entry.positives} "
            f"positives, {entry.negatives} negatives), so that none can be adjusted to"
        )
    now = entry.prevalence if entry.target_prevalence is None else entry.target_prevalence
    thresholds = {
        name: float(shift(value, now, target)) for name, value in entry.thresholds.items()
    }
    return dataclasses.replace(
        entry, threshold=float(shift(entry.threshold, now, target)), thresholds=thresholds,
        target_prevalence=float(target),
    )


def _entry(item: Mapping[str, Any]) -> ClassCalibration:
    """Reads a class of the file; an error in it is a KeyError, TypeError or ValueError."""
    known = {field.name for field in dataclasses.fields(ClassCalibration)}
    prevalence = item["prevalence"]
    entry = ClassCalibration(**{
        **{name: value for name, value in item.items() if name in known},
        "prevalence": math.nan if prevalence is None else float(prevalence),
    })
    if entry.method not in METHODS:
        raise ValueError(f"method {entry.method!r}; known: {', '.join(METHODS)}")
    numbers = [np.asarray(entry.parameters[name], np.float64) for name in METHODS[entry.method]]
    thresholds = np.array([entry.threshold, *entry.thresholds.values()], np.float64)
    if not all(np.isfinite(values).all() for values in (*numbers, thresholds)):
        raise ValueError(f"{entry.name} has a number that is not finite")
    if entry.method == "temperature" and not entry.parameters["temperature"] > 0:
        raise ValueError(f"temperature of {entry.name} is not positive")
    if entry.method == "isotonic":
        logits, values = numbers[:2]
        if logits.ndim != 1 or not len(logits) or logits.shape != values.shape or (
            (np.diff(logits) <= 0).any() or (np.diff(values) < 0).any()
        ):
            raise ValueError(f"isotonic steps of {entry.name} do not rise")
    return entry
