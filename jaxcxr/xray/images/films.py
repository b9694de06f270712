"""Holds a radiograph as it was read, at the depth of its file, and prepares it for a model."""

import dataclasses

import cv2
import numpy as np

from jaxcxr.xray.images import image_files

LEAST_SIDE = 16  # pixels
LARGEST_ASPECT = 4.0  # long side over short side
_BODY = (0.02, 0.98)  # quantiles between which the usual values lie
_SAMPLE = 2**20  # values from which quantiles are estimated
_EDGE = 7  # pixels a side around an outlier that its soft edge may cover
_BLANK = (0.005, 0.995)  # quantiles between which a blank film has one gray


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """Holds a radiograph, air black and bone white.

    Attributes:
      pixels: `[height, width]` from 0 to 255: uint8, or float32 where the file is deeper than 8
        bits. Padding is 0.
      shown: bool `[height, width]`, False where pixels only pad the film to a rectangle; None if
        none do.
    """

    pixels: np.ndarray
    shown: np.ndarray | None = None

    @classmethod
    def padded(cls, pixels: np.ndarray, shown: np.ndarray | None) -> "Film":
        """Makes a film whose padding is black; a mask of all pixels or none marks no padding."""
        if shown is None or shown.all() or not shown.any():
            return cls(pixels)
        return cls(np.where(shown, pixels, pixels.dtype.type(0)), shown)

    @classmethod
    def scaled(
        cls, values: np.ndarray, low: float, high: float, *, shown: np.ndarray | None = None,
        inverted: bool = False, deep: bool = True,
    ) -> "Film":
        """Scales values to grays.

        Arguments:
          values: `[height, width]`.
          low, high: the values that become black and white; all grays are black if they are equal.
          shown: see `Film`.
          inverted: the low values are bright.
          deep: keep steps finer than 1 / 255 of the range.
        """
        if high > low:
            # Inverted before the rounding, so that ties are rounded alike.
            distance = high - values if inverted else values - low
            grays = np.clip(np.nan_to_num(distance / (high - low)), 0, 1) * 255
        else:
            grays = np.zeros(values.shape)
        pixels = grays.astype(np.float32) if deep else np.rint(grays).astype(np.uint8)
        return cls.padded(pixels, shown)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        height, width = self.pixels.shape
        return height, width

    @property
    def gray8(self) -> np.ndarray:
        """The film in 256 grays, uint8 `[height, width]`."""
        return image_files.rounded(self.pixels)

    @property
    def blank(self) -> bool:
        """Whether 99 % of its pixels have the same gray, give or take one step of 8 or 12 bits."""
        pixels = self.pixels.ravel() if self.shown is None else self.pixels[self.shown]
        pixels = pixels[:: 1 + pixels.size // 2**16]  # enough to tell
        first, last = np.quantile(image_files.levels(pixels), _BLANK, method="nearest")
        return bool(last - first <= (2**8 + 1 if self.pixels.dtype == np.uint8 else 2**4))

    def prepared(self, size: int, equalize: str) -> np.ndarray:
        """Resizes, then equalises: uint8 `[size, size]`.

        Arguments:
          size: side, pixels.
          equalize: of `image_files.EQUALIZE`; padding is left out of the histogram.
        """
        if self.shown is None:
            return image_files.equalize(image_files.resize(self.pixels, size), equalize)
        share = image_files.resize(self.shown.astype(np.float32), size)
        shown = share > 0
        # The mean over the part of a pixel that is film.
        mean = image_files.resize(self.pixels.astype(np.float32), size) / np.where(shown, share, 1)
        return image_files.equalize(np.minimum(mean, 255), equalize, shown)

    def turned(self, orientation: int) -> "Film":
        """Turns the film upright.

        Arguments:
          orientation: of the Exif standard (tag 0112), 1 to 8; others change nothing.
        """
        if orientation not in range(2, 9):
            return self
        shown = None if self.shown is None else _upright(self.shown, orientation)
        return Film(_upright(self.pixels, orientation), shown)


def usual_range(values: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """Finds least and greatest value of a film without burnt-in markers and broken pixels.

    Values are left out that lie farther from the middle 96 % than these are wide, with the soft
    edge around them. So the middle 96 % fill at least a third of the range, and the range of a
    film without outliers is that of its values.

    Arguments:
      values: float64 `[height, width]`.
      shown: bool `[height, width]`, the pixels that count, at least one; their values are finite.
    """
    low, high = _extent(values, shown)
    sample = values[shown]
    sample = sample[:: max(1, sample.size // _SAMPLE)]
    # Markers and backgrounds of one value say nothing about the film, whatever their area.
    sample = sample[(sample > low) & (sample < high)]
    if not sample.size:
        return low, high
    first, last = map(float, np.quantile(sample, _BODY))
    reach = last - first
    far = shown & ((values < first - reach) | (values > last + reach))
    if not reach or not far.any():
        return low, high
    near = cv2.dilate(far.astype(np.uint8), np.ones((_EDGE, _EDGE), np.uint8)) > 0
    kept = shown & ~near
    return _extent(values, kept if kept.any() else shown & ~far)


def _extent(values: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    return (float(np.min(values, where=shown, initial=np.inf)),
            float(np.max(values, where=shown, initial=-np.inf)))


def _upright(part: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:  # rows and columns are exchanged
        part = part.T
    if orientation in (2, 3, 6, 7):
        part = part[:, ::-1]
    if orientation in (3, 4, 7, 8):
        part = part[::-1]
    return np.ascontiguousarray(part)
