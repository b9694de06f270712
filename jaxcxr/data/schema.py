"""The two record schemas: what one prepared radiograph and one prepared pose clip hold."""

import numpy as np
import tensorflow_datasets as tfds

# Thesis table 4.1, in its order: the 14 findings of ChestX-ray14 and COVID-19.
FINDINGS = (
    "Cardiomegaly",
    "Emphysema",
    "Effusion",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Atelectasis",
    "Pneumothorax",
    "Pleural_Thickening",
    "Pneumonia",
    "Fibrosis",
    "Edema",
    "Consolidation",
    "COVID-19",
)

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1


def xray_features(classes: tuple[str, ...] = FINDINGS) -> tfds.features.FeaturesDict:
    """Features of one radiograph.

    Arguments:
      classes: names of the label columns.

    Returns:
      `image` (encoded bytes, grayscale), `image_id`, `patient_id`, `source`, `view` ("PA", "AP",
      "L" or ""), `sex` ("M", "F" or ""), `age` (years, -1 unknown), `labels` int8 `[classes]` in
      {1, 0, -1 unknown}, `boxes` float32 `[n, 5]` as (class index, x, y, width, height) in pixels
      of the stored image, `original_size` int32 `[2]` as (height, width), `sha256` and `phash` of
      the original pixels (see `jaxcxr.xray.images.fingerprint`).
    """
    return tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(None, None, 1)),
        "image_id": tfds.features.Text(),
        "patient_id": tfds.features.Text(),
        "source": tfds.features.Text(),
        "view": tfds.features.Text(),
        "sex": tfds.features.Text(),
        "age": tfds.features.Scalar(np.int32),
        "labels": tfds.features.Tensor(shape=(len(classes),), dtype=np.int8),
        "boxes": tfds.features.Tensor(shape=(None, 5), dtype=np.float32),
        "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        "sha256": tfds.features.Text(),
        "phash": tfds.features.Scalar(np.int64),  # TFDS reads no uint64 with protobuf before 7
    })


def pose_features(joints: int = 17, scaled: bool = False) -> tfds.features.FeaturesDict:
    """Features of one motion sequence seen by one camera.

    Arguments:
      joints: number of joints; 17 in Human3.6M order by default.
      scaled: whether models give poses in a unit of the image, not in metres.

    Returns:
      `sequence_id`, `subject`, `action`, `camera`, `fps`, `keypoints` float32
      `[frames, joints, 2]` in pixels, `confidence` float32 `[frames, joints]` (0 = not seen),
      `joints` float32 `[frames, joints, 3]` in metres in the camera frame (x right, y down,
      z forward), `image_size` int32 `[2]` as (width, height), `intrinsics` float32 `[9]` as
      (fx, fy, cx, cy, k1, k2, k3, p1, p2) in pixels. Where `scaled` also `scale` float32
      `[frames]`: metres per unit; `joints` are in metres here too, about any origin.
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
