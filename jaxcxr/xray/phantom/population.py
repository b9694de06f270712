"""Draws patients, their visits, findings and severities.

Every draw comes from a generator seeded with (seed, patient, visit, purpose), so a visit looks the
same in every process and in data sets of every size.
"""

import dataclasses

import numpy as np
from scipy import stats

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError

# Share of the 112,120 images of ChestX-ray14 (label file v2020) with each finding. COVID-19 is
# not in that data set: its rate and its correlations are chosen.
NIH_RATES = (
    0.0248, 0.0224, 0.1188, 0.0020, 0.1774, 0.0516, 0.0565, 0.1031, 0.0473, 0.0302, 0.0128,
    0.0150, 0.0205, 0.0416, 0.0300,
)
ENRICHED_RATE = 0.13
AP_RATE, MALE_RATE = 0.3997, 0.5649

# Correlation (x100) of the latent normal variables below the diagonal: tetrachoric between
# findings, view and sex, biserial with age, estimated from the same label file. Columns: the 15
# findings, AP view, male, age. The first row (Cardiomegaly) is empty.
_CORRELATION = (
    (),
    (-6,),  # Emphysema
    (39, 5),  # Effusion
    (3, -3, -5),  # Hernia
    (5, 0, 25, -4),  # Infiltration
    (-7, 11, 20, 13, 4),  # Mass
    (-7, -4, 6, -4, 12, 30),  # Nodule
    (7, 13, 37, 11, 21, 6, -3),  # Atelectasis
    (-17, 51, 15, -3, 0, 12, 3, 10),  # Pneumothorax
    (6, 14, 23, 2, 7, 24, 19, 10, 14),  # Pleural_Thickening
    (2, -5, 12, 0, 29, -1, -3, 14, -9, 2),  # Pneumonia
    (4, -1, -1, 12, 4, 6, 12, 6, 0, 26, -9),  # Fibrosis
    (16, -9, 23, -6, 31, 2, 0, -2, -20, -1, 56, -19),  # Edema
    (8, 0, 28, -11, 14, 25, 12, 31, 0, 13, 15, 2, 11),  # Consolidation
    (3, 0, 0, -5, 20, -10, -10, 0, -5, -5, 25, 0, 10, 20),  # COVID-19
    (4, 1, 16, -23, 22, -2, -8, 15, -5, -14, 16, -27, 53, 32, 30),  # AP view
    (-10, 8, -1, -11, 2, 6, 2, 5, -6, 4, 2, -2, -4, 1, 8, 5),  # male
    (1, 9, 11, 34, -3, 5, 7, 12, -1, 10, -5, 14, -4, -1, 10, -5, 3),  # age
)
_AP, _MALE, _AGE = 15, 16, 17

# Share of each latent variable's variance that a patient keeps for life; the rest evolves from
# visit to visit with autocorrelation _MEMORY.
_KEPT = np.array(
    [0.8, 0.95, 0.3, 0.95, 0.2, 0.7, 0.7, 0.3, 0.3, 0.8, 0.2, 0.9, 0.3, 0.2, 0.3, 0.3, 1.0, 1.0]
)
_MEMORY = 0.5

# Findings whose place and shape stay the same from visit to visit.
CHRONIC = frozenset(
    {"Cardiomegaly", "Emphysema", "Hernia", "Mass", "Nodule", "Pleural_Thickening", "Fibrosis"}
)

# Age quantiles of ChestX-ray14, from 16 years on: the phantom draws adults only.
_AGE_SHARE = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
_AGE_YEARS = (16, 18, 23, 34, 49, 59, 67, 72, 79, 95)

_MEAN_VISITS, _MOST_VISITS = 2.5, 10
FEWEST_IMAGES = 20


def _cholesky() -> np.ndarray:
    matrix = np.eye(len(_CORRELATION))
    for row, values in enumerate(_CORRELATION):
        matrix[row, :row] = matrix[:row, row] = np.array(values) / 100
    return np.linalg.cholesky(matrix).astype(np.float64)


_MIX = _cholesky()

_COHORT, _SPLIT, _KEEP, _COURSE, _LABEL = range(5)


def generator(seed: int, patient: int, visit: int, purpose: int) -> np.random.Generator:
    """Returns the random generator for a purpose in a visit; visit -1 stands for the patient."""
    return np.random.default_rng([seed, patient, visit + 1, purpose])


@dataclasses.dataclass(frozen=True)
class Visit:
    """Describes one radiograph to be drawn.

    Attributes:
      seed: of the whole data set.
      patient, number: of the patient and of the patient's visit, from 0.
      view: "PA" or "AP".
      sex: "M" or "F".
      age: years.
      severity: class name -> severity in (0, 1], for the findings present.
    """

    seed: int
    patient: int
    number: int
    view: str
    sex: str
    age: int
    severity: dict[str, float]

    def labels(self) -> np.ndarray:
        """Returns the true labels, int8 `[15]` in the order of `FINDINGS`."""
        return np.array([name in self.severity for name in FINDINGS], np.int8)

    def rng(self, purpose: int, chronic: bool) -> np.random.Generator:
        """Returns a generator for drawing: the patient's if `chronic`, else this visit's own."""
        return generator(self.seed, self.patient, -1 if chronic else self.number, 100 + purpose)


def rates(prevalence: str) -> np.ndarray:
    """Returns the share of images with each finding, `[15]`, for "nih" or "enriched"."""
    if prevalence == "nih":
        return np.array(NIH_RATES)
    if prevalence == "enriched":
        return np.full(len(FINDINGS), ENRICHED_RATE)
    raise UserError(f"chest_phantom: prevalence is {prevalence!r}; allowed: nih, enriched.")


def visit(seed: int, patient: int, number: int, prevalence: str) -> Visit:
    """Draws one visit; `prevalence` is "nih" or "enriched".

    Findings follow a latent Gaussian (multivariate probit) model: finding k is present where its
    latent variable exceeds the quantile of its rate; the excess is its severity. The latent
    variables are correlated with each other, with the view, with sex and with age.
    """
    kept = _MIX @ generator(seed, patient, -1, _KEEP).standard_normal(len(_MIX))
    course = generator(seed, patient, -1, _COURSE)
    passing = _MIX @ course.standard_normal(len(_MIX))
    for _ in range(number):
        fresh = _MIX @ course.standard_normal(len(_MIX))
        passing = _MEMORY * passing + np.sqrt(1 - _MEMORY**2) * fresh
    latent = np.sqrt(_KEPT) * kept + np.sqrt(1 - _KEPT) * passing

    share = rates(prevalence)
    tail = stats.norm.sf(latent)
    severity = {
        name: float(1 - tail[k] / share[k])
        for k, name in enumerate(FINDINGS)
        if tail[k] < share[k]
    }
    first_age = np.interp(1 - tail[_AGE], _AGE_SHARE, _AGE_YEARS)
    return Visit(
        seed=seed,
        patient=patient,
        number=number,
        view="AP" if tail[_AP] < AP_RATE else "PA",
        sex="M" if tail[_MALE] < MALE_RATE else "F",
        age=int(first_age) + number // 2,
        severity=severity,
    )


def cohort(seed: int, images: int) -> list[tuple[int, int]]:
    """Draws `images` pairs (patient, visit); visits per patient are geometric, at most 10."""
    rng = generator(seed, 0, -1, _COHORT)
    visits = np.minimum(rng.geometric(1 / _MEAN_VISITS, size=images), _MOST_VISITS)
    pairs = [(patient, n) for patient, count in enumerate(visits) for n in range(count)]
    return pairs[:images]


def splits(seed: int, images: int) -> dict[str, list[tuple[int, int]]]:
    """Divides a cohort by patient into train, validation and test, about 70/10/20.

    Returns:
      Split name -> pairs (patient, visit), in the order of the cohort.

    Raises:
      UserError: fewer than `FEWEST_IMAGES` images.
    """
    if images < FEWEST_IMAGES:
        raise UserError(
            f"chest phantom: {images} images are too few for three splits by patient; at least "
            f"{FEWEST_IMAGES} are needed."
        )
    pairs = cohort(seed, images)
    count = np.bincount([patient for patient, _ in pairs])
    order = generator(seed, 0, -1, _SPLIT).permutation(len(count))
    reached = np.cumsum(count[order]) / images
    home = np.empty(len(count), np.int64)
    home[order] = np.searchsorted([0.2, 0.3], reached, side="left")
    names = ("test", "validation", "train")
    return {name: [p for p in pairs if names[home[p[0]]] == name] for name in names[::-1]}


def recorded_labels(visit: Visit, noise: float) -> np.ndarray:
    """Returns the true labels, each flipped with probability `noise`, int8 `[15]`."""
    truth = visit.labels()
    rng = generator(visit.seed, visit.patient, visit.number, _LABEL)
    flipped = rng.random(len(truth)) < noise
    return np.where(flipped, 1 - truth, truth).astype(np.int8)
