"""Result files: what commands measure and print is what `docs/tables.py` shows."""

import importlib.util
import json
import pathlib
import re
import sys

import pytest

from jaxcxr import config as config_lib
from jaxcxr.commands import bench
from jaxcxr.errors import UserError
from jaxcxr.report import result_file
from jaxcxr.report.result_file import Table
from tests.bench import program
from tests.bench.printed import arguments

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
SMALL = ("--sizes", "32", "64", "--members", "mha", "--dim", "8", "--heads", "2",
         "--pass", "forward", "--seconds", "0")


def load(name):
    """A program of docs as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Gives the block that `docs/tables.py` writes for a result file in tmp_path."""
    tables = load("tables")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    return lambda name: tables.results_block(name, None)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_benchmark_writes_the_table_that_it_prints(tmp_path, shown, capsys, monkeypatch):
    words = ["complexity", *SMALL, "--json", str(tmp_path / "results" / "a.json")]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/jaxcxr", "bench", *words])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    bench.run(arguments(*words))
    title, *printed = capsys.readouterr().out.splitlines()
    block = shown("a").strip().splitlines()
    header, ruler, *rows = (line for line in block if line.startswith("|"))
    assert [cells(row) for row in (header, rows[0])] == [line.split() for line in printed[:2]]
    assert cells(rows[1])[1:] == printed[2].split()
    assert len(rows) == 2
    assert "---:" in ruler
    assert block[-1].startswith(f"*`jaxcxr bench complexity {' '.join(SMALL)} --json ")
    assert block[-1].endswith(f" {title}.*")


def test_a_result_file_says_where_it_comes_from(tmp_path):
    origin = config_lib.origin() | {"command": "jaxcxr plan"}
    table = Table(("a", "b"), [("x | y", "1"), ("é", "2")], values={"n": "2"})
    path = tmp_path / "a.json"
    result_file.write(path, table, origin, "2026-01-02", leaks=[3])
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["rows"] == [list(row) for row in table.rows]
    assert (found["columns"], found["values"]) == (["a", "b"], {"n": "2"})
    assert (found["command"], found["date"]) == ("jaxcxr plan", "2026-01-02")
    assert "note" not in found
    assert found["leaks"] == [3]
    assert f"jax {origin['packages']['jax']}, " in found["versions"]
    assert found["versions"].endswith(f"Python {origin['python']}")
    assert re.match(r"(\d+ x [^,]+, )?\d+ CPU cores, \S", found["machine"])
    with pytest.raises(UserError, match="cannot be written"):
        result_file.write(tmp_path / "none" / "a.json", table, origin)


@pytest.mark.parametrize(("module", "expected"), [
    (None, "jaxcxr bench 'a b'"),
    ("jaxcxr.__main__", "jaxcxr bench 'a b'"),
    ("tests.bench.encoding", "python -m tests.bench.encoding bench 'a b'"),
])
def test_the_command_is_the_one_typed(module, expected, monkeypatch):
    spec = module and importlib.util.spec_from_loader(module, None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", ["/somewhere/jaxcxr", "bench", "a b"])
    assert config_lib.origin()["command"] == expected


def test_a_program_beside_the_package_writes_its_table(tmp_path, shown):
    table = Table(("side", "ms"), [("ours", "1.5")], "3 rounds.")
    path = tmp_path / "results" / "a.json"
    program.main(lambda parser: None, lambda args: table, "Text.", [f"--json={path}"])
    assert "| side | ms |\n| --- | ---: |\n| ours | 1.5 |\n" in shown("a")
    assert shown("a").strip().endswith("3 rounds.*")


def run_of(folder, task, **reports):
    """The folder of a finished run with these files in its report."""
    (folder / "report").mkdir(parents=True)
    record = {"config": {"task": task}, **config_lib.provenance()}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("")
    for name, content in reports.items():
        (folder / "report" / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_the_scores_of_a_run(tmp_path, shown):
    scores = {
        "auroc": 0.9, "auroc_interval_bootstrap": [0.8, 0.95], "average_precision": 0.5,
        "average_precision_interval": [0.4, 0.6], "f1": 0.7, "f1_interval": [0.6, 0.8],
        "sensitivity": 0.75, "specificity": 0.65, "brier": 0.1,
    }
    mass = {**scores, "n_positive": 3, "n_negative": 1234, "ece": 0.02, "shipped_threshold": 0.25}
    run = run_of(tmp_path / "run", "cxr", metrics={
        "per_class": {"Mass": mass}, "macro": {**scores, "classes": ["Mass"]},
        "counts": {"images": 1237, "patients": 400},
    })
    out = tmp_path / "results" / "a.json"
    load("record_run").main(["evaluate", str(run), str(out), "--command=c", "--time=2 min"])
    assert ("| Mass | 3 | 1234 | 0.900 [0.800, 0.950] | 0.500 [0.400, 0.600] | 0.700 [0.600, 0.800]"
            " | 0.750 | 0.650 | 0.100 | 0.020 | 0.250 |") in shown("a")
    assert "| macro mean (1 of 1) |  |  | 0.900 [0.800, 0.950] |" in shown("a")
    values = [shown(f"a.{key}") for key in ("auroc", "auroc_interval", "images", "time")]
    assert values == ["0.900", "0.800 to 0.950", "1,237", "2 min"]


def test_scores_that_are_undefined(tmp_path, shown):
    scores = dict.fromkeys((
        "auroc", "auroc_interval_bootstrap", "average_precision", "average_precision_interval",
        "f1", "f1_interval", "sensitivity", "brier",
    )) | {"specificity": 0.65}
    hernia = {**scores, "auroc": 0.7, "n_positive": 1, "n_negative": 9, "ece": None,
              "shipped_threshold": 0.5}
    run = run_of(tmp_path / "run", "cxr", metrics={
        "per_class": {"Hernia": hernia}, "macro": {**scores, "classes": []},
        "counts": {"images": 10, "patients": 2},
    })
    load("record_run").main(
        ["evaluate", str(run), str(tmp_path / "results" / "a.json"), "--command=c"]
    )
    row = "| Hernia | 1 | 9 | 0.700 | n/a | n/a | n/a | 0.650 | n/a | n/a | 0.500 |"
    assert row in shown("a")
    assert [shown(f"a.{key}") for key in ("auroc", "auroc_interval")] == ["n/a", "n/a"]


def start(first, last, seconds, *, finished=False):
    return {"from_step": first, "to_step": last, "seconds": seconds, "finished": finished,
            "command": "jaxcxr train --config=a", "machine": "8 x TPU v5e"}


@pytest.mark.parametrize(("starts", "time"), [
    ([start(0, 90, 136.4, finished=True)], "2 min 16 s"),
    ([start(0, 30, 3600), start(30, 90, 5, finished=True), start(90, 90, 50, finished=True)],
     "1 h 5 s"),
    ([start(0, 30, 100), start(40, 90, 200, finished=True)], None),  # one was killed in between
    ([start(20, 90, 200, finished=True)], None),
    ([start(0, 30, 100)], None),
])
def test_a_training_says_its_command_machine_and_time(starts, time, tmp_path):
    run = run_of(tmp_path / "run", "cxr", metrics={"per_class": {}, "macro": {
        "auroc": 0.9, "auroc_interval_bootstrap": [0.8, 0.95], "average_precision": 0.5,
        "average_precision_interval": [0.4, 0.6], "f1": 0.7, "f1_interval": [0.6, 0.8],
        "sensitivity": 0.75, "specificity": 0.65, "brier": 0.1, "classes": [],
    }, "counts": {"images": 1, "patients": 1}})
    (run / "run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in starts))
    load("record_run").main(["evaluate", str(run), str(tmp_path / "a.json")])
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["command"], found["machine"]) == ("jaxcxr train --config=a", "8 x TPU v5e")
    assert found["values"].get("time") == time


@pytest.mark.parametrize(("task", "metric", "row"), [
    ("cxr", "auroc", "| Noise | 5 | 0.700 [0.600, 0.800] | -0.100 [-0.200, -0.050] |"),
    ("pose", "mpjpe", "| Noise | SD | 5 | 0.7 [0.6, 0.8] | -0.1 [-0.2, -0.1] |"),
])
def test_the_stress_test_of_a_run(task, metric, row, tmp_path, shown):
    levels = [
        {"level": level, metric: value, f"{metric}_interval": [0.6, 0.8], "change": value - 0.8,
         "change_interval": [-0.2, -0.05001]}
        for level, value in ((0, 0.8), (5, 0.7))
    ]
    kind = {"title": "Noise", "unit": "SD", "levels": levels}
    run = run_of(tmp_path / "run", task, stress={"kinds": {"noise": kind}})
    load("record_run").main(["stress", str(run), str(tmp_path / "results" / "a.json")])
    assert row in shown("a")
    assert f"*`jaxcxr stress --workdir={run}`. " in shown("a")


def test_what_was_not_done_is_a_users_mistake(tmp_path):
    run = run_of(tmp_path / "run", "cxr")
    with pytest.raises(UserError, match="run jaxcxr explain"):
        load("record_run").main(["explain", str(run), str(tmp_path / "a.json")])
