"""Models pinhole cameras with lens distortion, fits them to points, and places camera rigs.

World frame: metres, z up. Camera frame: metres, x right, y down, z forward (Human3.6M, OpenCV).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

_NEAR = 0.05  # metres; nothing nearer to the lens is seen
_FEWEST = 2  # points without which nothing is determined
_MOST = 20_000  # points that are fitted, evenly chosen
_IN_FRONT = 1e-3  # of a fit, in the unit of the points
_SQUARE = 1.25  # the greatest ratio of the focal lengths
_WORLD_UP = np.array([0.0, 0.0, 1.0])

Point = Sequence[float] | np.ndarray  # `[3]`


@dataclasses.dataclass(frozen=True)
class Intrinsics:
    """Focal length, centre (pixels), distortion and image size of one camera.

    Distortion follows Brown and Conrady with OpenCV's coefficients: `k1, k2, k3` radial, `p1, p2`
    tangential, the order of Human3.6M's calibration file. VideoPose3D lists (p2, p1) and omits the
    factor 2 of the mixed terms, as the data set's first code does; within 23 degrees of the axis
    the difference is below a pixel.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    width: int = 1000
    height: int = 1000

    def vector(self) -> np.ndarray:
        """float32 `[9]`: (fx, fy, cx, cy, k1, k2, k3, p1, p2), the order of the records."""
        return np.array(dataclasses.astuple(self)[:9], np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects points `[..., 3]` of the camera frame, metres, to pixels; NaN behind the lens.

        Source: Brown, "Decentering distortion of lenses", 1966, as in `cv2.projectPoints`.
        """
        depth = np.where(points[..., 2] > _NEAR, points[..., 2], np.nan)
        x, y = points[..., 0] / depth, points[..., 1] / depth
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        u = x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x)
        v = y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y
        return np.stack([self.fx * u + self.cx, self.fy * v + self.cy], axis=-1)

    def half_view(self) -> float:
        """Computes half the narrowest field of view in radians, ignoring distortion."""
        reach = min(
            min(self.cx, self.width - self.cx) / self.fx,
            min(self.cy, self.height - self.cy) / self.fy,
        )
        return float(np.arctan(reach))


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A camera: rotation `[3, 3]` from world to camera, position `[3]` in the world, metres."""

    name: str
    intrinsics: Intrinsics
    rotation: np.ndarray
    position: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Transforms world points `[..., 3]` in metres to the camera frame: `R (X - position)`."""
        return (points - self.position) @ self.rotation.T

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects points `[..., 3]` of the camera frame, metres, and tells which are in the image.

        Returns:
          Pixels `[..., 2]`, zero where unseen, and a bool mask `[...]`.
        """
        pixels = self.intrinsics.project(points)
        size = np.array([self.intrinsics.width, self.intrinsics.height])
        with np.errstate(invalid="ignore"):
            seen = np.all((pixels >= 0) & (pixels < size), axis=-1)
        return np.where(seen[..., None], pixels, 0.0), seen


def calibrated(
    quaternion: Sequence[float], position: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Converts an extrinsic calibration to the rotation and the position of a `Camera`.

    Arguments:
      quaternion: rotation from camera to world as a unit quaternion (w, x, y, z).
      position: in millimetres.
    """
    rotation = Rotation.from_quat((*quaternion[1:], quaternion[0])).inv().as_matrix()
    return rotation, np.array(position) / 1000


# Calibration of Human3.6M's four cameras from its metadata file; VideoPose3D exchanges p1 and p2.
HUMAN36M_INTRINSICS = {
    "54138969": Intrinsics(
        1145.0494, 1143.7811, 512.5415, 515.4515,
        -0.207099, 0.247775, -0.00307515, -0.00142447, -0.00097570, 1000, 1002,
    ),
    "55011271": Intrinsics(
        1149.6757, 1147.5917, 508.8486, 508.0649,
        -0.194214, 0.240409, 0.00681998, -0.00274089, -0.00161903, 1000, 1000,
    ),
    "58860488": Intrinsics(
        1149.1407, 1148.7990, 519.8158, 501.4026,
        -0.208338, 0.255488, -0.00246050, -0.00076000, 0.00148439, 1000, 1000,
    ),
    "60457274": Intrinsics(
        1145.5114, 1144.7739, 514.9682, 501.8820,
        -0.198384, 0.218324, -0.00894781, -0.00181336, -0.00058721, 1000, 1002,
    ),
}

# Positions of Human3.6M's four cameras for subject S1, rounded to 0.1 m: corners of a hall.
_HUMAN36M_POSITIONS = {
    "54138969": (1.8, 5.0, 1.6),
    "55011271": (1.8, -5.1, 1.6),
    "58860488": (-1.8, 5.2, 1.5),
    "60457274": (-1.8, -3.7, 1.6),
}


def look_at(name: str, intrinsics: Intrinsics, position: Point, target: Point) -> Camera:
    """Places a camera in the world, looking at `target` with a level horizon; in metres."""
    position = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - position
    right = np.cross(forward, _WORLD_UP)
    if np.linalg.norm(right) < 1e-9:
        raise ValueError(f"camera {name}: the line of sight from {position} is vertical")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(name, intrinsics, rotation, position)


def _far_enough(offset: np.ndarray, intrinsics: Intrinsics, reach: float) -> np.ndarray:
    """Moves a camera outwards until a ball of radius `reach` around the target is in view."""
    needed = reach / np.sin(intrinsics.half_view())
    return offset * max(1.0, needed / np.linalg.norm(offset))


def human36m_rig(
    center: Point = (0.0, 0.0, 0.9),
    reach: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Camera, ...]:
    """Places Human3.6M's four cameras at the corners of a hall, looking at a world point.

    They move outwards until a ball of radius `reach` around it is in view; both in metres. `rng`
    shifts each camera by about 0.1 m and its aim by about 0.05 m.
    """
    center = np.asarray(center, np.float64)
    cameras = []
    for name, intrinsics in HUMAN36M_INTRINSICS.items():
        offset = np.array(_HUMAN36M_POSITIONS[name]) - (0.0, 0.0, 0.9)
        aim = center
        if rng is not None:
            offset = offset + rng.normal(0.0, 0.1, 3)
            aim = center + rng.normal(0.0, 0.05, 3)
        position = center + _far_enough(offset, intrinsics, reach)
        cameras.append(look_at(name, intrinsics, position, aim))
    return tuple(cameras)


def random_rig(
    rng: np.random.Generator,
    count: int = 4,
    center: Point = (0.0, 0.0, 0.9),
    reach: float = 0.0,
) -> tuple[Camera, ...]:
    """Places cameras at random bearings, heights (0.5 to 2.5 m) and distances (4 to 7 m).

    They are named "random0", ... and take Human3.6M's lenses in turn; `center` and `reach` are as
    in `human36m_rig`.
    """
    center = np.asarray(center, np.float64)
    lenses = list(HUMAN36M_INTRINSICS.values())
    cameras = []
    for index in range(count):
        bearing, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.5) - 0.9
        flat = np.sqrt(rng.uniform(4.0, 7.0) ** 2 - height**2)
        offset = np.array([flat * np.cos(bearing), flat * np.sin(bearing), height])
        lens = lenses[index % len(lenses)]
        position = center + _far_enough(offset, lens, reach)
        cameras.append(look_at(f"random{index}", lens, position, center))
    return tuple(cameras)


def normalize_screen(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Maps pixels `[..., 2]` to the screen: `X / w * 2 - [1, h / w]`, x in [-1, 1], aspect kept.

    Source: Pavllo et al., VideoPose3D, 2019.
    """
    return pixels / width * 2 - np.array([1.0, height / width], dtype=pixels.dtype)


def fit_pinhole(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Fits focal lengths and centre to points `[n, 3]` of the camera frame by least squares.

    Pixels `[n, 2]` are not finite where unseen. A second fit drops the points whose error in the
    first exceeds three times its median.

    Returns:
      float64 `[4]`: fx, fy, cx, cy in pixels; NaN if fewer than two points are before the lens.
    """
    known = np.isfinite(pixels).all(-1) & (points[:, 2] > _IN_FRONT)
    points, pixels = points[known].astype(np.float64), pixels[known].astype(np.float64)
    if len(points) < _FEWEST:
        return np.full(4, np.nan)
    step = -(-len(points) // _MOST)
    points, pixels = points[::step], pixels[::step]
    first = _solve(points, pixels)
    off = reprojection_errors(first, points, pixels)
    near = off <= max(3 * np.median(off), 1e-6)
    return _solve(points[near], pixels[near]) if near.sum() >= _FEWEST else first


def _solve(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    parts = []
    for axis in range(2):
        slope = np.stack([points[:, axis] / points[:, 2], np.ones(len(points))], -1)
        parts.append(np.linalg.lstsq(slope, pixels[:, axis], rcond=None)[0])
    return np.array(parts).T.ravel()


def plausible(camera: np.ndarray) -> bool:
    """Tells whether both focal lengths of a fit are positive and alike, as with square pixels.

    Keypoints of upright people from another view fit in y but not in x.
    """
    fx, fy = camera[:2]
    return bool(min(fx, fy) > 0 and max(fx, fy) < _SQUARE * min(fx, fy))


def reprojection_errors(camera: np.ndarray, points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Computes the error `[...]` of each point under a fit, pixels.

    It is infinite for seen points behind the lens, NaN for unseen ones.
    """
    depth = np.where(points[..., 2] > _IN_FRONT, points[..., 2], np.nan)[..., None]
    projected = points[..., :2] / depth * camera[:2] + camera[2:]
    off = np.linalg.norm(projected - pixels, axis=-1)
    behind = np.isnan(depth[..., 0]) & np.isfinite(pixels).all(-1)
    return np.where(behind, np.inf, off)


def pinhole_vector(camera: np.ndarray) -> np.ndarray:
    """Intrinsics as float32 `[9]` in the order of `pose_set.pose_features`, without distortion."""
    return np.concatenate([camera, np.zeros(5)]).astype(np.float32)
