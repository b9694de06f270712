"""Splits by subject, common to the motion sources whose files name who moves."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.keypoints import frame_rates

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 0.1


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """The names in "S1,S5", in ("S1", "S5") or, as the command line gives it, in ("S1,S5",)."""
    text = value if isinstance(value, str) else ",".join(map(str, value))
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclasses.dataclass(eq=False)
class SubjectConfig(tfds.core.BuilderConfig):
    """Subjects of the splits and the frame rate.

    Attributes:
      train_subjects: for training.
      validation_subjects: models are chosen on these, never on the test subjects. Empty: a tenth
        of the training subjects' takes, chosen by a hash of their names, with all their cameras.
      test_subjects: the published protocol's.
      fps: frames per second of the prepared sequences; another than the files' is interpolated,
        see `jaxcxr.pose.keypoints.frame_rates`.
    """

    train_subjects: tuple[str, ...] = ()
    validation_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    fps: float = 50.0

    def settle(self, source: str, known: Sequence[str], native: bool = False) -> str:
        """Puts the options in order.

        Arguments:
          source: name of the data set.
          known: all subjects.
          native: see `frame_rates.check`.

        Returns:
          What the name of the variant says of them.

        Raises:
          UserError: an unknown subject, one of two splits, an empty split, or no frame rate.
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
        default = next(f.default for f in dataclasses.fields(self) if f.name == "fps")
        self.fps = frame_rates.check(source, self.fps, native)
        joined = "_".join(
            f"{short}-{'-'.join(groups[split]).replace('/', '') or 'takes'}"
            for short, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        )
        return joined + frame_rates.label(self.fps, default)

    def split_of(self, subject: str, take: str) -> str:
        """The split of a take, "" for subjects in none."""
        if subject in self.test_subjects:
            return "test"
        if subject in self.validation_subjects:
            return "validation"
        if subject not in self.train_subjects:
            return ""
        if self.validation_subjects:
            return "train"
        digest = hashlib.sha256(f"{subject} {take}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        return "validation" if share < _VALIDATION_SHARE else "train"


def check_splits(source: str, splits: Mapping[str, Sequence], present: Sequence[str]) -> None:
    """Refuses an empty split.

    Raises:
      UserError: a split has nothing; the message names the subjects that the data hold.
    """
    empty = [split for split, chosen in splits.items() if not chosen]
    if empty:
        raise UserError(
            f"{source}: no take for the {empty[0]} split; the data hold subjects "
            f"{', '.join(sorted(present)) or 'none'}."
        )
