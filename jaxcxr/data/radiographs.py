"""Random access to the radiographs of a prepared data set, decoded to the model's size."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data import images, manifest


def open_records(directory: pathlib.Path, split: str):
    """Records of a split with the image still encoded."""
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


class Radiographs:
    """One split of a prepared radiograph data set.

    Arguments:
      directory: the prepared data set.
      split: "train", "validation" or "test".
      image_size: pixels a side; stored images of another size are resized (area interpolation).
    """

    def __init__(self, directory: pathlib.Path, split: str, image_size: int):
        self._records = open_records(directory, split)
        self._image_size = image_size
        self.manifest = manifest.read(directory, split)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record = self._records[index]
        image = images.decode_resized(record["image"], self._image_size)
        return {"image": image[..., None], "labels": np.asarray(record["labels"], np.int8)}

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Several radiographs at once: `image` uint8 `[n, size, size, 1]`, `labels` int8."""
        examples = [self[index] for index in indices]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
