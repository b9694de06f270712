"""Defines the base of motion data sets: features, records, and splits by subject."""

import abc
import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.data.dataset import DataSet
from jaxcxr.errors import BadRecord, UserError
from jaxcxr.pose.keypoints import frame_rates

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 0.1


def pose_features(scaled: bool = False) -> tfds.features.FeaturesDict:
    """Returns the features of one motion sequence from one camera.

    Returns:
      `sequence_id`, `subject`, `action`, `camera`, `fps`, `keypoints` float32 `[frames, 17, 2]` in
      pixels, `confidence` float32 `[frames, 17]` (0 = not seen), `joints` float32 `[frames, 17, 3]`
      in metres in the camera frame (x right, y down, z forward), `image_size` int32 `[2]` as
      (width, height), `intrinsics` float32 `[9]` as (fx, fy, cx, cy, k1, k2, k3, p1, p2) in pixels.
      If `scaled`, models give poses in a unit of the image: `scale` float32 `[frames]` is metres
      per unit, and `joints`, still in metres, are about any origin.
    """
    tensor, text = tfds.features.Tensor, tfds.features.Text
    scale = {"scale": tensor(shape=(None,), dtype=np.float32)} if scaled else {}
    return tfds.features.FeaturesDict({
        **scale,
        "sequence_id": text(), "subject": text(), "action": text(), "camera": text(),
        "fps": tfds.features.Scalar(np.float32),
        "keypoints": tensor(shape=(None, 17, 2), dtype=np.float32),
        "confidence": tensor(shape=(None, 17), dtype=np.float32),
        "joints": tensor(shape=(None, 17, 3), dtype=np.float32),
        "image_size": tensor(shape=(2,), dtype=np.int32),
        "intrinsics": tensor(shape=(9,), dtype=np.float32),
    })


def record(
    sequence_id: str, subject: str, action: str, camera: str, arrays: Mapping[str, np.ndarray],
    own_fps: float, fps: float = 0.0,
) -> tuple[str, dict]:
    """Makes a record of `pose_features`, resampled to `fps` frames per second unless that is 0."""
    entry = {"sequence_id": sequence_id, "subject": subject, "action": action, "camera": camera,
             "fps": own_fps, **arrays}
    return sequence_id, frame_rates.resample(entry, fps)


def sequence_name(subject: str, take: str, camera: str) -> str:
    """Names a sequence: S9_Walking_1_54138969."""
    return f"{subject}_{take.replace(' ', '_')}_{camera}"


# TFDS reads the keyword, which its types do not tell.
class PoseSet(DataSet, skip_registration=True):  # type: ignore[call-arg]
    """Builds a motion data set with records of `pose_features`.

    A subclass sets `builder_config_class` and the class attributes below, and implements `_splits`.
    """

    VERSION = tfds.core.Version("1.0.0")

    description: ClassVar[str]  # {fps:g} becomes the frame rate
    homepage: ClassVar[str | None] = None
    citation: ClassVar[str | None] = None
    scaled: ClassVar[bool] = False  # see `pose_features`

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description=self.description.format(fps=self.builder_config.fps),
            features=pose_features(self.scaled), homepage=self.homepage, citation=self.citation,
        )

    @abc.abstractmethod
    def _splits(self, config) -> Mapping[str, Any]:
        """Finds the data of each split: staged records, or a generator of `record`."""

    def _split_generators(self, dl_manager) -> Mapping[str, Any]:
        del dl_manager
        return self._splits(self.builder_config)

    @staticmethod
    def overview(directory: pathlib.Path, split: str) -> dict[str, int]:
        """Counts the sequences, frames and subjects of one split."""
        records = tfds.builder_from_directory(directory).as_data_source(split)
        shapes = [(record["subject"], len(record["joints"])) for record in records]
        frames = sum(length for _, length in shapes)
        subjects = len({subject for subject, _ in shapes})
        return {"sequences": len(shapes), "frames": frames, "subjects": subjects}


@contextlib.contextmanager
def refused_as_bad() -> Iterator[None]:
    """Turns the UserError of a malformed file into a BadRecord, which `max_bad` tolerates."""
    try:
        yield
    except UserError as error:
        raise BadRecord(str(error).rstrip(".")) from error


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """Lists the names in "S1,S5", ("S1", "S5") or the command line's ("S1,S5",)."""
    text = value if isinstance(value, str) else ",".join(map(str, value))
    return tuple(name.strip() for name in text.split(",") if name.strip())


def share(name: str) -> float:
    """Maps a name to a number in [0, 1) by its hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


@dataclasses.dataclass(eq=False)
class SubjectConfig(tfds.core.BuilderConfig):
    """Options: the subjects of the splits, and the frame rate.

    Attributes:
      train_subjects: subjects to train on.
      validation_subjects: subjects that choose models. Empty for a tenth of the training subjects'
        takes with all their cameras, by a hash of their names.
      test_subjects: the published protocol's.
      fps: frames per second of the prepared sequences, resampled by
        `jaxcxr.pose.keypoints.frame_rates` if the files have another rate.
    """

    train_subjects: tuple[str, ...] = ()
    validation_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    fps: float = 50.0

    def settle(self, source: str, known: Sequence[str], native: bool = False) -> str:
        """Normalises and checks the options, and returns their part of the variant's name."""
        groups = {}
        for split in SPLITS:
            field = f"{split}_subjects"
            groups[split] = listed(getattr(self, field))
            setattr(self, field, groups[split])
            unknown = [name for name in groups[split] if name not in known]
            if unknown:
                raise UserError(
                    f"{source}: {field} names {unknown[0]!r}; subjects are {', '.join(known)}."
                )
        named = [name for names in groups.values() for name in names]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise UserError(f"{source}: subject {twice[0]} is named for two splits; choose one.")
        if not groups["train"] or not groups["test"]:
            raise UserError(f"{source}: train_subjects and test_subjects must not be empty.")
        default = type(self).fps
        self.fps = frame_rates.check(source, self.fps, native)
        joined = "_".join(
            f"{short}-{'-'.join(groups[split]).replace('/', '') or 'takes'}"
            for short, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        )
        return joined + frame_rates.label(self.fps, default)

    def split_of(self, subject: str, take: str) -> str:
        """Returns the split of a take, "" for none."""
        if subject in self.test_subjects:
            return "test"
        if subject in self.validation_subjects:
            return "validation"
        if subject not in self.train_subjects:
            return ""
        if self.validation_subjects:
            return "train"
        return "validation" if share(f"{subject} {take}") < _VALIDATION_SHARE else "train"

    def split_takes(
        self, source: str, takes: Iterable[tuple[str, str, Any]], present: Collection[str]
    ) -> dict[str, list[tuple[str, str, Any]]]:
        """Sorts (subject, take, content) by split; `present` are the subjects in the data."""
        splits: dict[str, list] = {split: [] for split in SPLITS}
        for take in takes:
            split = self.split_of(*take[:2])
            if split:
                splits[split].append(take)
        empty = [split for split, chosen in splits.items() if not chosen]
        if empty:
            raise UserError(
                f"{source}: no take for the {empty[0]} split; the data hold subjects "
                f"{', '.join(sorted(present)) or 'none'}."
            )
        return splits
