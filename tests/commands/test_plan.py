"""The command `plan`: what it prints, and the mistakes that it names."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from jaxcxr.commands import plan
from jaxcxr.errors import UserError

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "pose_temporal.py"


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "jaxcxr", "plan", *args], capture_output=True, text=True,
        check=False,
    )


def test_a_plan_of_a_config_without_data(tmp_path):
    done = command(f"--config={CONFIG}:quick", "--config.data.dir=/nowhere",
                   "--mesh=data:4,fsdp:2", "--device=h200", f"--json={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "8 x h200: data 4 x fsdp 2 x tensor 1" in text
    assert re.search(r"all-gather over fsdp: parameters, forward and backward +\d", text)
    assert re.search(r"reduce-scatter over fsdp: gradients +\d", text)
    rows = re.findall(r"^ +([\d,]+) +[\d.,]+ +[\d.,]+ +([\d.]+)% to ([\d.]+)%  \w+$", text, re.M)
    assert [row[0] for row in rows] == ["2", "4", "8", "16", "32", "64", "128", "256", "512",
                                        "1,024"]
    assert all(float(low) <= float(high) <= 100 for _, low, high in rows)
    found = json.loads((tmp_path / "a.json").read_text())
    assert [" ".join(row) for row in found["rows"]] == [
        " ".join(line.split()) for line in text.splitlines()[-len(rows):]
    ]
    assert found["command"].startswith("jaxcxr plan --config=")
    assert found["values"]["memory"].endswith(" of 141 GB")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mesh=data:4,rows:2"], "cannot be read at 'rows:2'"),
        (["--device=h300"], "no device is called 'h300'; use one of a100"),
        (["--mesh=data:64"], "must be a multiple of 64, e.g. --config.batch_size=64"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(args, message):
    done = command(f"--config={CONFIG}:quick", *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("text", "shape"), [
    ("data:4,fsdp:2", (4, 2, 1)), ("tensor:8", (1, 1, 8)), ("fsdp:2, tensor:2", (1, 2, 2)),
])
def test_meshes_are_read(text, shape):
    assert plan.parse_mesh(text) == shape


@pytest.mark.parametrize("text", ["", "data", "data:0", "data:2,data:2", "fsdp:-1"])
def test_what_is_no_mesh_is_refused(text):
    with pytest.raises(UserError, match="such as data:4,fsdp:2"):
        plan.parse_mesh(text)
