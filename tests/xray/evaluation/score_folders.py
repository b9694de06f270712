"""Labels and predictions in files that a test can change, for the tests of `jaxcxr score`."""

import csv
import json

import numpy as np
import pytest
from scipy import special

from jaxcxr import __main__ as command

CLASSES = ("Mass", "Pleural_Thickening", "Edema")
N = 80
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


class Folder:
    """Labels and predictions of 80 images of 25 patients, in files that a test can change."""

    def __init__(self, path):
        rng = np.random.default_rng(0)
        self.path = path
        self.labels = (rng.random((N, 3)) < 0.3).astype(int)
        self.scores = np.round(rng.normal(size=(N, 3)) + self.labels, 2)
        self.patients = rng.integers(0, 25, N)
        self.ids = [f"{p:08d}_{i:03d}.png" for i, p in enumerate(self.patients)]
        self.plain()
        self.predict()

    def write(self, name, rows):
        with (self.path / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def plain(self, prefix="", values=None, name="labels.csv"):
        values = self.labels if values is None else values
        self.write(name, [
            ["image_id", "patient_id", *(prefix + c for c in CLASSES)],
            *([i, p, *v] for i, p, v in zip(self.ids, self.patients, values, strict=True)),
        ])

    def data_entry(self, end=""):
        lines = [HEADER + end]
        for name, patient, values in zip(self.ids, self.patients, self.labels, strict=True):
            found = "|".join(c for c, v in zip(CLASSES, values, strict=True) if v) or "No Finding"
            lines.append(f"{name},{found},0,{patient},57,M,PA,2682,2749,0.143,0.143{end}")
        (self.path / "labels.csv").write_text("\n".join(lines) + "\n")

    def predict(self, column="id", prefix="prob_", classes=CLASSES, ids=None, order=None):
        ids = ids or self.ids
        self.write("scores.csv", [
            [column, *(prefix + c for c in classes)],
            *([ids[i], *self.scores[i]] for i in (range(N) if order is None else order)),
        ])

    def replace(self, name, old, new):
        path = self.path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def probabilities(self):
        """Makes scores of probabilities, as a sigmoid would."""
        self.scores = np.round(special.expit(self.scores - 1), 6)
        self.predict()
        return self.read_scores()

    def read_scores(self):
        return np.loadtxt(self.path / "scores.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3))

    def fails(self, *more, capsys):
        """What is said when it ends with exit code 2."""
        with pytest.raises(SystemExit) as caught:
            self.run(*more)
        assert caught.value.code == 2
        return capsys.readouterr().err

    def run(self, *more):
        words = ["--labels", "labels.csv", "--predictions", "scores.csv", "--out", "out"]
        paths = [word if word.startswith("-") else str(self.path / word) for word in words]
        command.run(["score", *paths, "--resamples", "20", *map(str, more)])
        return json.loads((self.path / "out/metrics.json").read_text())
