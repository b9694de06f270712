"""Measures the calibration of intervals and of probabilities, and fits maps that mend it.

Maps from logits to probabilities, and thresholds, are fitted on labels 1 and 0; leave unknown ones
out before. They belong on examples that neither trained the model nor score it: the validation
split.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats
from sklearn import isotonic as sk_isotonic
from sklearn import metrics as sk_metrics

LEVELS = (0.5, 0.9, 0.95)
BINS = 10
THRESHOLD_RULES = ("f1", "youden", "sensitivity", "specificity")
# Bounds of the temperature and of the slope: fits on separable or reversed scores end here.
TEMPERATURES = (0.05, 20.0)
LEAST_SLOPE = 0.01


def coverage(
    error: np.ndarray, sigma: np.ndarray, levels: Sequence[float] = LEVELS
) -> dict[float, float]:
    """Computes the share of errors within the central intervals of normal distributions.

    Arguments:
      error: `[...]`, predicted minus true.
      sigma: standard deviations, positive, in the same unit; broadcast to `error`.
      levels: probabilities of the intervals.

    Returns:
      Level -> share of the errors within mean +- z(level) sigma; a calibrated model has shares
      equal to the levels, a model too sure of itself smaller ones.

    Raises:
      ValueError: there is no error, or a sigma is not positive.
    """
    error, sigma = np.broadcast_arrays(np.asarray(error), np.asarray(sigma))
    if not error.size or not (sigma > 0).all():
        raise ValueError("coverage needs errors, and standard deviations above 0")
    away = np.abs(error) / sigma
    return {level: float((away <= stats.norm.ppf((1 + level) / 2)).mean()) for level in levels}


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Probabilities in bins of equal mass, lowest first; bins that ties leave empty are absent.

    Attributes:
      count: examples in each bin, `[bins]`.
      predicted: mean probability in each, `[bins]`.
      observed: share of positives in each, `[bins]`.
    """

    count: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, mean of |predicted - observed| over examples; NaN of none.

        With few examples it is above 0 for perfect probabilities too.
        """
        if not len(self.count):
            return math.nan
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Wilson's intervals (low `[bins]`, high `[bins]`) of the observed shares."""
        found = [
            stats.binomtest(round(share * n), int(n)).proportion_ci(level, "wilson")
            for share, n in zip(self.observed, self.count, strict=True)
        ]
        return np.array([ends.low for ends in found]), np.array([ends.high for ends in found])


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Probabilities beside how often they came true.

    Arguments:
      bins: number of bins; their edges are quantiles of the probabilities, so that each holds as
        many examples as ties allow.

    Source: Nixon et al., "Measuring calibration in deep learning", 2019 (bins of equal mass).
    """
    labels, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if not len(values):
        return Reliability(*(np.zeros(0),) * 3)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1))
    place = np.searchsorted(edges[1:-1], values)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    predicted, observed = (
        np.bincount(place, weights, bins)[kept] / count[kept] for weights in (values, labels)
    )
    return Reliability(count[kept], predicted, observed)


def brier_parts(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Splits the Brier score: miscalibration - discrimination + uncertainty.

    The parts come from the isotonic recalibration of the probabilities to the very labels, hence
    from no choice of bins.

    Returns:
      `brier`, `miscalibration` (0: isotonic recalibration gains nothing), `discrimination` (0: no
      better than one probability for all), `uncertainty` (of the labels alone).

    Source: Dimitriadis et al., "Stable reliability diagrams for probabilistic classifiers", 2021.
    """
    labels, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    best = sk_isotonic.IsotonicRegression().fit_transform(values, labels)

    def brier(forecast) -> float:
        return float(((forecast - labels) ** 2).mean())

    total, recalibrated, uncertainty = brier(values), brier(best), brier(labels.mean())
    return {
        "brier": total, "miscalibration": total - recalibrated,
        "discrimination": uncertainty - recalibrated, "uncertainty": uncertainty,
    }


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Computes T that maximises the likelihood of sigmoid(logit / T), within `TEMPERATURES`.

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    labels, logits = np.asarray(labels, np.float64), np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        return _cross_entropy(labels, logits * math.exp(-log_temperature))

    # Convex in 1 / T, hence with one minimum in log T too.
    bounds = tuple(map(math.log, TEMPERATURES))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded",
                                     options={"xatol": 1e-8})
    return math.exp(found.x)


def platt(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Computes (slope, intercept) that maximise the likelihood of sigmoid(slope logit + intercept).

    The targets are (n+ + 1) / (n+ + 2) and 1 / (n- + 2), as Platt has them, so that separable
    labels have a finite fit. The slope is at least `LEAST_SLOPE`: where logits rank the labels the
    wrong way round, probabilities are nearly the prevalence, and still ordered as the logits.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999.
    """
    labels, logits = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
    positives = labels.sum()
    targets = np.where(
        labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
    )
    scale = max(float(np.abs(logits).max()), 1e-9)

    def loss(values):
        slope, intercept = values[0] / scale, values[1]
        wrong = special.expit(slope * logits + intercept) - targets
        gradient = np.array([(wrong * logits).mean() / scale, wrong.mean()])
        return _cross_entropy(targets, slope * logits + intercept), gradient

    found = optimize.minimize(
        loss, (scale, 0.0), jac=True, method="L-BFGS-B",
        bounds=((LEAST_SLOPE * scale, None), (None, None)),
        options={"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000},
    )
    return float(found.x[0] / scale), float(found.x[1])


def isotonic(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the non-decreasing function of the logit nearest to the labels, by least squares.

    Returns:
      Rising logits `[k]` and probabilities `[k]`: linear in between, constant outside.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass
      probability estimates", 2002; scikit-learn's IsotonicRegression.
    """
    fitted = sk_isotonic.IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    fitted.fit(np.asarray(logits, np.float64), np.asarray(labels, np.float64))
    return fitted.X_thresholds_, fitted.y_thresholds_


def threshold(
    labels: np.ndarray, probabilities: np.ndarray, rule: str, target: float = 0.9
) -> float:
    """Computes the threshold that a rule chooses; a finding is probability >= threshold.

    Arguments:
      labels: at least one of each.
      rule: "f1": greatest F1; "youden": greatest sensitivity + specificity; "sensitivity": the
        greatest specificity with a sensitivity of at least `target`; "specificity": the other way
        round. Of several that do equally well the greatest.
      target: see `rule`.

    Returns:
      One of the probabilities; if no threshold that finds anything is specific enough, the next
      number above the greatest of them.

    Source: Youden, "Index for rating diagnostic tests", 1950.
    """
    labels = np.asarray(labels)
    false_rate, true_rate, values = sk_metrics.roc_curve(
        labels, np.asarray(probabilities, np.float64), drop_intermediate=False
    )
    positives, negatives = (labels == 1).sum(), (labels == 0).sum()
    if rule == "f1":
        found = true_rate * positives
        gain = 2 * found / (found + false_rate * negatives + positives)
    elif rule == "youden":
        gain = true_rate - false_rate
    elif rule == "sensitivity":
        gain = np.where(true_rate >= target - 1e-12, -false_rate, -np.inf)
    elif rule == "specificity":
        gain = np.where(false_rate <= 1 - target + 1e-12, true_rate, -np.inf)
    else:
        raise ValueError(f"rule {rule!r}; known: {', '.join(THRESHOLD_RULES)}")
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
    # The first of scikit-learn's thresholds is infinite: nothing is found.
    return float(values[best]) if best else float(np.nextafter(values[1], np.inf))


def _cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())
