"""`jaxcxr audit` on the published label files, and on as many rows as the largest of them has."""

import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxcxr.xray.audit import duplicates
from tests.xray.audit import audits

VIEWED = ("Edema", "Consolidation", "Pneumonia", "Infiltration")


@pytest.fixture
def real(shared_data):
    paths = [shared_data / "chestxray14" / "Data_Entry_2017_v2020.csv",
             shared_data / "covidx" / "rsna_to_chestxray14.csv"]
    if not all(path.exists() for path in paths):
        pytest.skip(f"no ChestX-ray14 and COVIDx label files in {shared_data}; see `shared_data`")
    return shared_data


@pytest.mark.parametrize(("version", "copies"), [("8B", 3185), ("9B", 3234)])
def test_covidx_holds_the_official_test_images_of_chestxray14(real, run, record, version, copies):
    lists = [real / "covidx/labels" / f"{split}_COVIDx{version}.txt" for split in ("train", "test")]
    name = f"COVIDx{version}"
    audited = run(*lists, real / "chestxray14", "--map", real / "covidx/rsna_to_chestxray14.csv")
    assert audited.code == 1
    images = {tuple((side["data_set"], side["split"]) for side in f["between"]): f
              for f in audited.found("identical_across_splits")}
    found = images[(name, "train"), ("chestxray14", "test")]
    assert [side["images"] for side in found["between"]] == [copies, copies]
    assert len(found["items"]) == copies
    patients = {tuple((side["data_set"], side["split"]) for side in f["between"]): f
                for f in audited.found("patient_in_two_splits")}
    test = patients[(name, "train"), (name, "test")]["between"][1]
    assert (test["images"], test["of"]) == (129, 400)
    entry = audited.table(name, "test")[0]["COVID-19"]
    assert (entry["positive"], entry["negative"]) == (200, 200)
    assert entry["source"] == {"auroc": 1.0, "cramers_v": pytest.approx(1.0)}
    assert f"identical across splits: {copies:,}" in audited.out
    images_of = audited.table(name, "train")[1]["images"]
    record(
        "audit_published",
        (f"`jaxcxr audit train_{name}.txt test_{name}.txt CHESTXRAY14 "
         "--map rsna_to_chestxray14.csv`",
         f"{len(found['items']):,} of {images_of:,} COVIDx training images are official "
         f"ChestX-ray14 test images; the patients of {test['images']} of {test['of']} COVIDx test "
         "images are in its training list; source alone tells the COVIDx test labels with AUROC "
         f"{entry['source']['auroc']:.3f}; exit code {audited.code}"),
        columns=("command", "result"), note="No image is needed.",
    )


def test_the_official_splits_of_chestxray14(real, run, record):
    audited = run(real / "chestxray14")
    assert audited.code == 0
    classes, table = audited.table("chestxray14", "test")
    assert (table["images"], table["patients"]) == (25_596, 2_797)
    assert round(classes["Edema"]["view"]["auroc"], 3) == 0.681
    assert (classes["Hernia"]["positive"], classes["Hernia"]["negative"]) == (86, 25_510)
    assert audited.table("chestxray14", "train")[1]["images"] == 86_524
    told = ", ".join(f"{name} {classes[name]['view']['auroc']:.3f}" for name in VIEWED)
    record("audit_published", (
        "`jaxcxr audit CHESTXRAY14`", f"exit code {audited.code}; in "
        f"the official test split, AP or PA alone tells with AUROC: {told}",
    ))


def test_the_csv_of_chestxray14_alone(real, run, record):
    audited = run(real / "chestxray14" / "Data_Entry_2017_v2020.csv")
    assert audited.code == 0
    classes, table = audited.table("chestxray14", "all")
    assert (table["images"], table["patients"]) == (112_120, 30_805)
    found = {name: round(classes[name]["view"]["auroc"], 3) for name in VIEWED}
    assert found == {
        "Edema": 0.745, "Consolidation": 0.643, "Pneumonia": 0.581, "Infiltration": 0.579
    }
    record("audit_published", (
        "`jaxcxr audit Data_Entry_2017_v2020.csv`", f"exit code {audited.code}; in all "
        f"{table['images']:,} images, AP or PA alone tells with AUROC: "
        + ", ".join(f"{name} {auroc:.3f}" for name, auroc in found.items()),
    ))


@pytest.mark.slow
def test_112120_rows_with_hashes_in_a_minute_and_2_gb(tmp_path):
    n = 112_120
    rng = np.random.default_rng(0)
    phash = rng.integers(0, 2**64, n, dtype=np.uint64)
    labels = (rng.random((n, 15)) < 0.1).astype(np.int8)
    rows = [{
        "image_id": f"{i:08d}.png", "patient_id": f"{i // 4:08d}", "source": "a",
        "split": ("train", "train", "validation", "test")[i // 4 % 4], "view": ("PA", "AP")[i % 2],
        "sex": "MF"[i // 4 % 2], "age": i % 90, "labels": labels[i], "sha256": f"{i:064x}",
        "phash": phash[i],
    } for i in range(n)]
    path = audits.as_parquet(tmp_path / "a.parquet", rows, tuple(f"class {i}" for i in range(15)))
    start = time.monotonic()
    command = [sys.executable, "-m", "jaxcxr", "audit", str(path), "--json", str(tmp_path / "a")]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n{seconds:.1f} s, {peak:.2f} GiB")
    result = json.loads((tmp_path / "a").read_text())
    assert result["leaks"] == 0
    assert result["settings"]["bits"] == duplicates.BITS
    assert seconds < 60
    assert peak < 2
