"""Shards: TFDS's order, whatever their number; what TFDS reads back; names that are given twice."""


import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from jaxcxr.data import dataset, preparation
from jaxcxr.errors import UserError
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources.radiograph_set import RadiographSet

SKIP = {"image": tfds.decode.SkipDecoding()}
OPTIONS = {
    "chest_phantom": {"size": 32, "images": 60, "workers": 0},
    "motion_phantom": {"subjects": 4, "sequences": 1, "seconds": 0.2},
}


def _records(builder, source):
    decoders = SKIP if source == "chest_phantom" else None
    return {
        split: [
            {key: np.asarray(value).tobytes() for key, value in record.items()}
            for record in builder.as_data_source(split, decoders=decoders)
        ]
        for split in builder.info.splits
    }


@pytest.mark.parametrize(("source", "key"), [
    ("chest_phantom", "image_id"), ("motion_phantom", "sequence_id"),
])
def test_order_is_that_of_tfds(source, key, tmp_path):
    builder = preparation.prepare(source, tmp_path / "data", **OPTIONS[source])
    assert set(builder.info.splits) == {"train", "validation", "test"}
    for split in builder.info.splits:
        found = [record[key] for record in builder.as_data_source(split, decoders=None)]
        shuffler = shuffle.Shuffler(tmp_path, split)
        for name in sorted(found):
            shuffler.add(name, name)
        assert found == [name for _, name in shuffler]


@pytest.mark.parametrize("source", ["chest_phantom", "motion_phantom"])
def test_number_of_shards_changes_nothing(source, tmp_path, monkeypatch, capsys):
    whole = preparation.prepare(source, tmp_path / "a", **OPTIONS[source])
    monkeypatch.setattr(dataset, "_SHARD_BYTES", 5000)
    parts = preparation.prepare(source, tmp_path / "b", **OPTIONS[source])
    assert whole.info.splits["train"].num_shards == 1
    assert parts.info.splits["train"].num_shards > 3
    assert _records(whole, source) == _records(parts, source)
    reopened = tfds.builder_from_directory(parts.data_dir)
    assert _records(reopened, source) == _records(parts, source)
    assert reopened.info.splits["train"].num_bytes == whole.info.splits["train"].num_bytes > 0
    assert "writing the shards of train" not in capsys.readouterr().err  # brief work is silent


@pytest.mark.parametrize("name", ["a", "a/b", "a\\b", "é"])
def test_place_is_the_hash_of_tfds(name):
    shuffler = shuffle.Shuffler(".", "validation")
    shuffler.add(name, b"")
    [(place, _)] = shuffler
    assert int.from_bytes(dataset._place("validation", name), "big") == place


@dataclasses.dataclass(eq=False)
class TwiceConfig(tfds.core.BuilderConfig):
    name: str = "twice"


class Twice(dataset.DataSet, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    builder_config_class = TwiceConfig

    def _info(self):
        features = tfds.features.FeaturesDict({"number": tfds.features.Scalar(np.int32)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": iter([("a", {"number": 1}), ("b", {"number": 2}), ("a", {"number": 3})])}

    @staticmethod
    def overview(directory, split):
        return {}


def test_a_key_given_twice_is_named(tmp_path):
    builder = Twice(data_dir=tmp_path, config=TwiceConfig())
    with pytest.raises(UserError, match="two records of train are called 'a'"):
        builder.download_and_prepare(file_format="array_record")
    assert not pathlib.Path(builder.data_dir).exists()


class Info:
    """What TFDS tells of a prepared data set."""

    splits = ("train", "test")


@pytest.fixture
def rows_of(tmp_path, monkeypatch, capsys):
    """Prints the table of these (split, labels) and returns its rows."""
    builder = type("Builder", (), {"info": Info})
    monkeypatch.setattr(
        dataset.tfds, "builder_from_directory", lambda directory: builder
    )

    def show(*records):
        table = [
            {"image_id": str(i), "patient_id": str(i // 2), "split": split, "labels": labels}
            for i, (split, labels) in enumerate(records)
        ]
        splits = {name: [r for r in table if r["split"] == name] for name in Info.splits}
        manifest.write(tmp_path, splits, ("Mass", "Nodule"))
        dataset.show(tmp_path, RadiographSet.overview)
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
