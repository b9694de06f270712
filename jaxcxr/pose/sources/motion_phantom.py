"""Generates synthetic human motion from virtual cameras, in seconds and without raw data."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxcxr.errors import UserError
from jaxcxr.pose.phantom import actions, body
from jaxcxr.pose.sources import pose_set, virtual

FPS = virtual.FPS
_TEST_SUBJECTS = 2


@dataclasses.dataclass(eq=False)
class MotionPhantomConfig(virtual.VirtualConfig):
    """Options of the motion phantoms; together they name the variant.

    Attributes:
      subjects: number of people S1, S2, ...; the last two are for the test, the one before them
        for validation.
      sequences: sequences per subject and action.
      seconds: length of a sequence.
      seed: seed of the movements, the cameras, the noise and the misses.
    """

    name: str = ""
    subjects: int = 7
    sequences: int = 3
    seconds: float = 4.0
    noise: float = 2.0
    dropout: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.subjects < _TEST_SUBJECTS + 2:
            raise UserError(
                f"motion_phantom: subjects is {self.subjects}; at least {_TEST_SUBJECTS + 2} are "
                "needed for training, validation and test."
            )
        if self.sequences < 1 or self.seconds * self.fps < 2:
            raise UserError(
                f"motion_phantom: sequences is {self.sequences} and seconds is {self.seconds}; "
                f"at least 1 sequence of {2 / self.fps:g} s is needed."
            )
        self.name = self.name or (
            f"{self.rig}_{self.subjects}x{self.sequences}x{self.seconds:g}s"
            f"_{self.detector.label}_seed{self.seed}{self.rate}"
        )


def subjects_of_splits(subjects: int) -> dict[str, range]:
    """Assigns the numbers of people to splits."""
    test = subjects - _TEST_SUBJECTS + 1
    return {
        "train": range(1, test - 1),
        "validation": range(test - 1, test),
        "test": range(test, subjects + 1),
    }


class MotionPhantom(pose_set.PoseSet):
    """Walk, run, turn, squat, wave, sit and jump; records of `pose_features`."""

    builder_config_class = MotionPhantomConfig
    description = (
        "Drawn human motion with constant bone lengths, 17 joints in Human3.6M order, {fps:g} "
        "frames per second, seen by cameras with lens distortion."
    )

    def _splits(self, config) -> dict[str, Iterator]:
        groups = subjects_of_splits(config.subjects)
        return {split: self._generate_examples(people) for split, people in groups.items()}

    def _generate_examples(self, people: range) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        for person in people:
            for number, action in enumerate(actions.ACTIONS):
                for take in range(config.sequences):
                    yield from _records(config, person, number, action, take)


def _records(config, person, number, action, take) -> Iterator[tuple[str, dict]]:
    """Yields one record per camera of one sequence."""
    rng = np.random.default_rng([config.seed, person, number, take])
    who = body.make_body(person)
    t = np.arange(round(config.seconds * config.fps)) / config.fps
    world = body.place(who, actions.ACTIONS[action](rng, who, t), config.fps)
    world[..., :2] += rng.uniform(-0.3, 0.3, 2)
    records = virtual.records(
        world, config.rig, config.detector, rng,
        name=f"{who.name}_{action}_{take}", subject=who.name, action=action, fps=config.fps,
    )
    yield from records.items()
