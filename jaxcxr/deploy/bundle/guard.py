"""Flags images unlike the training images, such as those that are no frontal chest radiograph.

The guard measures two distances from Gaussians fitted on the training split (probabilistic
principal components, to store few numbers):

- appearance: of the image at 16 x 16 pixels without mean and contrast. It detects images that are
  rotated, inverted, blank, noise or of other objects, independently of the network.
- content: of the penultimate features of the network (Lee et al., "A simple unified framework for
  detecting out-of-distribution samples", 2018, without classes, as findings are not exclusive).

Each is scaled by its spread on the validation split. The score is the larger one, and the threshold
keeps 99 % of the validation images. docs/deployment.md tells what the guard detects and misses.
"""

import dataclasses

import cv2
import numpy as np
import safetensors.numpy

KEPT = 0.99  # share of the validation images below the threshold
SIDE = 16
EXPLAINED, MOST = 0.95, 128  # share of variance that components explain; most components
PARTS = ("appearance", "content")
_FLAT = 1.0  # standard deviation below which an image is blank, gray levels


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Probabilistic principal components (Tipping and Bishop 1999).

    Attributes:
      mean: `[d]`. basis: `[k, d]`, orthonormal. scale: `[k]`, standard deviations along it.
      rest: standard deviation in each of the other directions.
    """

    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    rest: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> "Gaussian":
        """Maximises the likelihood (eq. 7 and 8) of values `[n, d]`, n at least 2."""
        values = np.asarray(values, np.float64)
        mean = values.mean(0)
        _, deviations, directions = np.linalg.svd(values - mean, full_matrices=False)
        variances = deviations**2 / (len(values) - 1)
        share = np.cumsum(variances) / max(variances.sum(), 1e-30)
        count = min(1 + int(np.searchsorted(share, EXPLAINED)), MOST, len(values) // 5 or 1)
        left = values.shape[1] - count
        rest = variances[count:].sum() / left if left else 0.0
        # A direction in which the training images agree gives no scale.
        least = max(variances[0] * 1e-6, 1e-12)
        return cls(
            mean.astype(np.float32), directions[:count].astype(np.float32),
            np.sqrt(np.maximum(variances[:count], least)).astype(np.float32),
            np.sqrt(np.array([max(rest, least)])).astype(np.float32),
        )

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Computes the Mahalanobis distance over the root of d, float64 `[n]`, of `[n, d]`."""
        away = np.asarray(values, np.float32) - self.mean
        # BLAS threads would slow the model more than so small a product takes.
        along = np.einsum("nd,kd->nk", away, self.basis)
        outside = np.maximum((away**2).sum(1) - (along**2).sum(1), 0)
        squared = ((along / self.scale) ** 2).sum(1) + outside / self.rest[0] ** 2
        return np.sqrt(squared.astype(np.float64) / len(self.mean))


@dataclasses.dataclass(frozen=True)
class Guard:
    """Scores how unlike the training images an image is.

    Attributes:
      models: part -> its distribution.
      spread: part -> (median, 99 % quantile) of the distance on validation, float64 `[2]`.
      threshold: score above which an image is flagged.
    """

    models: dict[str, Gaussian]
    spread: dict[str, np.ndarray]
    threshold: float

    @classmethod
    def fit(
        cls, train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]
    ) -> "Guard":
        """Fits distributions on the training split, scale and threshold on the validation split.

        Of each: preprocessed images uint8 `[n, S, S]`, penultimate features `[n, channels]`.
        """
        models = {part: Gaussian.fit(v) for part, v in _values(*train).items()}
        distances = {part: models[part].distance(v) for part, v in _values(*validation).items()}
        spread = {part: np.quantile(d, [0.5, KEPT]) for part, d in distances.items()}
        unfinished = cls(models, spread, np.inf)
        score = unfinished.parts(*validation).max(1)
        return dataclasses.replace(unfinished, threshold=float(np.quantile(score, KEPT)))

    def parts(self, pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Scores images by each of `PARTS`, `[n, 2]`: 0 at the median of validation, 1 at 99 %."""
        found = _values(pixels, features)
        return np.stack([self._scaled(part, found[part]) for part in PARTS], 1)

    def score(self, pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Scores images by the larger of `parts`, `[n]`; above `threshold` they are flagged."""
        return self.parts(pixels, features).max(1)

    def reason(self, pixels: np.ndarray, parts: np.ndarray) -> str:
        """Says why an image uint8 `[S, S]` with this row of `parts` is flagged; "" if it is not."""
        if not parts.max() > self.threshold:
            return ""
        if pixels.std() < _FLAT:
            return "blank"
        turned = {
            "gray values are inverted": 255 - pixels,
            "turned by 90 degrees": np.rot90(pixels), "turned by 270 degrees": np.rot90(pixels, 3),
            "upside down": np.rot90(pixels, 2),
        }
        scores = self._scaled("appearance", thumbnails(np.stack(list(turned.values()))))
        best = int(np.argmin(scores))
        if scores[best] <= min(self.threshold, parts[0] / 2):
            return f"looks as if {list(turned)[best]}"
        return f"unlike the training images in {PARTS[int(np.argmax(parts))]}"

    def to_bytes(self) -> bytes:
        """Serialises the guard for `guard.safetensors`."""
        arrays = {"threshold": np.array([self.threshold])}
        for part in PARTS:
            arrays |= {f"{part}/{k}": v for k, v in vars(self.models[part]).items()}
            arrays[f"{part}/spread"] = np.asarray(self.spread[part], np.float64)
        return safetensors.numpy.save(arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Guard":
        """Reads the content of `to_bytes`; KeyError, ValueError or SafetensorError if damaged."""
        arrays = safetensors.numpy.load(content)
        names = [field.name for field in dataclasses.fields(Gaussian)]
        if not all(np.isfinite(value).all() for value in arrays.values()):
            raise ValueError("a number of the guard is not finite")
        guard = cls(
            {part: Gaussian(**{n: arrays[f"{part}/{n}"] for n in names}) for part in PARTS},
            {part: arrays[f"{part}/spread"] for part in PARTS},
            float(arrays["threshold"][0]),
        )
        for part, one in guard.models.items():
            k, d = one.basis.shape
            shapes = one.mean.shape, one.scale.shape, one.rest.shape, guard.spread[part].shape
            if shapes != ((d,), (k,), (1,), (2,)):
                raise ValueError(f"parts of the guard of {part} do not fit each other")
        return guard

    @property
    def channels(self) -> int:
        """Number of penultimate features."""
        return len(self.models["content"].mean)

    def _scaled(self, part: str, values: np.ndarray) -> np.ndarray:
        median, high = self.spread[part]
        return (self.models[part].distance(values) - median) / max(high - median, 1e-12)


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Shrinks images `[n, S, S]` to float32 `[n, 256]` of mean 0 and deviation 1 (0 if blank)."""
    small = np.stack([
        cv2.resize(np.ascontiguousarray(one), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for one in pixels
    ]).reshape(len(pixels), -1).astype(np.float32)
    deviation = small.std(1, keepdims=True)
    return (small - small.mean(1, keepdims=True)) / np.maximum(deviation, _FLAT)


def _values(pixels: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
    return {"appearance": thumbnails(pixels), "content": features}
