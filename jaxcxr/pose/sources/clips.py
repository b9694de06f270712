"""Cuts windows of any length and stride from motion sequences held in memory.

A whole data set fits in memory (Human3.6M with four cameras: 0.6 GB).
"""

import dataclasses
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.pose.geometry import cameras

_NO_FRAMES = np.zeros((0, 17, 3), np.float32)

TARGETS = ("sequence", "center")


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One motion from one camera.

    Attributes:
      inputs: float32 `[frames, joints, 3]`: screen-normalised x and y, and the confidence; a joint
        that was not seen is all zeros.
      joints: float32 `[frames, joints, 3]`, metres, relative to the first joint (the hip).
      root: float32 `[frames, 3]`, position of the first joint, metres in the camera frame (x
        right, y down, z forward); None if unknown.
      scale: float32 `[frames]`, metres per unit of the model's poses; None for 1.
    """

    sequence_id: str
    subject: str
    action: str
    camera: str
    inputs: np.ndarray
    joints: np.ndarray
    root: np.ndarray | None = None
    fps: float = 50.0
    scale: np.ndarray | None = None

    @property
    def take(self) -> str:
        """The continuous recording, without the camera."""
        return self.sequence_id.removesuffix(f"_{self.camera}")

    @property
    def motion(self) -> str:
        """The take without the number of its chunk."""
        return re.sub(r"_chunk\d+$", "", self.take)

    @classmethod
    def from_record(cls, record) -> "Sequence":
        """Converts a record of `pose_set.pose_features`."""
        width, height = record["image_size"]
        screen = cameras.normalize_screen(record["keypoints"], width, height)
        confidence = np.asarray(record["confidence"], np.float32)[..., None]
        inputs = np.concatenate([np.where(confidence > 0, screen, 0.0), confidence], -1)
        joints = np.asarray(record["joints"], np.float32)
        sequence_id, subject, action, camera = (
            name.decode() if isinstance(name, bytes) else str(name)
            for name in (record[key] for key in ("sequence_id", "subject", "action", "camera"))
        )
        return cls(
            sequence_id, subject, action, camera,
            inputs=inputs.astype(np.float32),
            joints=joints - joints[:, :1],
            # Poses in the image do not locate the root.
            root=None if "scale" in record else joints[:, 0],
            fps=float(record["fps"]),
            scale=record.get("scale"),
        )


def read_sequences(directory: pathlib.Path, split: str) -> list[Sequence]:
    """Reads all sequences of a split of a prepared data set; none if there is no such split."""
    builder = tfds.builder_from_directory(directory)
    if split not in builder.info.splits:
        return []
    records = builder.as_data_source(split)
    return [Sequence.from_record(record) for record in records]


class Clips:
    """Gives random access to windows of fixed length over sequences.

    Arguments:
      stride: frames between the starts of windows; with `stride == frames` every frame is in
        exactly one window. The last window of a sequence is padded with zeros where its `mask` is
        False.
      target: "sequence" lifts all frames of a window, "center" only the middle one, number
        `frames // 2`: windows are centred on every `stride`-th frame and repeat the first and last
        frame of a sequence beyond its ends.

    Attributes:
      windows: for each window the number of its sequence and the first frame to lift.
    """

    def __init__(
        self, sequences: list[Sequence], frames: int, stride: int, target: str = "sequence"
    ):
        self.sequences = sorted(sequences, key=lambda sequence: sequence.sequence_id)
        self.frames = frames
        self.center = target == "center"
        lifted = 1 if self.center else frames
        self.windows = [
            (which, start)
            for which, sequence in enumerate(self.sequences)
            for start in range(0, max(1, len(sequence.joints) - lifted + stride), stride)
            if start < len(sequence.joints)
        ]

        lengths = [len(sequence.joints) for sequence in self.sequences]
        first = np.concatenate([[0], np.cumsum(lengths)])
        which, start = np.array(self.windows, np.int64).reshape(-1, 2).T
        self._begin = first[which] + start
        self._length = np.minimum(first[which + 1] - self._begin, frames)
        self._ends = np.stack([first[which], first[which + 1] - 1], 1)
        self._fps = np.array([s.fps for s in self.sequences], np.float32)[which]
        self._inputs = np.concatenate([s.inputs for s in self.sequences] or [_NO_FRAMES])
        targets = [s.joints if s.scale is None else s.joints / s.scale[:, None, None]
                   for s in self.sequences]
        self._joints = np.concatenate(targets or [_NO_FRAMES])
        roots = [s.root for s in self.sequences if s.root is not None]
        known = roots and len(roots) == len(self.sequences)
        self._root = np.concatenate(roots).astype(np.float32) if known else None

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def rate(self) -> float | None:
        """Frames per second of the sequences; None if they differ."""
        rates = {sequence.fps for sequence in self.sequences}
        return rates.pop() if len(rates) == 1 else None

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: value[0] for name, value in self.read(np.array([index])).items()}

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads several windows.

        Returns:
          `keypoints` and `joints` `[n, frames, joints, 3]`, joints divided by the scale, `mask`
          bool `[n, frames]`, `fps` float32 `[n]`, and `root` `[n, frames, 3]` if all sequences
          have it. With the target "center", joints and root have one frame.
        """
        indices = np.asarray(indices)
        if self.center:
            return self._read_centers(indices)
        mask = np.arange(self.frames) < self._length[indices, None]
        frame = np.where(mask, self._begin[indices, None] + np.arange(self.frames), 0)
        padded = ~mask[..., None, None]
        found = {
            "keypoints": np.where(padded, np.float32(0), self._inputs[frame]),
            "joints": np.where(padded, np.float32(0), self._joints[frame]),
            "mask": mask,
            "fps": self._fps[indices],
        }
        if self._root is not None:
            found["root"] = np.where(padded[..., 0], np.float32(0), self._root[frame])
        return found

    def _read_centers(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        center = self._begin[indices, None]
        first, last = self._ends[indices].T[..., None]
        around = np.clip(center + np.arange(self.frames) - self.frames // 2, first, last)
        found = {
            "keypoints": self._inputs[around],
            "joints": self._joints[center],
            "mask": np.ones(around.shape, bool),
            "fps": self._fps[indices],
        }
        if self._root is not None:
            found["root"] = self._root[center]
        return found

    def stitch(self, values: np.ndarray) -> list[np.ndarray]:
        """Joins lengths `[windows, frames, ...]` to sequences, dropping padding.

        The stride is `frames`, or 1 with one frame per window and the target "center".

        Returns:
          `[sequence frames, ...]` for each sequence, times its scale: in metres.
        """
        parts: list[list[np.ndarray]] = [[] for _ in self.sequences]
        for (which, start), value in zip(self.windows, values, strict=True):
            left = len(self.sequences[which].joints) - start
            parts[which].append(value[:left])
        whole = [np.concatenate(pieces) for pieces in parts]
        return [
            part if sequence.scale is None
            else part * sequence.scale.reshape(-1, *[1] * (part.ndim - 1))
            for part, sequence in zip(whole, self.sequences, strict=True)
        ]

    def cross_fade(self, values: np.ndarray) -> list[np.ndarray]:
        """Averages overlapping windows `[windows, frames, ...]`, each weighted by a raised cosine.

        Returns:
          float64 `[sequence frames, ...]` for each sequence.
        """
        weight = np.sin(np.pi * (np.arange(self.frames) + 0.5) / self.frames) ** 2  # never 0
        tail = [1] * (values.ndim - 2)
        lengths = [len(sequence.joints) for sequence in self.sequences]
        sums = [np.zeros((length, *values.shape[2:])) for length in lengths]
        weights = [np.zeros(length) for length in lengths]
        for (which, start), value in zip(self.windows, values, strict=True):
            kept = min(self.frames, lengths[which] - start)
            sums[which][start : start + kept] += weight[:kept].reshape(-1, *tail) * value[:kept]
            weights[which][start : start + kept] += weight[:kept]
        return [
            total / known.reshape(-1, *tail) for total, known in zip(sums, weights, strict=True)
        ]
