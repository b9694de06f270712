"""Data sets without a leak to plant one in, and the command run on them."""

import csv
import json

import numpy as np
import pyarrow.parquet

from jaxcxr import __main__ as command
from jaxcxr.xray.images import manifest

CLASSES = ("Mass", "Edema")


class Audited:
    """What a run printed, its exit code and its JSON."""

    def __init__(self, capsys, folder, *words):
        path = folder / "audit.json"
        path.unlink(missing_ok=True)
        try:
            command.run(["audit", *map(str, words), "--json", str(path)])
            self.code = 0
        except SystemExit as stopped:
            self.code = stopped.code
        printed = capsys.readouterr()
        self.out, self.err = printed.out, printed.err
        self.result = json.loads(path.read_text()) if path.exists() else {}
        if self.result:  # also a result file, with a row for each finding
            assert len(self.result["rows"]) == len(self.result["findings"])
            assert {"command", "date", "versions", "machine", "columns"} <= self.result.keys()

    def found(self, kind):
        return [f for f in self.result["findings"] if f["kind"] == kind]

    def kinds(self):
        return {f["kind"] for f in self.result["findings"]}

    def table(self, data_set, split):
        table, = (t for t in self.result["tables"]
                  if (t["data_set"], t["split"]) == (data_set, split))
        return {entry["name"]: entry for entry in table["classes"]}, table


def sample(seed=0, n=120, prefix=""):
    """Rows of 40 patients without any leak: patient p is in train, validation or test by p."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        patient = i % 40
        rows.append({
            "image_id": f"{prefix}{i:03d}.png", "patient_id": f"{prefix}p{patient}",
            "split": ("train", "train", "validation", "test")[patient % 4],
            "source": "clinic", "view": ("PA", "AP")[rng.integers(2)], "sex": "MF"[patient % 2],
            "age": 20 + patient, "labels": rng.integers(0, 2, 2),
            "sha256": f"{prefix}{i:064x}", "phash": int(rng.integers(0, 2**64, dtype=np.uint64)),
        })
    return rows


def as_parquet(path, rows, classes=CLASSES):
    table = manifest.to_table(manifest.from_rows(rows, classes))
    pyarrow.parquet.write_table(table, path)
    return path


def as_csv(path, rows, prefix=""):
    with path.open("w", newline="") as file:
        names = ("image_id", "patient_id", "split", "source", "view", "sex", "age", "sha256",
                 "phash")
        writer = csv.writer(file)
        writer.writerow([*names, *(prefix + name for name in CLASSES)])
        for row in rows:
            labels = ["" if label < 0 else label for label in row["labels"]]
            writer.writerow([*(row[name] for name in names), *labels])
    return path
