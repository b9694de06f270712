"""The table after a preparation: counts by split, unknown labels apart from absent findings."""

import pytest

from jaxcxr.data import overview
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources.radiograph_set import RadiographSet


class Info:
    """What TFDS tells of a prepared data set."""

    splits = ("train", "test")


@pytest.fixture
def rows_of(tmp_path, monkeypatch, capsys):
    """Prints the table of these (split, labels) and returns its rows."""
    builder = type("Builder", (), {"info": Info})
    monkeypatch.setattr(
        overview.tfds, "builder_from_directory", lambda directory: builder
    )

    def show(*records):
        table = [
            {"image_id": str(i), "patient_id": str(i // 2), "split": split, "labels": labels}
            for i, (split, labels) in enumerate(records)
        ]
        splits = {name: [r for r in table if r["split"] == name] for name in Info.splits}
        manifest.write(tmp_path, splits, ("Mass", "Nodule"))
        overview.show(tmp_path, RadiographSet.overview)
        lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
        return {cells[1].strip(): [int(cell) for cell in cells[2:-1]] for cells in lines}

    return show


def test_counts_by_split(rows_of):
    assert rows_of(("train", [1, 0]), ("train", [0, 0]), ("test", [1, 1])) == {
        "images": [2, 1], "patients": [1, 1], "Mass": [1, 1], "Nodule": [0, 1],
        "no finding": [1, 0],
    }


@pytest.mark.parametrize("order", [1, -1])
def test_unknown_labels_are_counted_where_one_split_alone_has_them(rows_of, order):
    names = ("train", "test")[::order]
    found = rows_of((names[0], [-1, 0]), (names[0], [0, 0]), (names[1], [0, 0]))
    assert found["unknown labels"] == [1, 0][::order]
    assert found["no finding"] == [1, 1]
