"""`jaxcxr audit`: every kind of leak planted, a clean set, every mistake."""

import html.parser

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from sklearn import metrics as sk

from jaxcxr.data import preparation
from jaxcxr.xray.images import manifest
from tests.xray.audit import audits

FORMS = {
    "parquet": lambda folder, rows: audits.as_parquet(folder / "set.parquet", rows),
    "csv": lambda folder, rows: audits.as_csv(folder / "set.csv", rows),
    "csv label_": lambda folder, rows: audits.as_csv(folder / "set.csv", rows, "label_"),
}


@pytest.fixture(params=FORMS)
def written(request, tmp_path):
    return lambda rows: FORMS[request.param](tmp_path, rows)


def test_a_clean_set_passes(written, run):
    audited = run(written(audits.sample()))
    assert audited.code == 0
    assert audited.result["leaks"] == 0
    assert audited.kinds() == set()
    assert "0 leaks, 0 warnings." in audited.out


def test_a_patient_in_two_splits(written, run):
    rows = audits.sample()
    rows[0]["split"], rows[40]["split"] = "test", "validation"  # patient 0 in all three now
    audited = run(written(rows))
    assert audited.code == 1
    found = audited.found("patient_in_two_splits")
    splits = [tuple(side["split"] for side in f["between"]) for f in found]
    assert splits == [("train", "validation"), ("train", "test"), ("validation", "test")]
    assert all(f["count"] == 1 and f["items"][0].endswith("p0") for f in found)
    assert audited.kinds() == {"patient_in_two_splits"}
    assert "patient in two splits: 1" in audited.out


def test_identical_images_across_and_within_splits(written, run):
    rows = audits.sample()
    rows[3]["sha256"] = rows[0]["sha256"]  # test and train
    rows[5]["sha256"] = rows[4]["sha256"]  # train both
    rows[3]["labels"], rows[0]["labels"] = (1, 0), (1, 0)
    rows[4]["labels"], rows[5]["labels"] = (0, 1), (1, -1)
    audited = run(written(rows))
    assert audited.code == 1
    across, = audited.found("identical_across_splits")
    assert across["items"] == ["000.png = 003.png"]
    assert across["severity"] == "leak"
    within, = audited.found("identical_within_split")
    assert (within["count"], within["items"]) == (2, ["004.png, 005.png"])
    conflict, = audited.found("label_conflict")
    assert (conflict["count"], conflict["items"]) == (1, ["004.png = 005.png"])
    assert conflict["text"].endswith("have different labels: Mass 1")
    assert {conflict["severity"], within["severity"]} == {"warning"}


def test_hashes_alone_make_candidates_and_no_leak(written, run):
    rows = audits.sample()
    rows[3]["phash"] = rows[0]["phash"] ^ 0b1111
    rows[7]["phash"] = rows[0]["phash"] ^ 0b11111
    path = written(rows)
    audited = run(path)
    assert audited.code == 0
    found, = audited.found("near_duplicate_candidates")
    assert (found["severity"], found["items"]) == ("warning", ["000.png ~ 003.png"])
    assert "pixels not compared" in found["text"]
    wider = run(path, "--bits", 5)
    assert wider.found("near_duplicate_candidates")[0]["count"] == 2
    assert run(path, "--bits", 3).kinds() == set()


def test_across_data_sets(tmp_path, run):
    first, second = audits.sample(), audits.sample(1, prefix="x")
    second[0]["patient_id"] = "p3"  # train here, test there
    second[3]["sha256"] = first[0]["sha256"]  # test here, train there
    second[4]["sha256"] = first[4]["sha256"]  # train in both
    second[4]["labels"], first[4]["labels"] = (1, 1), (0, 1)
    paths = [audits.as_parquet(tmp_path / f"{name}.parquet", rows)
             for name, rows in (("a", first), ("b", second))]
    assert [run(path).code for path in paths] == [0, 0]
    audited = run(*paths)
    assert audited.code == 1
    patient, = audited.found("patient_in_two_splits")
    assert patient["items"] == ["p3"]
    name = tmp_path.name
    assert [(side["data_set"], side["split"]) for side in patient["between"]] == [
        (name, "test"), (f"{name} (2)", "train"),
    ]
    assert audited.found("identical_across_splits")[0]["items"] == ["000.png = x003.png"]
    assert audited.found("identical_within_split")[0]["items"] == ["004.png = x004.png"]
    assert audited.found("label_conflict")[0]["items"] == ["004.png = x004.png"]
    assert audited.table("all data sets", "all")[1]["images"] == 240


def test_rows_without_split_or_patient(tmp_path, run):
    rows = audits.sample()
    for row in rows:
        row["split"] = ""
        row["patient_id"] = "" if row["image_id"] < "010.png" else row["patient_id"]
    audited = run(audits.as_csv(tmp_path / "a.csv", rows))
    assert audited.code == 0
    assert audited.found("no_patients")[0]["count"] == 10
    assert audited.kinds() == {"no_patients"}
    assert "the images are not split, so none can leak between splits: no split in a.csv" in (
        audited.result["data_sets"][0]["notes"]
    )
    other = audits.as_csv(tmp_path / "b.csv", audits.sample())
    audited = run(tmp_path / "a.csv", other)
    assert audited.code == 0  # nobody knows which of them is trained on
    assert {"patient_in_unsplit", "identical_in_unsplit"} <= audited.kinds()


def test_patients_of_two_sources_are_not_the_same(tmp_path, run):
    rows = audits.sample()
    rows[3]["patient_id"], rows[3]["source"] = "p0", "elsewhere"
    assert "patient_in_two_splits" not in run(audits.as_csv(tmp_path / "a.csv", rows)).kinds()
    rows[3]["source"] = "clinic"
    assert "patient_in_two_splits" in run(audits.as_csv(tmp_path / "a.csv", rows)).kinds()


def test_a_source_that_gives_the_label_away(tmp_path, run):
    rows = audits.sample()
    for i, row in enumerate(rows):
        row["source"] = ("north", "south")[int(row["labels"][0])]
        row["view"] = "AP" if row["labels"][1] and i % 5 else "PA"
    path = audits.as_parquet(tmp_path / "set.parquet", rows)
    audited = run(path)
    assert audited.code == 0
    found = {f["text"]: f for f in audited.found("shortcut")}
    assert found.keys() == {"source alone predicts 1 label", "view alone predicts 1 label"}
    classes, table = audited.table(tmp_path.name, "all")
    assert classes["Mass"]["source"] == {"auroc": 1.0, "cramers_v": pytest.approx(1.0)}
    edema = np.array([row["labels"][1] for row in rows])
    view = np.array([row["view"] == "AP" for row in rows])
    assert classes["Edema"]["view"]["auroc"] == pytest.approx(sk.roc_auc_score(edema, view))
    age = sk.roc_auc_score(edema, [row["age"] for row in rows])
    assert classes["Edema"]["age"]["auroc"] == pytest.approx(max(age, 1 - age))
    assert table["patients"] == 40
    found = run(path, "--shortcut", 1).found("shortcut")
    assert found[0]["text"] == "source alone predicts 1 label"


def test_counts_per_split(written, run):
    rows = audits.sample()
    rows[0]["labels"] = (-1, 1)
    audited = run(written(rows))
    train = [row["labels"][0] for row in rows if row["split"] == "train"]
    classes, table = audited.table(audited.result["data_sets"][0]["name"], "train")
    entry = classes["Mass"]
    assert (entry["positive"], entry["negative"], entry["unknown"]) == tuple(
        train.count(value) for value in (1, 0, -1)
    )
    assert (table["images"], table["patients"]) == (60, 20)


HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
          "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")


def smooth(seed, size=64):
    noise = np.random.default_rng(seed).normal(128, 60, (9, 9)).astype(np.float32)
    return np.clip(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255
                   ).astype(np.uint8)


@pytest.fixture
def raw(tmp_path):
    """ChestX-ray14 of eight patients, one image each; 6 and 7 are tested, 7 is a copy of 0."""
    folder = tmp_path / "raw"
    (folder / "images").mkdir(parents=True)
    names = [f"{i:08d}_000.png" for i in range(1, 9)]
    rows = [f"{name},{'Mass' if i == 7 else 'No Finding'},0,{i + 1},50,M,PA,64,64,1,1"
            for i, name in enumerate(names)]
    (folder / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(names[:6]) + "\n")
    (folder / "test_list.txt").write_text("\n".join(names[6:]) + "\n")
    for i, name in enumerate(names):
        pixels = smooth(0 if i == 7 else i)
        if i == 7:
            content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
            pixels = cv2.imdecode(content, 0) // 2 + 40
        cv2.imwrite(str(folder / "images" / name), pixels)
    return folder


def test_a_near_copy_across_splits_is_confirmed_by_its_pixels(raw, tmp_path, run):
    builder = preparation.prepare(
        "chestxray14", tmp_path / "out", raw=str(raw), size=32, workers=0, val_fraction=0.0
    )
    audited = run(builder.data_dir)
    assert audited.code == 1
    found, = audited.found("near_duplicate_across_splits")
    assert (found["severity"], found["count"]) == ("leak", 1)
    assert found["items"][0].startswith("00000001_000.png ~ 00000008_000.png (r 0.99")
    conflict, = audited.found("label_conflict")
    assert conflict["items"] == ["00000001_000.png = 00000008_000.png"]
    assert audited.result["data_sets"][0]["name"] == "chestxray14"
    # The pixels decide: equal hashes of other pictures are no finding.
    path = next((tmp_path / "out").glob("*/*/*/manifest.parquet"))
    rows = manifest.read(path)
    rows.phash[rows.image_id == "00000002_000.png"] = rows.phash[rows.split == "test"][0]
    pyarrow.parquet.write_table(manifest.to_table(rows), path)
    assert run(builder.data_dir).found("near_duplicate_across_splits")[0]["count"] == 1
    # Without the records nothing is confirmed.
    alone = tmp_path / "alone.parquet"
    alone.write_bytes(path.read_bytes())
    audited = run(alone)
    assert audited.code == 0
    assert audited.found("near_duplicate_candidates")[0]["count"] == 2
    # Rows that are not those of the records.
    rows.phash[:] = 0
    pyarrow.parquet.write_table(manifest.to_table(rows.take(np.arange(1, 8))), path)
    assert "5 rows; prepare the data set again" in run(builder.data_dir).err


def test_a_raw_chestxray14_with_wrong_lists(raw, run):
    assert run(raw, "--labels-only").code == 0
    assert run(raw).found("near_duplicate_across_splits")[0]["count"] == 1
    with (raw / "test_list.txt").open("a") as file:
        file.write("00000001_000.png\nabsent.png\n")
    audited = run(raw, "--labels-only")
    assert audited.code == 1
    assert audited.found("identical_across_splits")[0]["items"] == [
        "00000001_000.png = 00000001_000.png"
    ]
    assert audited.found("patient_in_two_splits")[0]["items"] == ["00000001"]
    assert "1 images of test_list.txt have no row in the csv: absent.png" in audited.out
    (raw / "train_val_list.txt").unlink()
    (raw / "test_list.txt").unlink()
    audited = run(raw)
    assert audited.code == 0
    assert "the images are not split" in audited.out


RSNA = ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", "000924cf-0f8d-42bd-9158-1af53881a557",
        "000db696-cf54-4385-b10b-6b16fbb3f985")


@pytest.fixture
def covidx(tmp_path):
    """Lists in which two RSNA images show one patient of ChestX-ray14, by the map."""
    first, second, third = RSNA
    (tmp_path / "train_COVIDx8B.txt").write_text(
        f"{first} {first}.png negative rsna\n{third} {third}.png negative rsna\n"
        "5 a.png positive cohen\n"
    )
    (tmp_path / "test_COVIDx8B.txt").write_text(
        f"{second} {second}.png negative rsna\n6 b.png positive ricord\n"
    )
    (tmp_path / "map.csv").write_text(
        "rsna_patientId,chestxray14_image,mse\n"
        f"{first},00000007_000.png,1.5\n{second},00000007_001.png,9.9\n"
        f"{third},00000007_002.png,10.0\n"
    )
    return tmp_path


def test_the_map_tells_the_patients_of_the_rsna(covidx, raw, run):
    lists = [covidx / f"{split}_COVIDx8B.txt" for split in ("test", "train")]
    audited = run(*lists)
    assert (audited.code, audited.result["data_sets"][0]["name"]) == (0, "COVIDx8B")
    audited = run(*lists, raw, "--map", covidx / "map.csv")
    assert audited.code == 1
    places = [[(side["data_set"], side["split"], side["images"]) for side in f["between"]]
              for f in audited.found("patient_in_two_splits")]
    assert places == [
        [("COVIDx8B", "train", 1), ("COVIDx8B", "test", 1)],
        [("COVIDx8B", "train", 1), ("chestxray14", "test", 1)],
    ]
    image, = audited.found("identical_across_splits")
    assert image["items"] == [f"{RSNA[0]}.png = 00000007_000.png"]
    assert "2 of 3 RSNA images are images of ChestX-ray14" in audited.out


class Checker(html.parser.HTMLParser):
    VOID = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_escaped(tmp_path, run):
    rows = audits.sample()
    evil = "<script>x</script>&[/x].png"
    rows[0]["image_id"], rows[3]["sha256"] = evil, rows[0]["sha256"]
    audited = run(audits.as_parquet(tmp_path / "a.parquet", rows), "--html", tmp_path / "a.html")
    assert audited.code == 1
    checker = Checker()
    checker.feed((tmp_path / "a.html").read_text())
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags
    assert f"{evil} = 003.png" in checker.texts
    assert evil in audited.out  # as it is, not as rich's markup


MISTAKES = {
    "absent": (None, (), "no such file or folder; expected a prepared data set"),
    "too long a name": (None, (), "no such file or folder; expected a prepared data set"),
    "strange ending": (("a.docx", b"1"), (), "the name tells no known form"),
    "no manifest": (("a.parquet", b"PAR1"), (), "is not a manifest of jaxcxr"),
    "no image column": (("a.csv", b"x,y\n1,2\n"), (), "no column of image ids among x, y"),
    "image missing": (("a.csv", b"image_id,Mass\na,1\n,1\n"), (), "a.csv:3: no image id in column"),
    "split": (("a.csv", b"image_id,split\na,train\nb,tset\n"), (),
              "a.csv:3: 'tset' in column split is not a split"),
    "label": (("a.csv", b"image_id,label_M\na,1\nb,oui\n"), (), "a.csv:3: 'oui' in column label_M"),
    "a finding": (("a.csv", b"image_id,Mass\na,1\nb,2\n"), (), "a.csv:3: '2' in column Mass"),
    "class twice": (("a.csv", b"image_id,label_M,label M\na,1,1\n"), (), "are both of the class M"),
    "hash": (("a.csv", b"image_id,phash\na,-1\n"), (), "a.csv:2: '-1' in column phash"),
    "finding": (("a.csv", b"image_id,Finding Labels\na,Mess\n"), (),
                "a.csv:2: 'Mess' in column Finding Labels"),
    "one list": (("train_X1.txt", b"1 a.png positive cohen\n"), (), "give test_X1.txt too"),
    "bits": (("a.csv", b"image_id\na\n"), ("--bits", "17"), "--bits is 17; allowed: 0 to 16"),
    "shortcut": (("a.csv", b"image_id\na\n"), ("--shortcut", "0.2"), "allowed: 0.5 to 1"),
    "html": (("a.csv", b"image_id\na\n"), ("--html", "/nowhere/a.html"), "cannot be written"),
    "map absent": (("a.csv", b"image_id\na\n"), ("--map", "nowhere.csv"), "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_and_exit_code_2(mistake, tmp_path, run):
    file, options, message = MISTAKES[mistake]
    path = tmp_path / ("absent" if mistake == "absent" else "a" * 300)
    if file is not None:
        path = tmp_path / file[0]
        path.write_bytes(file[1])
    audited = run(path, *options)
    assert audited.code == 2
    assert message in audited.err
    assert audited.err.startswith("jaxcxr: ")
    assert audited.err.count("\n") == 1


def test_mistakes_of_folders_and_maps(tmp_path, covidx, run):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image in" in run(empty).err
    (empty / "a.csv").write_text("image_id\na\n")
    assert "name the tables to audit: a.csv" in run(empty).err
    assert "a folder of lists; name those" in run(covidx).err
    (covidx / "map.csv").write_text("a,b\n1,2\n")
    lists = [covidx / f"{split}_COVIDx8B.txt" for split in ("train", "test")]
    assert "no column 'rsna_patientId', 'chestxray14_image', 'mse'" in (
        run(*lists, "--map", covidx / "map.csv").err
    )
    wrong = "rsna_patientId,chestxray14_image,mse\na,00000001_000.png,low\n"
    (covidx / "map.csv").write_text(wrong)
    assert "map.csv:2: mse is 'low'" in run(*lists, "--map", covidx / "map.csv").err
    assert "given twice" in run(*lists, lists[0]).err


def test_columns_that_are_no_labels_are_named(tmp_path, run):
    path = tmp_path / "a.csv"
    path.write_text("image_id,Mass,Report\na,1,fine\nb,0,\n")
    audited = run(path)
    assert audited.code == 0
    assert "1 columns of a.csv hold no labels and are ignored: Report" in audited.out
    assert list(audited.table("a", "all")[0]) == ["Mass"]


def test_a_csv_without_labels_is_told_so(tmp_path, run):
    path = tmp_path / "a.csv"
    path.write_text("image_id,patient_id,Report\na,1,fine\nb,2,\n")
    audited = run(path)
    assert audited.code == 0
    assert "no column of a.csv holds labels" in " ".join(audited.out.split())
