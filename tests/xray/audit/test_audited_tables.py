"""Tables of several files against pyarrow's joins: what two splits share, however it is spelled."""

import gzip
import io
import itertools

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from jaxcxr.data import image_paths

SPLITS = ("train", "valid", "test")


def table(seed, n=60, patients=25):
    """Rows of random patients with random splits, so that many leak."""
    rng = np.random.default_rng(seed)
    return pa.table({
        "image_id": [f"im{i:03d}.png" for i in rng.integers(0, 200, n)],
        "patient_id": [f"P{i:02d}" for i in rng.integers(0, patients, n)],
        "split": rng.choice(SPLITS, n),
        "Effusion": rng.integers(0, 2, n),
    })


def part_of(rows, split):
    return rows.filter(pc.equal(rows["split"], split))


def shared(rows, column):
    """Pair of splits -> the values of a column that both have, by an inner join."""
    result = {}
    for pair in itertools.combinations(SPLITS, 2):
        one, other = (part_of(rows, split).select([column]) for split in pair)
        values = one.join(other, column, join_type="inner")[column].to_pylist()
        if values:
            result[pair] = set(values)
    return result


def found(audited, kind):
    names = {"validation": "valid"}
    return {
        tuple(names.get(s["split"], s["split"]) for s in f["between"]): f
        for f in audited.found(kind)
    }


def as_csv(rows, path, separator=","):
    options = pyarrow.csv.WriteOptions(delimiter=separator, quoting_style="needed")
    pyarrow.csv.write_csv(rows, path, options)


def as_gzip(rows, path):
    content = io.BytesIO()
    as_csv(rows, content)
    path.write_bytes(gzip.compress(content.getvalue()))


def as_xlsx(rows, path):
    book = openpyxl.Workbook()
    for row in (rows.column_names, *zip(*rows.to_pydict().values(), strict=True)):
        book.active.append(row)
    book.save(path)


def beside(path, ending):
    return path.with_name(path.name + ending)


def renamed(rows, path, rename):
    as_csv(rows.rename_columns(list(map(rename, rows.column_names))), beside(path, ".csv"))


OTHER = {"image_id": "Image Index", "patient_id": "Subject"}
WRITERS = {
    "csv": lambda rows, path: as_csv(rows, beside(path, ".csv")),
    "semicolons": lambda rows, path: as_csv(rows, beside(path, ".csv"), ";"),
    "tsv": lambda rows, path: as_csv(rows, beside(path, ".tsv"), "\t"),
    "gz": lambda rows, path: as_gzip(rows, beside(path, ".csv.gz")),
    "upper case": lambda rows, path: renamed(rows, path, str.upper),
    "other names": lambda rows, path: renamed(rows, path, lambda name: OTHER.get(name, name)),
    "parquet": lambda rows, path: pyarrow.parquet.write_table(rows, beside(path, ".parquet")),
    "xlsx": lambda rows, path: as_xlsx(rows, beside(path, ".xlsx")),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", ["{}", "CXR_{}", "{}-2", "labels.{}.v1"])
def test_one_file_per_split_is_one_file_with_splits(form, name, tmp_path, run):
    rows = table(len(name))
    as_csv(rows, tmp_path / "one.csv")
    folder = tmp_path / "parts"
    folder.mkdir()
    for split in SPLITS:
        WRITERS[form](part_of(rows, split).drop_columns("split"), folder / name.format(split))
    audits = run(tmp_path / "one.csv"), run(*sorted(folder.iterdir()))
    patients, images = (shared(rows, column) for column in ("patient_id", "image_id"))
    for audited in audits:
        assert audited.code == 1
        # Files may stand in another order than splits in one.
        got = {frozenset(pair): f for pair, f in found(audited, "patient_in_two_splits").items()}
        assert {pair: set(f["items"]) for pair, f in got.items()} == {
            frozenset(pair): ids for pair, ids in patients.items()}
        got = found(audited, "identical_across_splits")
        assert {frozenset(pair): {item.split(" = ")[0] for item in f["items"]}
                for pair, f in got.items()} == {
            frozenset(pair): ids for pair, ids in images.items()}
        for pair, f in got.items():
            ids = pa.array(next(ids for splits, ids in images.items() if set(splits) == set(pair)))
            for side, split in zip(f["between"], pair, strict=True):
                names = part_of(rows, split)["image_id"]
                assert side["images"] == pc.sum(pc.is_in(names, ids)).as_py()
                assert side["of"] == len(names)
    assert audits[0].result["leaks"] == audits[1].result["leaks"]


def write(folder, **texts):
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.csv")
        paths[-1].write_text("\n".join(text.split()) + "\n")
    return paths


def test_a_column_of_splits_comes_before_the_name(tmp_path, run):
    audited = run(*write(tmp_path, train="image,patient,split a,1,test b,2,test",
                         test="image,patient,split c,1,train d,3,test"))
    patient, = audited.found("patient_in_two_splits")
    assert [(side["split"], side["images"]) for side in patient["between"]] == [
        ("test", 1), ("train", 1)]


def test_a_word_of_a_split_in_another_word_is_no_split():
    for name in ("latest", "retrain", "contest_2", "train_test_split", "evaluation", "tr_split"):
        assert image_paths.split_in(name) == ""
    for name, split in {
        "CXR_test": "test", "val-2": "validation", "TrainSet": "train", "TEST": "test",
        "train_val_list": "train", "my.valid.v3": "validation", "stage_2_train_images": "train",
    }.items():
        assert image_paths.split_in(name) == split


@pytest.mark.parametrize(("train", "test", "leaks"), [
    ("007 008", "7 9", 1),  # a spreadsheet took the zeros
    ("1.0 2.0", "0001 0003", 1),  # decimals, of a column with gaps
    ("007 7", "7 9", 1),  # one file has both spellings, so they are two people
    ("007 7", "07 9", 0),
    ("p1 p2", "P1 P3", 1),
    ("A007 8", "7 9", 0),
])
def test_ids_are_compared_as_spreadsheets_leave_them(train, test, leaks, tmp_path, run):
    paths = write(tmp_path, train=" ".join(
        ["image,patient", *(f"a{i},{p}" for i, p in enumerate(train.split()))]
    ), test=" ".join(["image,patient", *(f"b{i},{p}" for i, p in enumerate(test.split()))]))
    audited = run(*paths)
    assert len(audited.found("patient_in_two_splits")) == audited.result["leaks"] == leaks


@pytest.mark.parametrize(("train", "test", "leaks"), [
    ("a.png", "images/a.png", 1),
    ("images/a.png", "/data/set/images/a.png", 1),
    ("a.png", "a.jpg", 1),
    ("A.PNG", "a.png", 1),
    ("a\\b.png", "a/b.png", 1),
    ("train/0000.png", "test/0000.png", 0),
    ("p1/0000.png", "p2/0000.png", 0),
    ("p1/s1/a.png", "p2/s1/a.png", 0),
    ("x/p1/s1/a.png", "p1/s1/a.png", 1),
])
def test_images_are_the_same_by_the_ends_of_their_paths(train, test, leaks, tmp_path, run):
    paths = write(tmp_path, train=f"image,patient {train},1 p7/other/z.png,2",
                  test=f"image,patient {test},3 p8/else/y.png,4")
    audited = run(*paths)
    assert len(audited.found("identical_across_splits")) == audited.result["leaks"] == leaks


def test_names_in_other_folders_are_told(tmp_path, run):
    audited = run(*write(tmp_path, train="image,patient train/0.png,1 train/1.png,2",
                         test="image,patient test/0.png,3 test/9.png,4"))
    alike, = audited.found("same_file_names")
    assert (alike["severity"], alike["items"]) == ("warning", ["train/0.png ? test/0.png"])


def test_patients_in_paths(tmp_path, run):
    audited = run(*write(
        tmp_path, train="Path,Mass d/train/patient1/s1/a.png,1 d/train/patient2/s1/a.png,0",
        valid="Path,Mass d/valid/patient1/s2/a.png,1 d/valid/patient3/s1/a.png,0",
    ))
    patient, = audited.found("patient_in_two_splits")
    assert patient["items"] == ["patient1"]
    assert image_paths.patients_in(["p10/p10000032/s5/a.jpg", "p10/p10000033/s6/a.jpg"]) == [
        "p10000032", "p10000033"]
    assert image_paths.patients_in(["sub-01/a.png", "b.png"]) is None


def test_what_could_not_be_compared_is_said_instead_of_no_leaks(tmp_path, run):
    def says(**texts):
        audited = run(*write(tmp_path, **texts))
        assert audited.code == 0
        verdict = " ".join(audited.out.split())
        assert "0 leaks" not in verdict
        return verdict

    assert "Nothing could be compared between splits" in (
        said := says(a="image,patient a,1 b,2"))
    assert "splits of a, whose images have none: a column split" in said
    assert "as all are train: give the other splits too" in says(train="image,patient a,1 b,2")
    said = says(train="image a b", test="image c d")
    assert "No leak in what could be compared" in said
    assert "patients of train+test train, train+test test, which are unknown" in said
    assert "a column patient_id would make it possible" in said
    said = says(train="image,patient a,1", test="image c d")
    assert "patients of train+test test, which are unknown" in said
    assert run(*write(tmp_path, train="image,patient a,1", test="image,patient c,2")
               ).out.count("0 leaks, 0 warnings.") == 1


def test_sexes_and_ages(tmp_path, run):
    rows = {
        "image": list("abcdefghij"), "patient": [1, 1, 2, 3, 4, 5, 5, 6, 7, 8],
        "sex": ["M", "female", "M", "F", "F", "M", "Male", "", "m", "F"],
        "age": ["50", "51", "-3", "414", "018M", "5", "80", "411Y", "121", "0"],
        "split": ["train"] * 5 + ["test"] * 5,
    }
    as_csv(pa.table(rows), tmp_path / "a.csv")
    audited = run(tmp_path / "a.csv")
    assert audited.code == 0
    sexes, = audited.found("two_sexes")
    assert sexes["items"] == ["1 (F 1, M 1)"]
    ages, = audited.found("impossible_age")
    assert ages["count"] == 4
    assert ages["items"] == ["2: '-3'", "3: '414'", "6: '411Y'", "7: '121'"]
    apart, = audited.found("ages_apart")
    assert apart["items"] == ["5 (5 to 80 years)"]
    assert "1 ages are in months, weeks or days" in audited.out


def test_sources_that_are_known_keep_patients_apart(tmp_path, run):
    known = "image,patient,hospital a,1,A b,2,A", "image,patient,hospital c,1,B d,3,B"
    assert run(*write(tmp_path, train=known[0], test=known[1])).code == 0
    assert run(*write(tmp_path, train=known[0], test="image,patient c,1 d,3")).code == 1


def test_a_table_that_is_gzipped_without_saying_so(tmp_path, run):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_bytes(gzip.compress(b"image,patient\na,1\nb,2\n"))
    assert run(tmp_path / "train.csv", tmp_path / "test.csv").result["leaks"] == 2
