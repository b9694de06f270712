"""COVID-19 Image Repository of Hannover, from its real table and files, and damaged ones."""

import collections

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources import covid19_image_repository as source
from tests.pose.sources import fuzz

HEADER = (
    "patient_id,image_id,sex,age,size,weight,admission_offset,icu_admission_offset,"
    "icu_release_offset,death_offset,modality,projection,crp_offset,crp_val"
)
ROWS = (
    "024e7871,fff13f3a,f,,,,0,,,,CR,pa,0.0,3.0",
    "042f06a9,b343e657,m,57,,,0,0.0,4.0,,CR,ap,0.0,5.0",
    "042f06a9,c9280a30,m,57,,,-2,-2.0,2.0,,CR,ap,0.0,38.0",
    "0664ee2b,c4a0e11a,f,,,,0,0.0,13.0,,DX,lat,,",
)
SKIP = {"image": tfds.decode.SkipDecoding()}


@pytest.fixture
def raw(tmp_path):
    """Four rows of three patients, one image lateral, with their images."""
    folder = tmp_path / "raw"
    (folder / "png").mkdir(parents=True)
    (folder / "data.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    for seed, row in enumerate(ROWS):
        pixels = np.random.default_rng(seed).integers(0, 200, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "png" / f"{row.split(',')[1]}.png")
    return folder


def read(folder):
    return source.read_table(folder, 0.125, 0.2)


def test_rows_of_the_table(raw):
    content = read(raw)
    covid = FINDINGS.index("COVID-19")
    for row in content.rows:
        assert row.labels[covid] == 1
        assert set(row.labels[:covid] + row.labels[covid + 1 :]) == {-1}
    assert [(row.image_id, row.view, row.sex, row.age) for row in content.rows] == [
        ("fff13f3a.png", "PA", "F", -1), ("b343e657.png", "AP", "M", 57),
        ("c9280a30.png", "AP", "M", 57),
    ]  # fmt: skip
    assert [row.patient_id.partition("/")[2] for row in content.rows] == [
        "024e7871", "042f06a9", "042f06a9",
    ]  # fmt: skip
    assert content.notes == (
        "1 images are left out, as their projection is neither PA nor AP: c4a0e11a.png",
    )


def test_an_image_named_twice_is_refused(raw):
    (raw / "data.csv").write_text("\n".join([HEADER, ROWS[0], ROWS[0]]))
    with pytest.raises(UserError, match=r"data\.csv:3: a second row of the image fff13f3a\.png"):
        read(raw)


def test_images_are_found_in_the_folder_png(raw, tmp_path):
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0,
        test_fraction=0.0,
    )  # fmt: skip
    assert builder.info.splits["train"].num_examples == 3


def test_damaged_tables_are_user_errors(raw):
    def write_and_read(content):
        (raw / "data.csv").write_bytes(content)
        return read(raw)

    fuzz.assert_only_user_errors(write_and_read, (raw / "data.csv").read_bytes(), "data.csv")


def text(value):
    return value.decode() if isinstance(value, bytes) else value


@pytest.fixture
def hannover(shared_data):
    folder = shared_data / "covid19_image_repository"
    if not folder.is_dir():
        pytest.skip(f"no COVID-19 Image Repository at {folder}")
    return folder


def test_real_table_has_243_images_of_71_patients_apart_by_patient(hannover):
    rows = read(hannover).rows
    splits = collections.defaultdict(set)
    for row in rows:
        splits[row.patient_id].add(row.split)
    assert len(rows) == 243
    assert len(splits) == 71
    assert all(len(names) == 1 for names in splits.values())
    assert collections.Counter(row.view for row in rows) == {"AP": 194, "PA": 49}
    assert collections.Counter(row.sex for row in rows) == {"M": 180, "F": 63}


def test_real_images_are_prepared(hannover, tmp_path):
    files = {path.name: path for path in (hannover / "png").iterdir()}
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(hannover), size=64, workers=0, equalize="none",
        allow_missing=True,
    )  # fmt: skip
    records = [
        {**record, **{key: text(record[key]) for key in ("image_id", "patient_id")}}
        for split in builder.info.splits
        for record in builder.as_data_source(split, decoders=SKIP)
    ]
    assert {record["image_id"] for record in records} == set(files)
    assert len(records) == 40
    assert len({record["patient_id"] for record in records}) == 21
    for record in records[:5]:
        with Image.open(files[record["image_id"]]) as picture:
            assert record["original_size"].tolist() == [picture.height, picture.width]
            reference = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), float)
        stored = image_files.decode(record["image"]).astype(float)
        assert np.abs(stored - reference).mean() < 3
