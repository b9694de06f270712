"""Stress tests of models whose reasons are known: the border of an image, or its lungs."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.xray.evaluation import stress_xrays
from jaxcxr.xray.images import damage, manifest

SIDE, COUNT = 32, 240


@dataclasses.dataclass
class Source:
    """Images that show a finding in the lungs, and its hospital's marker in the border."""

    manifest: manifest.Manifest
    images: np.ndarray

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        return {"image": self.images[rows][..., None], "labels": self.manifest.labels[rows]}


def make_source(seed, confounded):
    random = np.random.default_rng(seed)
    ill = random.random(COUNT) < 0.5
    marked = ill ^ (random.random(COUNT) < (0.05 if confounded else 0.5))
    images = random.normal(100, 10, (COUNT, SIDE, SIDE))
    images[ill] += 8 * damage.lungs(SIDE, SIDE)
    images[marked, :3, :6] = 250
    rows = manifest.from_rows(
        ({"split": "test", "image_id": str(i), "patient_id": str(i // 2), "labels": [int(ill[i])],
          "source": "ab"[int(marked[i])], "view": "PA", "sex": "MF"[i % 2], "age": 20 + i % 60}
         for i in range(COUNT)), ("Mass",),
    )
    return Source(rows, images.clip(0, 255).astype(np.uint8))


class Task:
    def __init__(self, confounded):
        self._splits = {
            "train": make_source(0, confounded), "test": make_source(1, confounded),
        }

    def source(self, split):
        return self._splits[split]


def means(source, *masks):
    """Mean gray value of each image in each mask, `[n, masks]`."""
    images = source.read(np.arange(len(source)))["image"][..., 0].astype(float)
    return np.stack([images[:, mask].mean(1) for mask in masks], 1)


LUNGS = damage.lungs(SIDE, SIDE)
MARKER = np.zeros((SIDE, SIDE), bool)
MARKER[:3, :6] = True


def by_lungs(source):
    lungs, rest = means(source, LUNGS, ~LUNGS & ~MARKER).T
    return {"scores": (lungs - rest)[:, None]}


def by_marker(source):
    return {"scores": means(source, MARKER)}


def features(source):
    return means(source, LUNGS, MARKER, ~LUNGS & ~MARKER)


def measured(predict, confounded, kinds=stress_xrays.KINDS):
    return stress_xrays.measure(
        Task(confounded), "test", predict, kinds, resamples=100, say=lambda _: None,
        features=features,
    )


@pytest.fixture(scope="module")
def shortcut():
    return measured(by_marker, confounded=True)


def test_a_model_of_the_border_is_found_out(shortcut):
    regions = shortcut["regions"]
    assert shortcut["auroc"] > 0.9
    assert regions["border_only"]["change"] == 0
    assert regions["lungs_out"]["change"] == 0
    assert regions["center_only"]["auroc"] == 0.5  # nothing is left of its reason
    low, high = regions["center_only"]["change_interval"]
    assert low <= regions["center_only"]["change"] <= high < 0
    told = shortcut["attributes"]
    assert told["findings_from"]["source"]["auroc"] > 0.9
    assert told["findings_from"]["sex"]["auroc"] == pytest.approx(0.5, abs=0.1)
    assert "view" not in told["findings_from"]  # there is one
    assert told["from_features"]["source"]["auroc"] > 0.99
    assert told["from_features"]["sex"]["auroc"] == pytest.approx(0.5, abs=0.1)
    text = " ".join(shortcut["warnings"])
    assert "from the border alone, the model still reaches" in text
    assert "the source alone, without any image" in text


def test_the_score_within_a_source_is_what_the_shortcut_cannot_give(shortcut):
    for name in "ab":
        entry = shortcut["sources"][name]
        low, high = entry["within"]["auroc_interval"]
        assert low <= 0.5 <= high  # all images of a source have the same marker
        # A linear head finds the finding itself in the features.
        assert entry["head_of_all"]["auroc"] > 0.8
        assert entry["head_of_others"]["auroc"] > 0.8
    assert sum(entry["images"] for entry in shortcut["sources"].values()) == COUNT


def test_an_honest_model_needs_the_lungs():
    result = measured(by_lungs, confounded=False, kinds=("regions", "noise"))
    assert result["auroc"] > 0.9
    assert result["regions"]["lungs_out"]["auroc"] < 0.65
    assert result["warnings"] == []
    levels = result["kinds"]["noise"]["levels"]
    assert levels[0]["level"] == 0
    assert levels[0]["auroc"] == result["auroc"]
    assert levels[0]["change_interval"] == [0, 0]
    assert levels[-1]["auroc"] < levels[0]["auroc"] + 1e-9
    assert "attributes" not in result


def test_it_can_be_read(shortcut):
    text, page = stress_xrays.to_text(shortcut), stress_xrays.to_markdown(shortcut)
    assert text.startswith("macro AUROC 0.9")
    assert "warning: " in text
    for title in ("Parts of the image", "Images of one source", "rotation"):
        assert title in text
        assert f"## {title}" in page
    assert json.loads(json.dumps(shortcut, allow_nan=False))["split"] == "test"
    figure = stress_xrays.figure(shortcut)
    titles = {axes.get_title() for axes in figure.axes}
    assert set(damage.CORRUPTIONS) <= titles


def test_the_command_tests_a_run(xray_run, capsys):
    command.run(["stress", "--workdir", str(xray_run), "--resamples", "50", "--kinds", "regions",
                 "attributes", "inversion"])
    said = capsys.readouterr().out
    assert "with the lungs blacked out" in said
    result = json.loads((xray_run / "report" / "stress.json").read_text())
    rows = (xray_run / "predictions" / "test.csv").read_text().splitlines()
    assert result["counts"]["images"] == len(rows) - 1
    assert set(result["kinds"]) == {"inversion"}
    assert (xray_run / "report" / "stress.png").stat().st_size > 10_000
