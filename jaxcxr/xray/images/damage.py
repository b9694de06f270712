"""Corrupts radiographs or removes parts of them, to see what a model depends on.

All functions take and return uint8 images `[H, W]`.
"""

from collections.abc import Callable

import cv2
import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files

# Centre and half axes (x, y), as shares of the sides, of ellipses over the lungs of a centred
# frontal radiograph. The patient's own outline is unknown, so they hide more than the lungs in
# some images and less in others.
LUNGS = ((0.31, 0.46, 0.17, 0.34), (0.69, 0.46, 0.17, 0.34))
BORDER = 0.125  # width of the border at each edge, as a share of the side
LOW_PASS = 1 / 16  # standard deviation of the low pass, as a share of the side


def lungs(height: int, width: int) -> np.ndarray:
    """Marks where lungs usually are: bool `[height, width]`."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    return np.any(
        [((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1 for cx, cy, rx, ry in LUNGS], axis=0
    )


def border(height: int, width: int) -> np.ndarray:
    """Marks the edge of the image: bool `[height, width]`."""
    mask = np.ones((height, width), bool)
    rows, columns = round(height * BORDER), round(width * BORDER)
    mask[rows : height - rows, columns : width - columns] = False
    return mask


def without_lungs(image: np.ndarray) -> np.ndarray:
    """Blacks out the lungs (Maguolo and Nanni 2021, arXiv:2004.12823, there with a square)."""
    return np.where(lungs(*image.shape), 0, image).astype(np.uint8)


def border_only(image: np.ndarray) -> np.ndarray:
    """Blacks out all but the border, which leaves markers, collimation and shoulders."""
    return np.where(border(*image.shape), image, 0).astype(np.uint8)


def center_only(image: np.ndarray) -> np.ndarray:
    """Blacks out the border."""
    return np.where(border(*image.shape), 0, image).astype(np.uint8)


def low_pass(image: np.ndarray) -> np.ndarray:
    """Keeps brightness and outline alone: nothing finer than about an eighth of the side."""
    return blur(image, max(image.shape) * LOW_PASS)


def noise(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Adds normal noise with a standard deviation of `level` gray values."""
    return _clipped(image + rng.normal(0, level, image.shape))


def blur(image: np.ndarray, level: float) -> np.ndarray:
    """Blurs with a Gaussian of a standard deviation of `level` pixels."""
    return cv2.GaussianBlur(image, (0, 0), level) if level else image


def contrast(image: np.ndarray, level: float) -> np.ndarray:
    """Multiplies differences from the mean by `level`."""
    mean = image.mean()
    return _clipped(mean + level * (image - mean))


def jpeg(image: np.ndarray, level: float) -> np.ndarray:
    """Compresses as JPEG of quality `level`, 1 to 100."""
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(level)])
    return image_files.decode(content.tobytes())


def rotation(image: np.ndarray, level: float) -> np.ndarray:
    """Turns by `level` degrees counterclockwise about the centre; corners become black."""
    height, width = image.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), level, 1.0)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)


def inversion(image: np.ndarray, level: float) -> np.ndarray:
    """Mixes an image with its negative: 1 is the negative, 0 the image."""
    return _clipped(image + level * (255.0 - 2.0 * image))


REGIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lungs_out": without_lungs, "border_only": border_only, "center_only": center_only,
    "low_pass": low_pass,
}
# Kind -> (function, levels from mild to strong).
CORRUPTIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "noise": (noise, (5.0, 10.0, 20.0, 40.0)),
    "blur": (blur, (0.5, 1.0, 2.0, 4.0)),
    "contrast": (contrast, (0.75, 0.5, 0.25, 0.1)),
    "jpeg": (jpeg, (75.0, 50.0, 25.0, 10.0)),
    "rotation": (rotation, (5.0, 10.0, 20.0, 45.0)),
    "inversion": (inversion, (1.0,)),
}


def corrupted(
    image: np.ndarray, kind: str, level: float, seed: tuple[int, ...] = (0,)
) -> np.ndarray:
    """Corrupts an image.

    Arguments:
      image: uint8 `[H, W]`.
      kind: of `CORRUPTIONS`.
      level: strength, in the unit of the kind.
      seed: of the noise.

    Raises:
      UserError: no such kind.
    """
    if kind not in CORRUPTIONS:
        raise UserError(f"no corruption is called {kind!r}; allowed: {', '.join(CORRUPTIONS)}.")
    if kind == "noise":
        return noise(image, level, np.random.default_rng(seed))
    return CORRUPTIONS[kind][0](image, level)


def _clipped(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
