"""TBX11K: its lists, labels by name, hidden test, boxes in two kinds of pixels, folds."""

import collections
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder as xray
from jaxcxr.xray.sources import tbx11k as source
from jaxcxr.xray.sources import tbx11k_boxes
from tests.pose.sources import fuzz

SKIP = {"image": tfds.decode.SkipDecoding()}
TRAIN = tuple(
    f"{folder}/{letter}{number:04d}.png"
    for folder, letter in (("tb", "tb"), ("health", "h"), ("sick", "s")) for number in range(1, 13)
)
VAL = ("tb/tb0101.png", "health/h0101.png", "sick/s0101.png")
EXTRA_TRAIN = (
    "extra/da+db/train/n6.png", "extra/da+db/train/px12.jpg",
    "extra/mc+shenzhen/train/MCUCXR_0399_1.png", "extra/mc+shenzhen/train/CHNCXR_0004_0.png",
)
EXTRA_VAL = ("extra/da+db/val/n32.png", "extra/da+db/val/n6.png",
             "extra/mc+shenzhen/val/MCUCXR_0004_0.png")
HIDDEN = ("test/unknown_1.png", "test/unknown_2.png")
BOX = (381.5, 126.75, 40.25, 44.5)  # in pixels of the released images


class Raw:
    """Folder in the layout of TBX11K, each part of which a test can change."""

    def __init__(self, folder):
        self.folder = folder
        self.list("TBX11K_train", TRAIN)
        self.list("TBX11K_val", VAL)
        self.list("all_train", TRAIN + EXTRA_TRAIN)
        self.list("all_val", VAL + EXTRA_VAL)
        self.list("all_test", HIDDEN)
        self.json("TBX11K_train", TRAIN, {"tb/tb0002.png": [BOX]})
        self.json("TBX11K_val", VAL, {})

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def list(self, name, lines):
        return self.write(f"lists/{name}.txt", "\n".join(lines) + "\n")

    def json(self, name, names, boxes, category=1):
        images = [{"id": i, "file_name": name, "width": 512, "height": 512}
                  for i, name in enumerate(names, 1)]
        annotations = [
            {"id": 1, "image_id": names.index(image) + 1, "category_id": category,
             "iscrowd": 0, "bbox": list(box)}
            for image, several in boxes.items() for box in several
        ]
        content = {"info": {}, "images": images, "annotations": annotations}
        return self.write(f"annotations/json/{name}.json", json.dumps(content))

    def xml(self, stem, box, width, height, name="ActiveTuberculosis"):
        """A box in pixels of the released image, written in those of its original."""
        x, y, across, down = np.array(box) * np.array([width, height] * 2) / 512
        edges = {"xmin": x, "ymin": y, "xmax": x + across, "ymax": y + down}
        cells = "".join(f"<{edge}>{value!r}</{edge}>" for edge, value in
                        ((edge, float(value)) for edge, value in edges.items()))
        return self.write(
            f"annotations/xml/{stem}.xml",
            f"<annotation><filename>{stem}.png</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>1</depth></size><object><name>{name}</name>"
            f"<bndbox>{cells}</bndbox></object></annotation>",
        )

    def image(self, name, seed=0, size=64):
        path = self.folder / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 200, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    def rows(self, lists="tbx11k", val_fraction=0.0, **options):
        table = source.read_table(self.folder, lists, val_fraction, **options)
        return {row.image_id: row for row in table.rows}


@pytest.fixture
def raw(tmp_path):
    return Raw(tmp_path / "raw")


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def records(builder):
    return {
        text(record["image_id"]): (split, record)
        for split in builder.info.splits
        for record in builder.as_data_source(split, decoders=SKIP)
    }


def test_tbx11k_is_prepared_with_its_validation_list_as_test_split(raw, tmp_path):
    for seed, name in enumerate(TRAIN + VAL):
        raw.image(name, seed)
    builder = preparation.prepare(
        source.NAME, tmp_path / "out", raw=str(raw.folder), size=32, workers=0, val_fraction=0.3
    )
    found = records(builder)
    assert {name for name, (split, _) in found.items() if split == "test"} == set(VAL)
    assert set(found) == {*TRAIN, *VAL}
    assert builder.info.splits["validation"].num_examples > 0
    _, record = found["tb/tb0002.png"]
    assert (text(record["patient_id"]), text(record["source"])) == ("tbx11k/tb0002", "tbx11k")
    assert record["labels"].tolist() == [1]
    np.testing.assert_allclose(record["boxes"], [[0, *np.array(BOX) * 32 / 512]], rtol=1e-6)
    assert found["sick/s0101.png"][1]["labels"].tolist() == [0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("health/h0001.png", ("tbx11k", "tbx11k/h0001", 0)),
        ("sick/s4998.png", ("tbx11k", "tbx11k/s4998", 0)),
        ("tb/tb0005.png", ("tbx11k", "tbx11k/tb0005", 1)),
        ("test/unknown_1.png", ("tbx11k", "tbx11k/unknown_1", -1)),
        ("extra/da+db/train/p11.png", ("dadb", "dadb/train/p11", 1)),
        ("extra/da+db/train/px12.jpg", ("dadb", "dadb/train/px12", 1)),
        ("extra/da+db/val/n11.png", ("dadb", "dadb/val/n11", 0)),
        ("extra/da+db/val/nx1.jpg", ("dadb", "dadb/val/nx1", 0)),
        ("extra/mc+shenzhen/train/MCUCXR_0399_1.png", ("montgomery", "montgomery/MCUCXR_0399", 1)),
        ("extra/mc+shenzhen/val/CHNCXR_0002_0.png", ("shenzhen", "shenzhen/CHNCXR_0002", 0)),
    ],
)
def test_source_patient_and_label_come_from_the_path(name, expected):
    assert source.identity(name) == expected


@pytest.mark.parametrize("name", ["tb/../secret.png", "extra/mc+shenzhen/train/MCUCXR_0399.png",
                                  "extra/da+db/train/x1.png", "lungs/l0001.png", ""])
def test_other_paths_are_refused(name):
    with pytest.raises(UserError, match="is not an image of TBX11K"):
        source.identity(name)


def test_the_hidden_test_set_is_left_out_unless_asked_for_and_then_unknown(raw):
    table = source.read_table(raw.folder)
    assert not {row.image_id for row in table.rows} & set(HIDDEN)
    assert any(note.startswith("2 images of the hidden test set") for note in table.notes)
    rows = raw.rows(include_hidden=True)
    assert [(rows[name].split, rows[name].labels) for name in HIDDEN] == [("test", (-1,))] * 2


def test_without_the_hidden_list_the_rest_is_read(raw):
    (raw.folder / "lists/all_test.txt").unlink()
    assert set(raw.rows()) == {*TRAIN, *VAL}
    with pytest.raises(UserError, match=r"all_test\.txt cannot be read"):
        raw.rows(include_hidden=True)


def test_all_lists_hold_the_extra_images_less_known_copies(raw):
    table = source.read_table(raw.folder, "all", 0.0)
    splits = {row.image_id: row.split for row in table.rows}
    assert "extra/da+db/train/n6.png" not in splits  # its copy n32 is in the other list
    assert splits["extra/da+db/val/n32.png"] == splits["extra/da+db/val/n6.png"] == "test"
    assert splits["extra/mc+shenzhen/train/MCUCXR_0399_1.png"] == "train"
    assert len(splits) == len(TRAIN + VAL + EXTRA_TRAIN + EXTRA_VAL) - 1
    assert any("1 images of da+db are copies" in note for note in table.notes)


def test_a_known_copy_stays_where_the_other_is_not_listed(raw):
    raw.list("all_val", VAL)
    assert "extra/da+db/train/n6.png" in raw.rows("all")


def test_json_and_xml_boxes_agree_on_the_stored_image(raw):
    raw.image("tb/tb0001.png", size=512)
    raw.json("TBX11K_train", TRAIN, {"tb/tb0001.png": [BOX]})
    by_json = stored_boxes(raw)
    (raw.folder / "annotations/json/TBX11K_train.json").unlink()
    raw.xml("tb0001", BOX, width=2840, height=2827)
    row = raw.rows()["tb/tb0001.png"]
    assert row.box_size == (2827, 2840)
    assert row.boxes[0][1] == pytest.approx(BOX[0] * 2840 / 512)
    np.testing.assert_allclose(stored_boxes(raw), by_json, rtol=1e-5)
    np.testing.assert_allclose(by_json, [[0, *np.array(BOX) / 4]], rtol=1e-6)


def stored_boxes(raw):
    item = xray.Item.of(raw.rows()["tb/tb0001.png"], raw.folder / "imgs/tb/tb0001.png")
    return xray.encode(item, size=128, equalize="none", encoding="png").popitem()[1]["boxes"]


def test_json_goes_before_xml_image_by_image(raw):
    for stem in ("tb0001", "tb0002", "tb0003"):
        raw.xml(stem, (1, 2, 3, 4), width=1024, height=1024)
    raw.json("TBX11K_train", TRAIN[1:], {"tb/tb0002.png": [BOX]})
    rows = raw.rows()
    assert rows["tb/tb0001.png"].boxes == ((0, 2, 4, 6, 8),)  # not in the JSON file
    assert rows["tb/tb0002.png"].boxes == ((0, *BOX),)
    assert rows["tb/tb0003.png"].boxes == ()  # in the JSON file, without a box


@pytest.mark.parametrize("category", tbx11k_boxes.CATEGORIES)
def test_every_category_counts_as_tuberculosis(raw, category):
    raw.json("TBX11K_train", TRAIN, {"tb/tb0003.png": [BOX, BOX]}, category=category)
    assert raw.rows()["tb/tb0003.png"].boxes == ((0, *BOX),) * 2
    path = raw.xml("tb0001", BOX, 512, 512, name=tbx11k_boxes.CATEGORIES[category])
    assert tbx11k_boxes.read_xml(path)[0] == ((0, *BOX),)


def test_without_annotations_there_are_no_boxes(raw):
    for path in raw.folder.glob("annotations/json/*"):
        path.unlink()
    assert not any(row.boxes for row in raw.rows().values())


def test_each_patient_of_the_extra_images_is_tested_in_one_fold(raw):
    folds = [raw.rows("extra", 0.5, fold=fold, folds=3) for fold in range(3)]
    tested = [name for rows in folds for name, row in rows.items() if row.split == "test"]
    assert sorted(tested) == sorted(folds[0])
    assert set(folds[0]) == {*EXTRA_TRAIN, *EXTRA_VAL} - {"extra/da+db/train/n6.png"}


def test_folds_are_even_and_independent_of_the_validation_split():
    patients = [f"shenzhen/CHNCXR_{number:04d}" for number in range(4000)]
    cells = collections.Counter(
        (source.fold_of(patient, 5), xray.split_of(patient, 0.25)) for patient in patients
    )
    for fold in range(5):  # binomial: five standard deviations
        assert abs(cells[fold, "train"] - 600) < 5 * np.sqrt(4000 * 0.15 * 0.85)
        assert abs(cells[fold, "validation"] - 200) < 5 * np.sqrt(4000 * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lists": "trainval"}, "lists is 'trainval'; allowed: tbx11k, all, extra"),
        ({"lists": "extra", "fold": 5}, "fold is 5; allowed: 0 to 4"),
        ({"lists": "extra", "folds": 1}, "folds is 1"),
        ({"lists": "all", "fold": 1}, "fold and folds need lists=extra"),
        ({"lists": "extra", "include_hidden": True}, "include_hidden needs lists=tbx11k or all"),
    ],
)
def test_impossible_options_say_what_is_allowed(options, message):
    with pytest.raises(UserError, match=message):
        source.Tbx11kConfig(**options)


def test_the_fold_names_the_variant():
    config = source.Tbx11kConfig(size=64, lists="extra", fold=2)
    assert config.name == "64_hist_png_lists-extra_fold-2"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("tb/tb0001.png", "tb0002.png"), r"TBX11K_val\.txt:2: 'tb0002\.png' is not an image"),
        (("tb/tb0001.png",), r"TBX11K_val\.txt: tb/tb0001\.png is in TBX11K_train\.txt too"),
        ((), r"TBX11K_val\.txt: empty"),
    ],
)
def test_wrong_lists_are_named(raw, lines, message):
    raw.list("TBX11K_val", lines)
    with pytest.raises(UserError, match=message):
        raw.rows()


def test_an_absent_folder_or_list_is_named(raw, tmp_path):
    with pytest.raises(UserError, match=r"no folder .*--raw DIR"):
        source.read_table(tmp_path / "absent")
    (raw.folder / "lists/TBX11K_train.txt").unlink()
    with pytest.raises(UserError, match=r"TBX11K_train\.txt cannot be read"):
        raw.rows()


def test_repeated_lines_count_once(raw):
    raw.list("TBX11K_val", (*VAL, VAL[0]))
    table = source.read_table(raw.folder)
    assert len(table.rows) == len(TRAIN + VAL)
    assert f"1 lines of the lists are repetitions and count once: {VAL[0]}" in table.notes


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", {"category_id": 4}, r"annotations\[0\]: the category_id is 4; .* 3 \(Pul"),
        ("annotations", {"image_id": 99}, r"annotations\[0\]: no image has the image_id 99"),
        ("annotations", {"bbox": [1, 2, 3]}, r"annotations\[0\]: bbox is not a list"),
        ("annotations", {"bbox": [1, 2, float("nan"), 4]}, r"annotations\[0\]: .* is not a box"),
        ("annotations", {"bbox": [1, 2, -3, 4]}, r"annotations\[0\]: .* is not a box"),
        ("annotations", {"bbox": [10**400, 2, 3, 4]}, r"annotations\[0\]: .* is not a box"),
        ("images", {"width": 0}, r"images\[0\]\.width is 0"),
        ("images", {"file_name": None}, r"images\[0\] has no file_name"),
    ],
)
def test_wrong_json_entries_are_named(raw, key, change, message):
    path = raw.folder / "annotations/json/TBX11K_train.json"
    content = json.loads(path.read_bytes())
    content[key][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"TBX11K_train\.json: {message}"):
        raw.rows()


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [1]}', "[" * 100_000])
def test_json_of_another_form_is_refused(raw, content):
    raw.write("annotations/json/TBX11K_train.json", content)
    with pytest.raises(UserError, match=r"TBX11K_train\.json"):
        raw.rows()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ActiveTuberculosis", "Nodule", "object 1 is called 'Nodule'"),
        ("<width>1000</width>", "", "size/width is None"),
        ("<height>900</height>", "<height>-1</height>", "size/height is -1"),
        ("<xmin>", "<xmin>x", "object 1: bndbox/xmin is 'x"),
        ("</annotation>", "", "no XML file"),
        ("<annotation>", "<?xml version='1.0' encoding='nonsense'?><annotation>", "no XML file"),
    ],
)
def test_wrong_xml_is_named(raw, old, new, message):
    path = raw.xml("tb0001", BOX, width=1000, height=900)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"tb0001\.xml: {message}"):
        tbx11k_boxes.read_xml(path)


@pytest.mark.parametrize("kind", ["list", "json", "xml"])
def test_broken_files_raise_only_user_errors(raw, kind):
    path, read = {
        "list": (raw.list("TBX11K_val", VAL), source.read_list),
        "json": (raw.json("TBX11K_val", VAL, {VAL[0]: [BOX]}), tbx11k_boxes.read_json),
        "xml": (raw.xml("tb0001", BOX, 1000, 900), tbx11k_boxes.read_xml),
    }[kind]

    def write_and_read(content):
        path.write_bytes(content)
        read(path)

    fuzz.assert_only_user_errors(write_and_read, path.read_bytes(), path.name)


def test_real_lists_have_their_published_lengths(shared_data):
    lengths = {
        path.stem: len(source.read_list(path))
        for path in (shared_data / "tbx11k/lists").glob("*.txt")
    }
    assert lengths == {
        "TBX11K_train": 6600, "TBX11K_val": 1800, "TBX11K_trainval": 8400, "all_train": 6888,
        "all_val": 2088, "all_trainval": 8976, "all_test": 3302,
    }


def test_real_labels_and_boxes(shared_data):
    rows = source.read_table(shared_data / "tbx11k").rows
    count = collections.Counter((row.split == "test", row.labels) for row in rows)
    assert count == {(False, (0,)): 6000, (False, (1,)): 600, (True, (0,)): 1600, (True, (1,)): 200}
    boxes = collections.Counter()
    for row in rows:
        boxes[row.split == "test"] += len(row.boxes)
        assert row.labels == (1,) or not row.boxes
        assert row.box_size == (512, 512)
    assert boxes == {False: 902, True: 309}
    assert sum(row.labels == (1,) and not row.boxes for row in rows) == 1
    validation = sum(row.split == "validation" for row in rows)
    assert abs(validation - 0.125 * 6600) < 5 * np.sqrt(6600 * 0.125 * 0.875)


def test_real_lists_with_all_images_leave_out_two_copies(shared_data):
    rows = source.read_table(shared_data / "tbx11k", "all", include_hidden=True).rows
    assert len(rows) == 6888 + 2088 + 3302 - 2
    assert len({row.patient_id for row in rows}) == len(rows)


def test_real_extra_images_are_prepared_by_fold(shared_data, tmp_path):
    builder = preparation.prepare(
        source.NAME, tmp_path, raw=str(shared_data / "tbx11k"), lists="extra", fold=1, size=64,
        allow_missing=True, workers=0,
    )
    found = records(builder)
    on_disk = {
        path.relative_to(shared_data / "tbx11k/imgs").as_posix()
        for path in (shared_data / "tbx11k/imgs/extra").rglob("*.png")
    }
    assert set(found) == on_disk
    count = collections.Counter(
        (text(record["source"]), int(record["labels"][0])) for _, record in found.values()
    )
    assert count == {("shenzhen", 0): 160, ("shenzhen", 1): 130,
                     ("montgomery", 0): 22, ("montgomery", 1): 14}
    for split, record in found.values():
        assert (split == "test") == (source.fold_of(text(record["patient_id"]), 5) == 1)
