"""Defines the base of motion data sets: their features and overview."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data.dataset import DataSet


def pose_features(joints: int = 17, scaled: bool = False) -> tfds.features.FeaturesDict:
    """Returns the features of one motion sequence from one camera.

    Arguments:
      joints: number of joints; 17 in Human3.6M order by default.
      scaled: models give poses in a unit of the image instead of metres.

    Returns:
      `sequence_id`, `subject`, `action`, `camera`, `fps`, `keypoints` float32
      `[frames, joints, 2]` in pixels, `confidence` float32 `[frames, joints]` (0 = not seen),
      `joints` float32 `[frames, joints, 3]` in metres in the camera frame (x right, y down,
      z forward), `image_size` int32 `[2]` as (width, height), `intrinsics` float32 `[9]` as
      (fx, fy, cx, cy, k1, k2, k3, p1, p2) in pixels. If `scaled` also `scale` float32 `[frames]`,
      metres per unit; `joints` are still in metres, about any origin.
    """
    scale = {"scale": tfds.features.Tensor(shape=(None,), dtype=np.float32)} if scaled else {}
    return tfds.features.FeaturesDict({
        **scale,
        "sequence_id": tfds.features.Text(),
        "subject": tfds.features.Text(),
        "action": tfds.features.Text(),
        "camera": tfds.features.Text(),
        "fps": tfds.features.Scalar(np.float32),
        "keypoints": tfds.features.Tensor(shape=(None, joints, 2), dtype=np.float32),
        "confidence": tfds.features.Tensor(shape=(None, joints), dtype=np.float32),
        "joints": tfds.features.Tensor(shape=(None, joints, 3), dtype=np.float32),
        "image_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        "intrinsics": tfds.features.Tensor(shape=(9,), dtype=np.float32),
    })


# TFDS reads the keyword, which its types do not tell.
class PoseSet(DataSet, skip_registration=True):  # type: ignore[call-arg]
    """Builds a motion data set with records of `pose_features`."""

    @staticmethod
    def overview(directory: pathlib.Path, split: str) -> dict[str, int]:
        """Counts the sequences, frames and subjects of one split."""
        records = tfds.builder_from_directory(directory).as_data_source(split)
        shapes = [(record["subject"], len(record["joints"])) for record in records]
        frames = sum(length for _, length in shapes)
        subjects = len({subject for subject, _ in shapes})
        return {"sequences": len(shapes), "frames": frames, "subjects": subjects}
