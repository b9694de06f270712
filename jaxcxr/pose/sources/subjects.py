"""Splits data sets by subject, for sources whose files name subjects."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence

import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 0.1


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
        """Normalises and checks the options.

        Arguments:
          source: name of the data set.
          known: all subjects.
          native: see `frame_rates.check`.

        Returns:
          Their part of the variant's name.

        Raises:
          UserError: a subject is unknown or in two splits, a split is empty, or the frame rate is
            impossible.
        """
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


def check_splits(source: str, splits: Mapping[str, Sequence], present: Collection[str]) -> None:
    """Refuses an empty split.

    Raises:
      UserError: a split is empty; the message names the subjects in the data.
    """
    empty = [split for split, chosen in splits.items() if not chosen]
    if empty:
        raise UserError(
            f"{source}: no take for the {empty[0]} split; the data hold subjects "
            f"{', '.join(sorted(present)) or 'none'}."
        )
