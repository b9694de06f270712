"""Checks that 2D keypoints are pixels of an upright image of the size that is said."""

import numpy as np

from jaxcxr.errors import UserError

_FAR, _NEAR = 0.5, 0.1  # of a side, outside the image
_SMALLEST = 0.02  # of the image's height or width: no person can be lifted below it
_LYING = 60.0  # degrees between trunk and vertical
ROTATIONS = (0, 90, 180, 270)


def to_pixels(
    points: np.ndarray, size: tuple[int, int], where: str
) -> tuple[np.ndarray, bool]:
    """Returns points `[..., 3]` in pixels, and whether they were shares of width and height.

    Raises:
      UserError: they are neither pixels nor from 0 to 1.
    """
    seen = points[..., 2] > 0
    values = points[seen][:, :2]
    if min(size) < 8 or not len(values) or np.quantile(np.abs(values), 0.95) > 2 or (
        np.abs(values).max() > 20
    ):
        return points, False
    if np.mean(values < -0.05) > 0.1:
        raise UserError(
            f"{where}: the points run from {values.min():.2f} to {values.max():.2f} and are "
            "neither pixels nor shares of width and height from 0 to 1, but metres or centred "
            "coordinates; give pixels."
        )
    scale = np.array([*size, 1.0])
    return np.where(seen[..., None], points * scale, points), True


def inside(points: np.ndarray, size: tuple[int, int], where: str) -> tuple[np.ndarray, int]:
    """Makes points far outside the image unseen; returns the points and how many these were.

    Raises:
      UserError: too many points lie outside, or people are too small for an image of this size.
    """
    sides = np.array(size, float)
    places, seen = points[..., :2], points[..., 2] > 0
    beyond = (np.maximum(-places, places - sides) / sides).max(-1)
    outside, far = seen & (beyond > _NEAR), seen & (beyond > _FAR)
    total = max(1, int(seen.sum()))
    width, height = size
    if outside.sum() > 0.05 * total or far.sum() > 0.02 * total:
        reach = np.nanmax(np.where(seen[..., None], places, -np.inf).reshape(-1, 2), axis=0)
        turned = np.maximum(-places, places - sides[::-1]) / sides[::-1]
        fits = width != height and (seen & (turned.max(-1) > 0)).sum() < 0.02 * total
        raise UserError(
            f"{where}: {100 * outside.sum() / total:.0f} % of the points lie outside the image of "
            f"{width}x{height} pixels (x up to {reach[0]:.0f}, y up to {reach[1]:.0f}); "
            + (f"they fit {height}x{width}: give --size {height}x{width}." if fits
               else "give the size of the image that the detector saw with --size.")
        )
    kept = np.where(far[..., None], 0.0, points)
    _check_height(kept, size, where)
    return kept, int(far.sum())


def _check_height(points: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Refuses people who are specks in the image."""
    seen = points[..., 2] > 0
    enough = seen.sum(-1) >= 4
    if not enough.any():
        return
    some, there = points[enough][..., :2], seen[enough][..., None]
    spread = (np.where(there, some, -np.inf).max(-2) - np.where(there, some, np.inf).min(-2))
    tall = float(np.median(spread.max(-1)))
    if tall < _SMALLEST * max(size):
        raise UserError(
            f"{where}: people are {tall:.3g} pixels tall in an image of {size[0]}x{size[1]}, too "
            "small to lift; give the size of the image that the detector saw with --size, and "
            "points in pixels."
        )


def rotated(points: np.ndarray, size: tuple[int, int], degrees: int) -> np.ndarray:
    """Turns points clockwise by 0, 90, 180 or 270 degrees, as their image is to be turned."""
    width, height = size
    x, y, rest = points[..., 0], points[..., 1], points[..., 2:]
    x, y = {0: (x, y), 90: (height - y, x), 180: (width - x, height - y),
            270: (y, width - x)}[degrees]
    turned = np.concatenate([np.stack([x, y], -1), rest], -1)
    return np.where(points[..., 2:] > 0, turned, points)


def check_upright(keypoints: np.ndarray, confidence: np.ndarray, where: str) -> None:
    """Refuses people whose trunk lies or hangs nearly all the time.

    Arguments:
      keypoints: `[frames, 17, 2]` of Human3.6M's joints, pixels.
      confidence: `[frames, 17]`, 0 where unseen.
    """
    hip, thorax = 0, 8
    both = (confidence[:, hip] > 0) & (confidence[:, thorax] > 0)
    trunk = keypoints[both, hip] - keypoints[both, thorax]
    if both.sum() < 5:
        return
    angle = np.degrees(np.arctan2(trunk[:, 0], trunk[:, 1]))  # 0: the hip is below
    for name, turn, share in (
        ("lie on their side, head to the right", 270, np.abs(angle + 90) < 90 - _LYING),
        ("lie on their side, head to the left", 90, np.abs(angle - 90) < 90 - _LYING),
        ("stand upside down", 180, np.abs(angle) > 180 - (90 - _LYING)),
    ):
        if share.mean() > 0.9:
            raise UserError(
                f"{where}: people {name}, as in a phone's video whose rotation was ignored; give "
                f"--rotate {turn} to turn it upright, or --rotate 0 if they really do."
            )
