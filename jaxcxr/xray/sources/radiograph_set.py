"""Defines what all data sets of radiographs share: features, manifest and overview."""

import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data.dataset import UNKNOWN, DataSet
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.images import fingerprint, manifest, radiographs


def xray_features(classes: tuple[str, ...] = FINDINGS) -> tfds.features.FeaturesDict:
    """Defines the features of one radiograph.

    Arguments:
      classes: names of the label columns; none: as many as the records have.

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
        "labels": tfds.features.Tensor(shape=(len(classes) or None,), dtype=np.int8),
        "boxes": tfds.features.Tensor(shape=(None, 5), dtype=np.float32),
        "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        "sha256": tfds.features.Text(),
        "phash": tfds.features.Scalar(np.int64),  # TFDS reads no uint64 with protobuf before 7
    })


def xray_record(pixels: np.ndarray, image: bytes, *, original_size, **features) -> dict[str, Any]:
    """Makes a record of `xray_features`.

    Arguments:
      pixels: uint8 `[height, width]`, the original, of which fingerprints are taken.
      image: the encoded image.
      original_size: (height, width).
      **features: all others.
    """
    return {
        "image": image, **features, "original_size": np.array(original_size, np.int32),
        "sha256": fingerprint.pixel_sha256(pixels),
        "phash": np.uint64(fingerprint.perceptual_hash(pixels)).astype(np.int64),
    }


# mypy does not see the base class of TFDS that takes `skip_registration`.
class RadiographSet(DataSet, skip_registration=True):  # type: ignore[call-arg]
    """Builds a data set of radiographs with records of `xray_features(classes)`."""

    classes: tuple[str, ...] = FINDINGS  # `collect` may set those that only the files know
    index_file = manifest.NAME

    def write_index(self, directory: pathlib.Path) -> None:
        """Writes the manifest of a prepared data set."""
        splits = {name: radiographs.open_records(directory, name) for name in self.info.splits}
        manifest.write(directory, splits, self.classes)

    @staticmethod
    def overview(directory: pathlib.Path, split: str) -> dict[str, int]:
        """Counts the images, the patients and the images with each label of one split."""
        rows = manifest.read(directory, split)
        positive = rows.labels == 1
        counts = {"images": len(rows), "patients": len(np.unique(rows.patient_id))}
        counts |= {name: int(positive[:, i].sum()) for i, name in enumerate(rows.classes)}
        counts["no finding"] = int((rows.labels == 0).all(axis=1).sum())
        return counts | {UNKNOWN: int((rows.labels < 0).sum())}
