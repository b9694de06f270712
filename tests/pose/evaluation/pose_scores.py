"""A folder of poses to score, for the tests of `jaxcxr score --task pose`."""

import json

import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.pose.evaluation import pose_errors

KEYS = [
    f"{subject}/{action}/{camera}"
    for subject in ("S9", "S11") for action in ("Walking 1", "Walking 2", "Sitting 1", "Sitting 2")
    for camera in ("54138969", "60457274")
]


class Folder:
    """Poses of two subjects, two actions and two cameras, in files that a test can change."""

    def __init__(self, path):
        rng = np.random.default_rng(0)
        self.path = path
        self.labels, self.predictions = {}, {}
        for i, key in enumerate(KEYS):
            truth = rng.normal(0, 0.3, (6 + i % 3, 17, 3))
            truth -= truth[:, :1]
            spread = 0.02 if "Walking" in key else 0.06
            self.labels[key] = truth
            self.predictions[key] = truth + rng.normal(0, spread, truth.shape)
        self.save()

    def save(self, labels=None, predictions=None):
        np.savez(self.path / "labels.npz", **(self.labels if labels is None else labels))
        np.savez(
            self.path / "guess.npz", **(self.predictions if predictions is None else predictions)
        )

    def run(self, *more, protocol="vp3d-cpn", labels="labels.npz", predictions="guess.npz"):
        command.run([
            "score", "--task=pose", "--labels", str(self.path / labels), "--predictions",
            str(self.path / predictions), f"--protocol={protocol}", "--out",
            str(self.path / "out"), "--resamples", "200", *map(str, more),
        ])
        return json.loads((self.path / "out/metrics.json").read_text())

    def errors(self, chosen=lambda key: True):
        """Frame errors in millimetres of the sequences chosen."""
        return np.concatenate([
            pose_errors.frame_errors(1000 * self.predictions[key], 1000 * self.labels[key])
            for key in KEYS if chosen(key)
        ])


def refused(capsys, call):
    """What a user's mistake says, after exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code == 2
    return capsys.readouterr().err
