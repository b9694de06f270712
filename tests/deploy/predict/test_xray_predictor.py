"""`jaxcxr predict` of radiographs: rows for all files, what is flagged, and every mistake."""

import csv
import json

import cv2
import numpy as np
import pydicom
import pytest

from jaxcxr import __main__ as command
from jaxcxr.deploy.bundle import Bundle
from jaxcxr.deploy.predict import structured_report, xray_files, xray_predictor
from jaxcxr.errors import UserError
from jaxcxr.xray.images import dicom, radiographs
from tests.xray.images import dicoms


@pytest.fixture(scope="module")
def bundle(bundle_file):
    return Bundle.load(bundle_file)


@pytest.fixture(scope="module")
def films(xray_run):
    """Radiographs of the training split, uint8 `[n, 32, 32]`."""
    (manifest,) = (xray_run.parent / "data").glob("chest_phantom/*/*/manifest.parquet")
    source = radiographs.Radiographs(manifest.parent, "train", 32)
    return source.read(np.arange(12))["image"][..., 0]


@pytest.fixture(scope="module")
def folder(films, tmp_path_factory):
    """Files of all kinds; f and i are broken, g is lateral, h is no radiograph."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "sub").mkdir()
    cv2.imwrite(str(folder / "a.png"), films[0])
    cv2.imwrite(str(folder / "b.jpg"), films[1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    for name, tags in (
        ("c.dcm", {}), ("d", {"PhotometricInterpretation": "MONOCHROME1"}),
        ("g.dcm", {"ViewPosition": "LL", "BodyPartExamined": "HAND"}),
    ):
        pixels = films[2].astype(np.uint16) * 16
        pixels = 4080 - pixels if tags.get("PhotometricInterpretation") else pixels
        made = dicoms.radiograph(pixels, WindowCenter=2040.5, WindowWidth=4081,
                                 StudyDate="20200101", StudyTime="", StudyID="",
                                 AccessionNumber="", PatientName="A^B", PatientBirthDate="",
                                 ReferringPhysicianName="", **tags)
        dicoms.saved(folder / "sub", made, name)
    (folder / "f.png").write_bytes(b"\x89PNG broken")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    cv2.imwrite(str(folder / "h.png"), noise)
    (folder / "sub" / "i.dcm").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def call(*words, code=0):
    if not code:
        command.run(["predict", *map(str, words)])
        return
    with pytest.raises(SystemExit) as stopped:
        command.run(["predict", *map(str, words)])
    assert stopped.value.code == code


@pytest.fixture(scope="module")
def written(bundle_file, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    call("--model", bundle_file, folder, "--out", out, "--format", "csv,jsonl,sr",
         "--heatmaps", "--batch", 3, code=1)
    return out


def rows_of(out):
    with (out / "predictions.csv").open(newline="") as file:
        return {row["image"].rpartition("/")[2]: row for row in csv.DictReader(file)}


def test_every_file_is_a_row_in_order(written, bundle, films):
    rows = rows_of(written)
    assert list(rows) == ["a.png", "b.jpg", "f.png", "h.png", "c.dcm", "d", "g.dcm", "i.dcm"]
    state = {name: row["status"] for name, row in rows.items()}
    assert [name for name, status in state.items() if status == "failed"] == ["f.png", "i.dcm"]
    assert rows["f.png"]["reason"] == "the file is truncated"
    assert state["h.png"] == "flagged"
    assert state["c.dcm"] == state["d"]
    expected = bundle.probabilities(bundle.logits(films[[0, 2]]))
    for name, values in zip(("a.png", "c.dcm"), expected, strict=True):
        got = [float(rows[name][f"prob_{c}"]) for c in bundle.classes]
        np.testing.assert_allclose(got, values, atol=2e-5)
        found = [rows[name][f"finding_{c}"] for c in bundle.classes]
        stated = [str(int(there)) for there in values >= bundle.thresholds]
        assert found == (stated if state[name] == "ok" else [""] * len(stated))
    assert "ok" in state.values()
    for name in ("h.png", "g.dcm"):
        assert rows[name]["prob_Edema"] != rows[name]["finding_Edema"] == ""
    for column in ("prob_Edema", "unusual"):
        assert rows["c.dcm"][column] == rows["d"][column] == rows["g.dcm"][column] != ""
        assert rows["f.png"][column] == ""


def test_json_lines_say_the_same(written, bundle):
    lines = [json.loads(line) for line in (written / "predictions.jsonl").read_text().splitlines()]
    for row, line in zip(rows_of(written).values(), lines, strict=True):
        assert (row["image"], row["status"], row["reason"]) == (
            line["image"], line["status"], line["reason"])
        if line["status"] == "failed":
            assert line["probabilities"] is None
            continue
        for name in bundle.classes:
            assert float(row[f"prob_{name}"]) == line["probabilities"][name]
            if line["status"] == "flagged":
                assert (row[f"finding_{name}"], line["findings"]) == ("", None)
            else:
                assert int(row[f"finding_{name}"]) == (name in line["findings"])
    dicom_line = next(line for line in lines if line["image"].endswith("g.dcm"))
    assert dicom_line["dicom"]["image_id"] == dicoms.IMAGE
    summary = json.loads((written / "predictions.json").read_text())
    assert summary["bundle"] == bundle.digest
    assert summary["images"]["failed"] == 2


def test_tags_flag_what_is_no_frontal_chest_radiograph(written):
    reason = rows_of(written)["g.dcm"]["reason"]
    assert reason.startswith("ViewPosition says lateral; BodyPartExamined is HAND")
    header = dicom.Header("", "", -1, "PA", "DX", "CHEST", "", "", "", photometric="MONOCHROME1")
    assert xray_predictor.tag_remarks(header) == []
    other = dicom.Header("", "", -1, "", "CT", "", "", "", "", photometric="RGB")
    assert xray_predictor.tag_remarks(other) == ["Modality is CT", "stored in colour, RGB"]
    assert xray_predictor.tag_remarks(None) == []


def groups_of(report):
    """The measurement groups of a structured report by their tracking identifier."""
    found = {}

    def walk(item, group):
        name = item.ConceptNameCodeSequence[0].CodeMeaning
        if name == "Tracking Identifier":
            group["class"] = item.TextValue
        if item.ValueType == "NUM":
            code = item.ConceptNameCodeSequence[0].CodeValue
            group[code] = float(item.MeasuredValueSequence[0].NumericValue)
        if name.startswith(("Finding at", "Why no")):
            group["stated"] = item.ConceptCodeSequence[0].CodeMeaning
        inner = {} if name == "Measurement Group" else group
        for child in item.get("ContentSequence", ()):
            walk(child, inner)
        if name == "Measurement Group":
            found[inner["class"]] = inner

    for item in report.ContentSequence:
        walk(item, {})
    return found


def test_structured_reports_hold_each_probability_or_why_not(written, bundle):
    names = sorted(path.name for path in (written / "sr").iterdir())
    assert names == ["c.dcm", "d.dcm", "g.dcm"]
    report = pydicom.dcmread(written / "sr" / "c.dcm")
    assert (report.PatientID, report.StudyInstanceUID) == ("p1", dicoms.STUDY)
    assert report.Modality == "SR"
    assert dicoms.IMAGE in str(report.CurrentRequestedProcedureEvidenceSequence)
    rows = rows_of(written)
    for name in ("c.dcm", "d", "g.dcm"):
        row = rows[name]
        stem = name.removesuffix(".dcm")
        groups = groups_of(pydicom.dcmread(written / "sr" / f"{stem}.dcm"))
        if row["status"] == "flagged":
            assert {name: set(group) for name, group in groups.items()} == {
                "Suitability": {"class", "stated"}}
            assert row["reason"].startswith(groups["Suitability"]["stated"])
            continue
        assert set(groups) == set(bundle.classes)
        for finding, group in groups.items():
            assert group["probability"] == pytest.approx(float(row[f"prob_{finding}"]), abs=2e-6)
            assert group["stated"] == ("Absent", "Present")[int(row[f"finding_{finding}"])]
    assert rows["g.dcm"]["status"] == "flagged"


VALUES = {"Edema": (0.9, 0.5), "Something_else": (0.1, 0.5)}
MODEL = {"name": "resnet50", "digest": "a" * 64}


def reported(tmp_path, path, flagged=""):
    structured_report.write(tmp_path / "report.dcm", path, VALUES, MODEL, flagged)
    return pydicom.dcmread(tmp_path / "report.dcm")


def made(tmp_path, absent=(), **tags):
    with pydicom.config.disable_value_validation():
        dataset = dicoms.radiograph(np.zeros((20, 20), np.uint16), **tags)
        for keyword in absent:
            del dataset[keyword]
        return dicoms.saved(tmp_path, dataset)


@pytest.mark.parametrize("tags", [
    {}, {"PatientName": "", "PatientBirthDate": "", "StudyDate": "", "AccessionNumber": ""},
    {"PatientSex": "female", "PatientBirthDate": "1950", "StudyDate": "2010.03.11",
     "StudyTime": "99:12", "PatientAge": "57 years"},
    {"PatientID": "p" * 99, "StudyID": "s" * 40, "PatientName": "A^B^C^D^E^F=x=y=z=w"},
    {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"},
    {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    {"StudyInstanceUID": "ANON-12", "SeriesInstanceUID": "x_y", "PatientID": ""},
])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_reports_need_nothing_of_the_patient(tmp_path, tags):
    path = made(tmp_path, ("PatientAge", "PatientSex") if not tags else (), **tags)
    report = reported(tmp_path, path)
    image = pydicom.dcmread(path)
    for keyword in ("PatientID", "StudyInstanceUID"):
        assert report.get(keyword) == image.get(keyword)
    assert str(report.PatientName) == str(tags.get("PatientName", ""))
    for keyword in ("PatientSex", "PatientBirthDate", "StudyDate", "StudyTime"):
        assert keyword in report  # type 2: there, if empty
        assert report[keyword].value in (None, "", image.get(keyword))
    assert groups_of(report)["Edema"]["stated"] == "Present"


def test_an_unknown_character_set_or_a_broken_number_is_no_obstacle(tmp_path):
    path = made(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientWeight="71.5")
    content = path.read_bytes().replace(b"ISO_IR 100", b"KLINGON 42").replace(b"71.5", b"kilo")
    path.write_bytes(content)
    assert groups_of(reported(tmp_path, path))["Edema"]["probability"] == 0.9


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_what_a_report_must_refer_to_is_named(tmp_path, keyword):
    path = made(tmp_path, (keyword,))
    with pytest.raises(UserError, match=rf"x\.dcm: no report .* without {keyword} \(0020"):
        reported(tmp_path, path)


def test_cases_of_deidentified_files(tmp_path, shared_cases):
    for name in ("named", "plain12"):
        path = shared_cases / f"cxr/sr_deidentified/{name}.dcm"
        image = pydicom.dcmread(path)
        for flagged in ("", "unlike the training images in content"):
            report = reported(tmp_path, path, flagged)
            assert report.StudyInstanceUID == image.StudyInstanceUID
            assert str(report.PatientName) == str(image.get("PatientName", ""))
            stated = {group.get("stated") for group in groups_of(report).values()}
            assert stated == ({flagged} if flagged else {"Present", "Absent"})


def test_a_report_that_fails_makes_exit_code_1(bundle_file, folder, tmp_path, capsys):
    dataset = pydicom.dcmread(folder / "sub/c.dcm")
    del dataset.StudyInstanceUID
    dataset.save_as(tmp_path / "c.dcm")
    call("--model", bundle_file, tmp_path / "c.dcm", folder / "sub/d", "--out", tmp_path / "out",
         "--format", "csv,sr", code=1)
    said = capsys.readouterr()
    assert "without StudyInstanceUID (0020,000D)" in said.out
    assert "1 structured reports could not be written" in said.err
    assert [path.name for path in (tmp_path / "out/sr").iterdir()] == ["d.dcm"]
    assert len(rows_of(tmp_path / "out")) == 2


def test_heat_maps_are_of_the_findings(written, bundle):
    expected = {
        f"{name.partition('.')[0]}_{c}.png" for name, row in rows_of(written).items()
        for c in bundle.classes if row[f"finding_{c}"] == "1"
    }
    assert {path.name for path in (written / "heatmaps").iterdir()} == expected
    pixels = np.full((32, 32), 200, np.uint8)
    heat = np.zeros((32, 32), np.float32)
    heat[20:, 20:] = 5.0
    drawn = xray_files.overlay(pixels, heat).astype(int)
    assert drawn.shape == (384, 384, 3)
    assert (drawn[:200, :200] == 200).all()
    assert np.abs(drawn[300:, 300:] - 200).max() > 20


def test_refusing_leaves_no_finding(bundle_file, folder, tmp_path, capsys):
    call("--model", bundle_file, folder / "h.png", str(folder / "**" / "[ab].*"), "--out",
         tmp_path, "--refuse", "--format", "csv")
    rows = rows_of(tmp_path)
    assert list(rows) == ["h.png", "a.png", "b.jpg"]
    assert (rows["h.png"]["status"], rows["h.png"]["prob_Edema"]) == ("refused", "")
    assert not (tmp_path / "predictions.jsonl").exists()
    assert "1 refused" in capsys.readouterr().out


def test_one_compilation_serves_all_batches(bundle_file, folder):
    bundle, traced = Bundle.load(bundle_file), []
    apply = bundle.apply
    object.__setattr__(bundle, "apply", lambda *given: traced.append(1) or apply(*given))
    paths = xray_predictor.find([str(folder)])
    parts = list(xray_predictor.predicted(bundle, paths * 3, batch=4, threads=2))
    assert [row.image for part in parts for row, _ in part] == paths * 3
    assert len(traced) == 1


def test_files_of_a_folder_that_are_no_images_are_named(tmp_path, capfd):
    for name in ("a.png", "b.gif", "c.csv"):
        (tmp_path / name).write_bytes(b"GIF89a")
    assert xray_predictor.find([str(tmp_path)]) == [str(tmp_path / "a.png")]
    assert "2 files are no images: b.gif, c.csv" in capfd.readouterr().err
    xray_predictor.find([str(tmp_path / "a.png")])
    assert "no images" not in capfd.readouterr().err


def test_mistakes(bundle_file, folder, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    film = folder / "a.png"
    for words, message in (
        ((film, "--fps", 30), "--fps is not for models of radiographs"),
        ((film, "--format", "bvh"), "formats of radiographs: csv, jsonl, sr"),
        ((film, "--heatmaps", "rollout"), "does not explain this model; its methods: grad_cam"),
        ((film, "--batch", 0), "--batch must be at least 1"),
        ((tmp_path / "none",), "holds no image"),
        ((tmp_path / "absent.png",), "does not exist"),
        ((tmp_path / "*.png",), "does not exist"),
    ):
        call("--model", bundle_file, *words, "--out", tmp_path / "out", code=2)
        assert message in capsys.readouterr().err
    call("--model", folder / "a.png", film, "--out", tmp_path / "out", code=2)
    assert "is no bundle" in capsys.readouterr().err
    call(film, "--out", tmp_path / "out", code=2)
    assert "--model --workdir is required" in capsys.readouterr().err
