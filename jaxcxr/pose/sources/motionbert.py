"""Prepares Human3.6M from MotionBERT's files: poses in the image with each frame's true scale.

    jaxcxr prepare motionbert --raw h36m_sh_conf_cam_source_final.pkl

The network gives poses in half widths of the image. Evaluation multiplies them by each frame's true
`2.5d_factor`, so results belong under the protocols motionbert-sh, motionbert-cpn and
motionbert-gt; never compare them with VideoPose3D's. The training part has no factor; validation,
on a training subject, is in nominal millimetres (a person of 1.75 m): good for choosing models, not
for tables.

The pickles (Zhu et al., ICCV 2023) have two parts, "train" and "test", each with one row per frame.
A pose has x and y in pixels and a depth scaled to pixels; in the test part `2.5d_factor` gives the
millimetres per pixel at the depth of the hip (the lambda of Ci et al., "Locally connected network
for monocular 3D human pose estimation", TPAMI 2020, section 6.2.1).
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcxr.data import object_arrays
from jaxcxr.data.dataset import RUN_ONLY
from jaxcxr.errors import UserError
from jaxcxr.pose.formats import videopose3d_files
from jaxcxr.pose.geometry.cameras import HUMAN36M_INTRINSICS
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.sources import human36m, pose_set

FPS = 50.0
PARTS = ("train", "test")
_FILES = {"sh": "h36m_sh_conf_cam_source_final.pkl", "cpn": "h36m_cpn_cam_source.pkl"}
# Summed length of the 16 bones of an adult of 1.75 m, metres, with the proportions of S1.
_ALL_BONES = 4.1
# Largest relative difference of scaled poses from those in millimetres, and largest distance of
# keypoints from the true joints as a share of the image's width.
_FACTOR_TOLERANCE, _PIXEL_TOLERANCE = 0.1, 0.1
_LARGEST = 1e6  # absolute value of any number in a file
_FACTORS = (0.1, 100.0)  # millimetres per pixel; people are at 2 to 8


@dataclasses.dataclass(eq=False)
class MotionbertConfig(pose_set.SubjectConfig):
    """Options; those that change the records name the variant.

    Attributes:
      keypoints: "sh" (stacked hourglass, with confidences), "cpn" (cascaded pyramid network), or
        "gt" (the true x and y).
      train_subjects: by default the published five without the validation subject.
      test_subjects: subjects of the file's test part, which alone has the scale.
      clip: frames of a test clip; the rest of a take is dropped, as MotionBERT does with 243,
        unless the take is shorter than one clip. 0 keeps all frames.
      raw: the pickle, or its folder.
    """

    name: str = ""
    keypoints: str = "sh"
    train_subjects: tuple[str, ...] = ("S1", "S5", "S6", "S7")
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = ("S9", "S11")
    clip: int = 243
    raw: str = dataclasses.field(default="", metadata=RUN_ONLY)

    def __post_init__(self):
        told = self.settle("motionbert", human36m.SUBJECTS)
        if self.keypoints not in (*_FILES, "gt"):
            raise UserError(f"motionbert: keypoints is {self.keypoints!r}; allowed: sh, cpn, gt.")
        if self.clip < 0:
            raise UserError(f"motionbert: clip is {self.clip}; give frames, or 0 for all.")
        self.name = self.name or f"{self.keypoints}_{told}_clip{self.clip}"


class Motionbert(pose_set.PoseSet):
    """MotionBERT's Human3.6M; records of `pose_features` with their scale."""

    builder_config_class = MotionbertConfig
    description = (
        "Human3.6M by MotionBERT: 17 joints in the image with the true scale of each frame, "
        "{fps:g} frames per second."
    )
    homepage = "https://github.com/Walter0807/MotionBERT"
    citation = (
        "W. Zhu, X. Ma, Z. Liu, L. Liu, W. Wu, Y. Wang: MotionBERT: A Unified Perspective on "
        "Learning Human Motion Representations. ICCV 2023."
    )
    scaled = True

    def _splits(self, config) -> dict[str, Iterator]:
        self.given_raw("FILE, one of its pickles")
        parts = read_parts(_file(config), config.keypoints)
        for view in parts["train"]:
            if view.subject in config.test_subjects:
                raise UserError(
                    f"motionbert: {view.subject} is in the file's training part, which has no "
                    "2.5d_factor and cannot be tested on; choose test_subjects of S9 and S11."
                )
        views = [view for part in parts.values() for view in part]
        splits = config.split_takes(
            "motionbert", ((view.subject, view.take, view) for view in views),
            {view.subject for view in views},
        )
        return {split: self._generate_examples(takes, split) for split, takes in splits.items()}

    def _generate_examples(self, takes: list, split: str) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        for subject, take, view in takes:
            frames = len(view.joints)
            if split == "test" and config.clip and frames >= config.clip:
                frames -= frames % config.clip
            lens = HUMAN36M_INTRINSICS[view.camera]
            arrays = {
                "keypoints": view.keypoints[:frames], "confidence": view.confidence[:frames],
                "joints": view.joints[:frames], "scale": view.scale[:frames],
                "image_size": np.array([lens.width, lens.height], np.int32),
                "intrinsics": lens.vector(),
            }
            yield pose_set.record(
                pose_set.sequence_name(subject, take, view.camera), subject,
                videopose3d_files.action_name(take), view.camera, arrays, FPS, config.fps,
            )


def _file(config: MotionbertConfig) -> pathlib.Path:
    raw = pathlib.Path(config.raw).expanduser()
    if not raw.is_dir():
        return raw
    names = [_FILES[config.keypoints]] if config.keypoints in _FILES else list(_FILES.values())
    found = next((raw / name for name in names if (raw / name).is_file()), None)
    if found is None:
        there = ", ".join(sorted(path.name for path in raw.glob("*.pkl"))) or "none"
        raise UserError(f"motionbert: no {' or '.join(names)} in {raw}; pickles there: {there}.")
    return found


@dataclasses.dataclass(frozen=True)
class View:
    """One take from one camera.

    Attributes:
      subject, take, camera: such as "S9", "Greeting 2" and "54138969".
      keypoints: float32 `[frames, 17, 2]`, pixels.
      confidence: float32 `[frames, 17]`.
      joints: float32 `[frames, 17, 3]`, metres relative to the hip.
      scale: float32 `[frames]`, metres per half width of the image, the network's unit.
    """

    subject: str
    take: str
    camera: str
    keypoints: np.ndarray
    confidence: np.ndarray
    joints: np.ndarray
    scale: np.ndarray


def nominal_scale(joints: np.ndarray) -> np.ndarray:
    """Estimates metres per unit of poses `[frames, 17, 3]` of a person of 1.75 m, `[frames]`.

    It is infinite for a pose that has collapsed into a point.
    """
    total = HUMAN36M.bone_lengths(joints).sum(axis=-1)
    with np.errstate(divide="ignore"):
        return _ALL_BONES / total


def read_parts(path: str | pathlib.Path, keypoints: str) -> dict[str, list[View]]:
    """Reads both `PARTS` of a pickle; the training part, without factors, has the nominal scale.

    `keypoints` is "sh" (with confidences), "cpn", or "gt" for the true x and y.
    """
    path = pathlib.Path(path).expanduser()
    content = object_arrays.read_pickle(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), dict) for part in PARTS
    ):
        raise UserError(f"{path} has no parts 'train' and 'test'; it is no file of MotionBERT.")
    if keypoints == "sh" and "confidence" not in content["test"]:
        raise UserError(
            f"{path} has no confidences, unlike the stacked hourglass's file; for the cascaded "
            "pyramid network give --keypoints cpn."
        )
    return {part: _part(content[part], f"{path}: {part}", part, keypoints) for part in PARTS}


def _part(content: dict, where: str, part: str, keypoints: str) -> list[View]:
    image = _numbers(content, "joint3d_image", where, (17, 3))
    pixels = _numbers(content, "joint_2d", where, (17, 2), len(image))
    confidence = np.ones(pixels.shape[:2], np.float32)
    if keypoints == "gt":
        pixels = image[..., :2]
    elif "confidence" in content:
        confidence = _numbers(content, "confidence", where, (17,), len(image))
    factor = metric = None
    if part == "test":
        factor = _factor(content, where, len(image))
        if "joints_2.5d_image" in content:
            metric = _numbers(content, "joints_2.5d_image", where, (17, 3), len(image))
    names, cameras = (_texts(content, key, where, len(image)) for key in ("source", "camera_name"))
    borders = np.flatnonzero(names[1:] != names[:-1]) + 1
    views, seen = [], set()
    for rows in np.split(np.arange(len(names)), borders):
        frames, name = slice(rows[0], rows[-1] + 1), str(names[rows[0]])
        if name in seen:
            raise UserError(f"{where}: the frames of {name} are not consecutive.")
        seen.add(name)
        subject, take, camera = _parsed(name, cameras[frames], where)
        scale, joints = _metric(
            image[frames], None if factor is None else factor[frames],
            None if metric is None else metric[frames], camera, f"{where}: {name}",
        )
        _check_pixels(pixels[frames], image[frames], camera, f"{where}: {name}")
        views.append(View(
            subject, take, camera, pixels[frames], np.maximum(confidence[frames], 0), joints, scale
        ))
    return views


def _parsed(name: str, cameras: np.ndarray, where: str) -> tuple[str, str, str]:
    found = videopose3d_files.parse_source(name)
    if found is None:
        raise UserError(
            f"{where}: {name!r} is no source; sources look like s_09_act_05_subact_02_ca_01."
        )
    other = cameras[cameras != found[2]]
    if len(other):
        raise UserError(
            f"{where}: {name} is of camera {found[2]}, but camera_name says {other[0]}."
        )
    return found


def _factor(content: dict, where: str, count: int) -> np.ndarray:
    if "2.5d_factor" not in content:
        raise UserError(
            f"{where}: no '2.5d_factor', which gives poses their millimetres; download the "
            "published file again."
        )
    factor = _numbers(content, "2.5d_factor", where, (), count)
    wrong = np.flatnonzero(~((factor >= _FACTORS[0]) & (factor <= _FACTORS[1])))
    if len(wrong):
        raise UserError(
            f"{where}: '2.5d_factor' of frame {wrong[0]} is {factor[wrong[0]]:g}; expected "
            "millimetres per pixel, 2 to 8 for people in a hall."
        )
    return factor


def _metric(
    image: np.ndarray, factor: np.ndarray | None, metric: np.ndarray | None, camera: str, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Computes scale `[frames]` in metres per half width, and joints `[frames, 17, 3]`, metres."""
    half = HUMAN36M_INTRINSICS[camera].width / 2
    local = image - image[:, :1]
    if factor is None:
        scale = nominal_scale(local / half)
        if not np.isfinite(scale).all():
            raise UserError(
                f"{where}: all joints of a pose are at one point; download the file again."
            )
        return scale.astype(np.float32), local / half * scale[:, None, None].astype(np.float32)
    joints = local * factor[:, None, None]
    if metric is not None:
        true = metric - metric[:, :1]
        off = np.linalg.norm(joints - true, axis=(1, 2))
        allowed = _FACTOR_TOLERANCE * np.linalg.norm(true, axis=(1, 2))
        wrong = np.flatnonzero(off > allowed)
        if len(wrong):
            raise UserError(
                f"{where}: in frame {wrong[0]} joint3d_image times 2.5d_factor "
                f"({factor[wrong[0]]:g}) is not joints_2.5d_image; the factor is wrong or rows "
                "are shifted."
            )
        joints = true
    return (factor * half / 1000).astype(np.float32), (joints / 1000).astype(np.float32)


def _check_pixels(pixels: np.ndarray, image: np.ndarray, camera: str, where: str) -> None:
    off = np.median(np.linalg.norm(pixels - image[..., :2], axis=-1))
    if off > _PIXEL_TOLERANCE * HUMAN36M_INTRINSICS[camera].width:
        raise UserError(
            f"{where}: keypoints are {off:.0f} pixels from the true joints in the median; they "
            "belong to another take or camera."
        )


def _numbers(
    content: dict, key: str, where: str, shape: tuple[int, ...], count: int | None = None
) -> np.ndarray:
    """Reads float32 `[frames, *shape]`; like MotionBERT it ignores excess along the last axis."""
    values = object_arrays.as_array(_there(content, key, where))
    if values.dtype.kind in "fiu" and values.ndim == len(shape) + 2 and values.shape[-1] == 1:
        values = values[..., 0]  # confidences and factors may have an axis of one
    wanted = f"{where}: {key!r} is {values.dtype} {values.shape}; expected real numbers "
    fits = values.ndim == len(shape) + 1 and values.dtype.kind in "fiu" and len(values)
    if fits and shape[1:] and values.shape[-1] > shape[-1]:
        values = values[..., : shape[-1]]
    if not fits or values.shape[1:] != shape or len(values) != (count or len(values)):
        frames = "frames" if count is None else count
        raise UserError(wanted + f"[{', '.join(map(str, (frames, *shape)))}].")
    fine = (np.abs(values) < _LARGEST).reshape(len(values), -1).all(axis=1)
    if not fine.all():
        raise UserError(
            f"{where}: {key!r} of frame {np.argmin(fine)} is not finite or too large; download the "
            "file again."
        )
    return values.astype(np.float32)


def _texts(content: dict, key: str, where: str, count: int) -> np.ndarray:
    values = object_arrays.as_array(_there(content, key, where))
    if values.shape != (count,):
        raise UserError(f"{where}: {key!r} has the shape {values.shape}; expected [{count}].")
    return values.astype(str)


def _there(content: dict, key: str, where: str) -> Any:
    if key not in content:
        there = ", ".join(map(str, content)) or "nothing"
        raise UserError(f"{where} has no {key!r}; it has {there}.")
    return content[key]
