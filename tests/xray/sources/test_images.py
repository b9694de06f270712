"""Images of one's own: tables of every kind, folders of classes, splits, patients, refusals."""

import gzip
import json
import shutil

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from jaxcxr.commands import prepare as command
from jaxcxr.data import dataset, preparation
from jaxcxr.errors import UserError
from jaxcxr.xray.images import manifest
from jaxcxr.xray.sources import images as source

HEADER = ["filename", "patient", "sex", "age", "view", "Effusion", "Gerät ü"]
ROWS = [
    ["a/1.png", "P1", "M", "40", "AP", "1", "0"],
    ["a/2.png", "P1", "M", "41", "PA", "0", "1"],
    ["b/1.png", "P2", "female", "060Y", "AP supine", "-1", ""],
    ["b/3.png", "P3", "?", "", "lateral", "0", "1"],
    ["b/4.png", "P4", "F", "52.0", "", "1", "0"],
    ["b/5.png", "P5", "m", "7", "LL", "0", "0"],
]
LABELS = [(1, 0), (0, 1), (-1, -1), (0, 1), (1, 0), (0, 0)]


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for seed, row in enumerate(ROWS):
        draw(tmp_path / "films" / row[0], seed)
    return tmp_path / "films"


def write(path, header, rows, separator=",", encoding="utf-8"):
    quote = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in rows]
    text = "\r\n".join(separator.join(row) for row in [header, *quote]) + "\r\n"
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_excel(path, header, rows, notes=False):
    book = openpyxl.Workbook()
    book.active.append(header)
    for row in rows:
        typed = [int(c) if c.lstrip("-").isdigit() and i > 4 else c for i, c in enumerate(row)]
        book.active.append([None if c == "" else c for c in typed])
    if notes:
        book.create_sheet("Notes").append(["made by", "us"])
    book.save(path)
    return path


def write_parquet(path, header, rows):
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    for name in header[5:]:
        columns[name] = [float(cell) if cell else float("nan") for cell in columns[name]]
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def collected(folder, labels=None, **options):
    options |= {"labels": str(labels)} if labels else {}
    made = dataset.open_builder(source.Images, folder.parent / "out", images=str(folder), **options)
    found = made.collect(made.raw_folder())
    return made.classes, {item.row.image_id: item.row for item in found.items}, found


KINDS = {
    "comma": lambda path: write(path / "t.csv", HEADER, ROWS),
    "semicolon, Latin-1": lambda path: write(path / "t.csv", HEADER, ROWS, ";", "cp1252"),
    "tab, UTF-16": lambda path: write(path / "t.tsv", HEADER, ROWS, "\t", "utf-16"),
    "bar, byte order mark": lambda path: write(path / "t.txt", HEADER, ROWS, "|", "utf-8-sig"),
    "gzip": lambda path: write(path / "t.csv.gz", HEADER, ROWS),
    "Excel": lambda path: write_excel(path / "t.xlsx", HEADER, ROWS),
    "Excel, two sheets": lambda path: write_excel(path / "t.xlsx", HEADER, ROWS, notes=True),
    "Parquet": lambda path: write_parquet(path / "t.parquet", HEADER, ROWS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_says_the_same(folder, tmp_path, kind):
    classes, rows, found = collected(folder, KINDS[kind](tmp_path))
    assert classes == ("Effusion", "Gerät ü")
    assert [rows[row[0]].labels for row in ROWS] == LABELS
    assert [rows[row[0]].patient_id for row in ROWS] == [f"own/{row[1]}" for row in ROWS]
    assert [rows[row[0]].sex for row in ROWS] == ["M", "M", "F", "", "F", "M"]
    assert [rows[row[0]].age for row in ROWS] == [40, 41, 60, -1, 52, 7]
    assert [rows[row[0]].view for row in ROWS] == ["AP", "PA", "AP", "L", "", "L"]
    assert any("as sex: '?'" in note for note in found.notes)
    assert rows["a/1.png"].split == rows["a/2.png"].split
    assert {row.source for row in rows.values()} == {"own"}


@pytest.mark.parametrize(("names", "given"), [
    (["Image Index", "Patient ID", "Patient Gender", "Patient Age", "View Position"], ()),
    (["dicom_id", "subject_id", "GENDER", "AGE", "ViewPosition"], ()),
    (["Image.Path", "Patient-ID", "patient sex", "Age (years)", "projection"], ()),
    (["FILE", "MRN", "Sex", "age_at_study", "view"], ()),
    (["Bild", "PatNr", "G", "A", "V"], ("image=Bild", "patient=PatNr", "sex=G", "age=A", "view=V")),
])
def test_columns_are_known_by_their_names_or_mapped(folder, tmp_path, names, given):
    labels = write(tmp_path / "t.csv", [*names, *HEADER[5:]], ROWS)
    classes, rows, _ = collected(folder, labels, columns=given)
    assert classes == ("Effusion", "Gerät ü")
    assert [rows[row[0]].age for row in ROWS] == [40, 41, 60, -1, 52, 7]
    assert len({row.patient_id for row in rows.values()}) == 5


def test_a_yaml_file_maps_columns_classes_and_words(folder, tmp_path):
    rows = [[*row[:5], {"1": "ja", "0": "nein", "-1": "fraglich"}.get(row[5], ""), row[6]]
            for row in ROWS]
    labels = write(tmp_path / "t.csv", ["Bild", "PatNr", "s", "a", "v", "Erguss", "Rest"], rows)
    file = tmp_path / "columns.yaml"
    file.write_text(
        "image: Bild\npatient: PatNr\nclasses: {Effusion: Erguss}\nignore: [Rest]\n"
        "values: {ja: 1, nein: 0, fraglich: -1}\n"
    )
    classes, found, _ = collected(folder, labels, columns=(str(file),))
    assert classes == ("Effusion",)
    assert [found[row[0]].labels for row in ROWS] == [label[:1] for label in LABELS]
    with pytest.raises(UserError, match=r"no column holds labels .*Erguss: 'ja' in line 2"):
        collected(folder, labels, columns=("image=Bild", "patient=PatNr"), ignore=("Rest",))


def test_blank_and_uncertain_cells_mean_what_the_options_say(folder, tmp_path):
    labels = write(tmp_path / "t.csv", HEADER, ROWS)
    cell = {}
    for blank in ("unknown", "negative"):
        for uncertain in ("unknown", "negative", "positive"):
            _, rows, _ = collected(folder, labels, blank=blank, uncertain=uncertain)
            cell[blank, uncertain] = rows["b/1.png"].labels
    value = {"unknown": -1, "negative": 0, "positive": 1}
    assert cell == {key: (value[key[1]], value[key[0]]) for key in cell}


def test_only_columns_that_read_as_labels_are_classes(folder, tmp_path, capsys):
    extra = ["date", "note", "weight", "prob_Effusion", "Unnamed: 0"]
    more = [["2021-03-01", "x", "71.5", "0.3", "0"], ["", "", "60", "0.4", "1"],
            ["2021-03-02", "1", "80", "0.1", "2"], ["", "", "", "", "3"],
            ["", "", "", "", "4"], ["", "ok", "", "", "5"]]
    rows = [[*row, *cells] for row, cells in zip(ROWS, more, strict=True)]
    labels = write(tmp_path / "t.csv", [*HEADER, *extra], rows)
    classes, _, _ = collected(folder, labels)
    assert classes == ("Effusion", "Gerät ü")
    said = capsys.readouterr().out
    for name, why in (("date", "'2021-03-01' in line 2 is no label"),
                      ("weight", "'71.5' in line 2"), ("prob_Effusion", "scores"),
                      ("Unnamed: 0", "a number of the row")):
        assert any(name in line and f"ignored: {why}" in line for line in said.splitlines()), name
    assert collected(folder, labels, classes=("Gerät ü",))[0] == ("Gerät ü",)
    assert collected(folder, labels, classes=("Device=Gerät ü",))[0] == ("Device",)


def test_a_mistake_in_a_column_of_labels_is_no_reason_to_drop_it(folder, tmp_path):
    rows = [[*row[:5], "2" if i == 3 else row[5], row[6]] for i, row in enumerate(ROWS)]
    labels = write(tmp_path / "t.csv", HEADER, rows)
    with pytest.raises(UserError, match=r"t\.csv:5: '2' in column Effusion is no label"):
        collected(folder, labels)
    assert collected(folder, labels, ignore=("Effusion",))[0] == ("Gerät ü",)


@pytest.mark.parametrize(("cells", "separator"), [
    (["Effusion|Mass", "No Finding", "", "Mass", "Effusion", "no finding"], ""),
    (["Effusion;Mass", "Normal", "", "Mass", "Effusion", "Normal"], ""),
    (["Effusion, Mass", "none", "", "Mass", "Effusion", "none"], ","),
    (["['Effusion', 'Mass']", "[]", "", "['Mass']", "['Effusion']", "[]"], ""),
])
@pytest.mark.parametrize("name", ["Finding Labels", "labels", "Diagnosis"])
def test_a_column_of_names_of_classes(folder, tmp_path, name, cells, separator):
    rows = [[*row[:5], cell] for row, cell in zip(ROWS, cells, strict=True)]
    labels = write(tmp_path / "t.csv", [*HEADER[:5], name], rows, "\t")
    classes, found, _ = collected(folder, labels, separator=separator)
    assert classes == ("Effusion", "Mass")
    expected = [(1, 1), (0, 0), (-1, -1), (0, 1), (1, 0), (0, 0)]
    assert [found[row[0]].labels for row in ROWS] == expected
    _, found, _ = collected(folder, labels, separator=separator, blank="negative")
    assert found["b/1.png"].labels == (0, 0)
    asked, found, _ = collected(folder, labels, separator=separator, classes=("Lump=mass",))
    assert asked == ("Lump",)
    assert found["a/1.png"].labels == (1,)


def test_a_comma_between_names_is_asked_about(folder, tmp_path):
    rows = [[*row[:5], "Opacity, left"] for row in ROWS]
    labels = write(tmp_path / "t.csv", [*HEADER[:5], "finding"], rows, "\t")
    with pytest.raises(UserError, match=r"comma of 'Opacity, left'.*--separator , or .* none"):
        collected(folder, labels)
    assert collected(folder, labels, separator="none")[0] == ("Opacity, left",)
    assert collected(folder, labels, separator=",")[0] == ("left", "Opacity")


def test_names_of_classes_beside_columns_of_labels_are_asked_about(folder, tmp_path):
    rows = [[*row, "Mass"] for row in ROWS]
    labels = write(tmp_path / "t.csv", [*HEADER, "diagnosis"], rows)
    with pytest.raises(UserError, match="in column diagnosis, or in Effusion, Gerät ü"):
        collected(folder, labels)
    assert collected(folder, labels, columns=("labels=diagnosis",))[0] == ("Mass",)
    assert collected(folder, labels, ignore=("diagnosis",))[0] == ("Effusion", "Gerät ü")


def test_rows_of_one_image_are_put_together_or_refused(folder, tmp_path):
    rows = [["a/1.png", "P1", "Mass"], ["a/1.png", "P1", "Edema"], ["a/2.png", "P1", "Mass"]]
    labels = write(tmp_path / "t.csv", ["image", "patient", "class"], rows)
    classes, found, collection = collected(folder, labels)
    assert (classes, found["a/1.png"].labels) == (("Edema", "Mass"), (1, 1))
    assert any("have several rows" in note for note in collection.notes)
    same, other = [*ROWS, ROWS[0]], [*ROWS, [*ROWS[0][:5], "0", "0"]]
    assert len(collected(folder, write(tmp_path / "u.csv", HEADER, same))[1]) == 6
    with pytest.raises(UserError, match=r"u\.csv:8: a second row for a/1.png contradicts"):
        collected(folder, write(tmp_path / "u.csv", HEADER, other))


def test_ids_find_their_files_by_the_longest_common_end(folder, tmp_path):
    def ids(names):
        rows = [[name, *row[1:]] for name, row in zip(names, ROWS, strict=True)]
        labels = write(tmp_path / "t.csv", HEADER, rows)
        _, _, found = collected(folder, labels)
        return [item.path.removeprefix(f"{folder}/") for item in found.items], found

    files = [row[0] for row in ROWS]
    for names in (
        files, [f"/old/films/{name}" for name in files], [f"D:\\x\\{n}" for n in files],
        [f"./{name}" for name in files], [name.removesuffix(".png") for name in files],
        [name.upper() for name in files],
    ):
        assert ids(names)[0] == files
    with pytest.raises(UserError, match=r"a/1.png and b/1.png both match 1.png of"):
        ids(["1.png", *files[1:]])
    with pytest.raises(UserError, match=r"c/3.png of .* and b/3.png .* in different folders"):
        ids([*files[:3], "c/3.png", *files[4:]])
    found = ids([*files[:2], files[2], "3.png", "4", "5.jpg"])
    assert found[0] == files
    assert any("3 of 6 images were found by file name only" in note for note in found[1].notes)


def test_the_column_that_names_most_files_is_the_image(folder, tmp_path):
    rows = [[str(i), *row] for i, row in enumerate(ROWS)]
    labels = write(tmp_path / "t.csv", ["image_id", *HEADER], rows)
    assert set(collected(folder, labels, ignore=())[1]) == {row[0] for row in ROWS}


def test_splits_by_column(folder, tmp_path):
    words = ["Train", "training", "VAL", "dev", "test", ""]
    rows = [[*row, word] for row, word in zip(ROWS, words, strict=True)]
    labels = write(tmp_path / "t.csv", [*HEADER, "Split"], rows)
    _, found, collection = collected(folder, labels)
    splits = [found[row[0]].split for row in ROWS[:5]]
    assert splits == ["train", "train", "validation", "validation", "test"]
    assert any("1 images are in no split" in note for note in collection.notes)
    rows[1][-1] = "test"
    labels = write(tmp_path / "t.csv", [*HEADER, "Split"], rows)
    with pytest.raises(UserError, match=r"1 patients stand in several splits: P1 \(test, train\)"):
        collected(folder, labels)
    assert {row.split for row in collected(folder, labels, ignore=("split",))[1].values()} == {
        "train", "validation", "test"
    }
    rows[1][-1] = "fold 3"
    labels = write(tmp_path / "t.csv", [*HEADER, "Split"], rows)
    with pytest.raises(UserError, match=r"t\.csv:3: no splits in .* 'fold 3'; .* --ignore"):
        collected(folder, labels)


def test_validation_is_taken_from_training_only_where_none_is_given(folder, tmp_path):
    rows = [[*row, "test" if row[1] == "P5" else "train"] for row in ROWS]
    labels = write(tmp_path / "t.csv", [*HEADER, "split"], rows)
    _, found, collection = collected(folder, labels)
    assert found["b/5.png"].split == "test"
    assert sum(row.split == "validation" for row in found.values()) in (1, 2)
    assert any("12.5% of the training patients for validation" in n for n in collection.notes)
    _, found, _ = collected(folder, labels, val_fraction=0.0)
    assert {row.split for row in found.values()} == {"train", "test"}


def test_splits_by_lists(folder, tmp_path):
    labels = write(tmp_path / "t.csv", HEADER, ROWS)
    val, test = tmp_path / "val.txt", tmp_path / "test.txt"
    val.write_text("/x/b/3.png\n")
    test.write_text("b/4\nb/5.png\n")
    lists = {"val_list": str(val), "test_list": str(test)}
    _, found, _ = collected(folder, labels, **lists)
    splits = {row[0]: found[row[0]].split for row in ROWS}
    assert splits == {"a/1.png": "train", "a/2.png": "train", "b/1.png": "train",
                      "b/3.png": "validation", "b/4.png": "test", "b/5.png": "test"}
    val.write_text("b/4.png\n")
    with pytest.raises(UserError, match=r"test\.txt: b/4\.png is in the list of validation too"):
        collected(folder, labels, **lists)
    val.write_text("b/9.png\n")
    with pytest.raises(UserError, match=r"val\.txt: 1 of its 1 images have no row"):
        collected(folder, labels, **lists)


def test_patients_are_split_by_the_seed_and_never_apart(tmp_path):
    rows = [[f"{i}.png", f"P{i // 2}", "1"] for i in range(200)]
    for row in rows:
        (tmp_path / "films").mkdir(exist_ok=True)
        (tmp_path / "films" / row[0]).touch()
    labels = write(tmp_path / "t.csv", ["image", "patient", "Mass"], rows)
    runs = [collected(tmp_path / "films", labels, seed=seed)[1] for seed in (0, 0, 1)]
    splits = [{row.patient_id: row.split for row in rows.values()} for rows in runs]
    assert splits[0] == splits[1] != splits[2]
    for rows, by_patient in zip(runs, splits, strict=True):
        assert all(row.split == by_patient[row.patient_id] for row in rows.values())
        counts = [list(by_patient.values()).count(s) for s in ("train", "validation", "test")]
        assert counts == [68, 12, 20]


def test_without_patients_each_image_is_one_and_a_warning_says_so(folder, tmp_path):
    rows = [[row[0], *row[2:]] for row in ROWS]
    labels = write(tmp_path / "t.csv", [HEADER[0], *HEADER[2:]], rows)
    _, found, collection = collected(folder, labels)
    assert len({row.patient_id for row in found.values()}) == 6
    assert any("each image counts as a patient" in note for note in collection.notes)
    rows = [[row[0], f"S{row[1]}", *row[2:]] for row in ROWS]
    labels = write(tmp_path / "t.csv", [HEADER[0], "study_id", *HEADER[2:]], rows)
    _, found, collection = collected(folder, labels)
    assert len({row.patient_id for row in found.values()}) == 5
    assert any("each study counts as a patient" in note for note in collection.notes)


@pytest.mark.parametrize("above", ["", "films2/"])
@pytest.mark.parametrize("splits", [("",), ("train/", "valid/", "test/")])
def test_a_folder_for_each_class(tmp_path, above, splits):
    for split in splits:
        for i, name in enumerate(["NORMAL", "Pneumonia", "COVID-19"] * 2):
            draw(tmp_path / "x" / f"{above}{split}{name}/images/{i}.png", i)
        (tmp_path / "x" / f"{above}{split}NORMAL" / "._0.png").touch()
        draw(tmp_path / "x" / f"{above}{split}NORMAL/masks/0.png")
    classes, rows, collection = collected(tmp_path / "x")
    assert classes == ("COVID-19", "Pneumonia")
    for name, row in rows.items():
        assert row.labels == tuple(int(c in name) for c in classes)
        if len(splits) == 3:
            assert row.split.startswith(name.removeprefix(above)[:3])
    assert len(rows) == 6 * len(splits)
    assert any("folders of masks" in note for note in collection.notes)
    assert collected(tmp_path / "x", classes=("Normal=NORMAL",))[0] == ("Normal",)


def test_folders_that_are_no_classes_are_refused(tmp_path):
    for i in range(4):
        draw(tmp_path / "x" / f"patient{i}/1.png", i)
    with pytest.raises(UserError, match=r"4 folders for 4 images, which look like no classes"):
        collected(tmp_path / "x")
    draw(tmp_path / "y" / "1.png")
    with pytest.raises(UserError, match=r"1 images of .* lie in no folder of a class: 1.png"):
        collected(tmp_path / "y")
    (tmp_path / "z").mkdir()
    with pytest.raises(UserError, match="no image in"):
        collected(tmp_path / "z")
    with pytest.raises(UserError, match="no folder"):
        collected(tmp_path / "nowhere")


def write_dicom(path, patient, sex="F"):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientID, data.PatientSex, data.PatientAge, data.ViewPosition = patient, sex, "050Y", "PA"
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 8, 8, 7
    data.PixelRepresentation, data.SamplesPerPixel = 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = np.arange(64, dtype=np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)


def test_dicom_headers_tell_what_the_table_does_not(tmp_path):
    for i in range(4):
        write_dicom(tmp_path / "films" / f"x/1.2.{i}", f"A{i // 2}")  # without an ending
    rows = [[f"1.2.{i}.dcm", str(i % 2), str(20 + i)] for i in range(4)]
    labels = write(tmp_path / "t.csv", ["SOPInstanceUID", "Mass", "age"], rows)
    _, found, _ = collected(tmp_path / "films", labels)
    assert [row.patient_id for row in found.values()] == ["own/A0"] * 2 + ["own/A1"] * 2
    assert {(row.sex, row.view) for row in found.values()} == {("F", "PA")}
    assert [row.age for row in found.values()] == [20, 21, 22, 23]


@pytest.mark.parametrize(("change", "words"), [
    ({"columns": ("image=nowhere",)}, r"no column 'nowhere' \(image\)"),
    ({"columns": ("imag=filename",)}, r"no role 'imag'\. Did you mean 'image'\?"),
    ({"columns": ("filename",)}, r"neither ROLE=COLUMN nor a YAML file"),
    ({"columns": ("none.yaml",)}, r"none\.yaml cannot be read"),
    ({"classes": ("Efusion",)}, r"no column 'Efusion' .*Did you mean 'Effusion'\?"),
    ({"blank": "absent"}, r"blank is 'absent'; allowed: unknown, negative, positive"),
    ({"dataset": "a/b"}, r"dataset is 'a/b'"),
    ({"ignore": ("Effusion", "Gerät ü")}, r"no column holds labels"),
    ({"ignore": ("filename",)}, r"which column names the images\?"),
])
def test_mistakes_in_options_are_named(folder, tmp_path, change, words):
    labels = write(tmp_path / "t.csv", HEADER, ROWS)
    with pytest.raises(UserError, match=words):
        collected(folder, labels, **change)


def prepare(folder, labels, out, *more):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([
        "images", "--images", str(folder), "--labels", str(labels), "--out", str(out), "--size",
        "16", "--workers", "0", *more,
    ]))


def test_a_dry_run_prints_the_same_and_writes_nothing(folder, tmp_path, capsys):
    labels, out = write(tmp_path / "t.csv", HEADER, ROWS), tmp_path / "out"
    prepare(folder, labels, out, "--dry-run")
    dry = capsys.readouterr()
    assert not out.exists()
    prepare(folder, labels, out)
    wet = capsys.readouterr()
    table = dry.out.partition("Nothing was written")[0]
    assert "class" in table
    assert str(labels) in table.splitlines()
    assert wet.out.startswith(table)
    assert "split at random by patient, seed 0" in dry.err


def test_what_is_prepared_is_what_the_table_says(folder, tmp_path, capsys):
    draw(folder / "stray.png")
    out = tmp_path / "out"
    labels = write(tmp_path / "t.csv", HEADER, [*ROWS, ["b/9.png", *ROWS[0][1:]]])
    with pytest.raises(UserError, match=r"1 of 7 listed images are absent: b/9.png"):
        prepare(folder, labels, out)
    prepare(folder, labels, out, "--allow-missing", "--dataset", "mine")
    assert "1 images have no row in t.csv: stray.png" in capsys.readouterr().err
    directory = preparation.find("images", {"dataset": "mine", "size": 16}, out)
    rows = manifest.read(directory)
    assert rows.classes == ("Effusion", "Gerät ü")
    place = {name: i for i, name in enumerate(rows.image_id.tolist())}
    assert [tuple(rows.labels[place[row[0]]]) for row in ROWS] == LABELS
    prepare(folder, labels, out, "--allow-missing", "--dataset", "mine")
    with pytest.raises(UserError, match=r"prepared from other data or options \(blank\)"):
        prepare(folder, labels, out, "--allow-missing", "--dataset", "mine", "--blank", "negative")
    write(labels, HEADER, ROWS)
    with pytest.raises(UserError, match=r"other data or options \(labels\); .* --dataset NAME"):
        prepare(folder, labels, out, "--allow-missing", "--dataset", "mine")
    assert json.loads((directory / source.READING).read_text())["blank"] == "unknown"
    shutil.rmtree(directory)
    with pytest.raises(UserError, match=r"images --images DIR --labels FILE .*--dataset mine"):
        preparation.find("images", {"dataset": "mine", "size": 16}, out)
