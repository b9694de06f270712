"""`jaxcxr prepare`: options, messages, interruption, and what it must not import or reach."""

import argparse
import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr import registry
from jaxcxr.commands import prepare
from jaxcxr.data import preparation
from jaxcxr.errors import RunError, UserError
from jaxcxr.xray.images import manifest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SKIP = {"image": tfds.decode.SkipDecoding()}


def _run(*words):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args([str(word) for word in words]))


def _images(directory):
    builder = tfds.builder_from_directory(directory)
    return {
        split: [(r["image_id"], r["image"]) for r in builder.as_data_source(split, decoders=SKIP)]
        for split in builder.info.splits
    }


def _start(arguments, before=""):
    """A process of its own that prepares; `before` is code that it runs first."""
    code = f"""
import sys
{before}
from jaxcxr.commands import prepare
if __name__ == "__main__":
    import argparse
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args({[str(word) for word in arguments]!r}))
    print("modules:", *(name for name in sys.modules if "." not in name))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)


def test_command_prepares_and_prints_splits_by_labels(raw_data, tmp_path, capsys):
    arguments = ["chestxray14", "--raw", raw_data.folder, "--out", tmp_path, "--size", 32]
    _run(*arguments, "--workers", 0, "--val-fraction", 0)
    out, err = capsys.readouterr()
    directory = tmp_path / "chestxray14/32_hist_png_val0/2.0.0"
    assert f"Prepared: {directory}" in out
    rows = {line.split()[1]: line.split()[3::2] for line in out.splitlines() if "│" in line}
    assert rows["images"] == ["3", "1"]
    assert rows["patients"] == ["2", "1"]
    assert rows["Cardiomegaly"] == ["2", "0"]
    assert rows["Hernia"] == ["0", "1"]
    assert rows["COVID-19"] == ["0", "0"]
    assert "4/4" in err
    left = sorted(path.name for path in directory.parent.iterdir())
    assert left == ["2.0.0", "lock"]


def test_prepared_again_says_so_and_changes_nothing(raw_data, tmp_path, capsys):
    arguments = ["chestxray14", "--raw", raw_data.folder, "--out", tmp_path, "--size", 32]
    _run(*arguments, "--workers", 0)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"}
    capsys.readouterr()
    _run(*arguments, "--workers", 0)
    assert "Already prepared" in capsys.readouterr().out
    assert files == {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"
    }


def test_manifest_row_i_is_record_i(raw_data, tmp_path):
    options = {"raw": str(raw_data.folder), "size": 32, "workers": 0, "val_fraction": 0.0}
    builder = preparation.prepare("chestxray14", tmp_path, **options)
    rows = manifest.read(pathlib.Path(builder.data_dir), "train")
    records = list(builder.as_data_source("train", decoders=SKIP))
    assert len(rows) == len(records) == 3
    for i, record in enumerate(records):
        assert rows.image_id[i] == record["image_id"].decode()
        np.testing.assert_array_equal(rows.labels[i], record["labels"])


def test_manifest_lost_to_a_kill_is_written_by_the_next_run(raw_data, tmp_path):
    options = {"raw": str(raw_data.folder), "size": 32, "workers": 0}
    directory = pathlib.Path(preparation.prepare("chestxray14", tmp_path, **options).data_dir)
    whole = (directory / manifest.NAME).read_bytes()
    (directory / manifest.NAME).unlink()
    with pytest.raises(UserError, match="is not prepared"):
        preparation.find("chestxray14", {"size": 32}, tmp_path)
    preparation.prepare("chestxray14", tmp_path, **options)
    assert (directory / manifest.NAME).read_bytes() == whole


def test_unfinished_shards_of_a_killed_run_are_cleared(raw_data, tmp_path):
    left_over = tmp_path / "chestxray14/32_hist_png/incomplete.ABCDEF_2.0.0"
    left_over.mkdir(parents=True)
    (left_over / "half").write_bytes(b"x" * 100)
    options = {"raw": str(raw_data.folder), "size": 32, "workers": 0}
    preparation.prepare("chestxray14", tmp_path, **options)
    assert not left_over.exists()


def test_order_does_not_depend_on_the_number_of_processes(raw_data, tmp_path):
    found = []
    for workers in (0, 2):
        options = {"raw": str(raw_data.folder), "size": 32, "workers": workers}
        builder = preparation.prepare("chestxray14", tmp_path / str(workers), **options)
        found.append(_images(builder.data_dir))
    assert found[0] == found[1]


def test_killed_preparation_goes_on_and_gives_the_same_data(raw_data, tmp_path):
    names = [f"{patient:08d}_000.png" for patient in range(10, 458)]
    first = raw_data.image("images/template.png", size=256)
    for name in names:
        os.link(first, raw_data.folder / "images" / name)
    header = (raw_data.folder / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0]
    raw_data.table(header, *(f"{n},No Finding,0,{int(n[:8])},50,M,PA,9,9,1,1" for n in names))
    raw_data.lists(names[:-64], names[-64:])
    arguments = ["chestxray14", "--raw", raw_data.folder, "--size", 256, "--val-fraction", 0]

    out = tmp_path / "killed"
    process = _start([*arguments, "--out", out, "--workers", 1])
    variant = out / "chestxray14/256_hist_png_val0"
    while not list(variant.glob("staging-*/*.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    task = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(pid) for pid in task.read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (variant / "2.0.0").exists()
    assert workers
    deadline = time.monotonic() + 20
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "worker processes outlive the killed preparation"
        time.sleep(0.02)

    process = _start([*arguments, "--out", out, "--workers", 1])
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on after" in err
    whole = preparation.prepare(
        "chestxray14", tmp_path / "whole", raw=str(raw_data.folder), size=256, val_fraction=0.0,
        workers=0,
    )
    resumed = _images(variant / "2.0.0")
    assert resumed == _images(whole.data_dir)
    assert {split: len(rows) for split, rows in resumed.items()} == {"train": 384, "test": 64}


def test_no_tensorflow_no_torch_no_network(raw_data, tmp_path):
    before = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("the network was asked for")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
"""
    arguments = ["chestxray14", "--raw", raw_data.folder, "--out", tmp_path, "--size", 32]
    process = _start([*arguments, "--workers", 0], before)
    out, err = process.communicate()
    assert process.returncode == 0, err
    modules = out.partition("modules: ")[2].split()
    assert "numpy" in modules
    assert not {"tensorflow", "torch"} & set(modules)


def test_two_preparations_at_once_do_the_work_once(raw_data, tmp_path):
    arguments = ["chestxray14", "--raw", raw_data.folder, "--out", tmp_path, "--size", 32]
    processes = [_start([*arguments, "--workers", 0]) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("4/4" in err for _, err in outputs) == 1


def test_find_gives_the_folder_or_the_command(raw_data, tmp_path):
    with pytest.raises(UserError, match="is not prepared") as caught:
        preparation.find("chestxray14", {"size": 32, "allow_missing": True}, tmp_path)
    command = f"jaxcxr prepare chestxray14 --raw DIR --size 32 --allow-missing --out {tmp_path}"
    assert command in str(caught.value)
    options = {"raw": str(raw_data.folder), "size": 32, "workers": 0}
    builder = preparation.prepare("chestxray14", tmp_path, **options)
    assert str(preparation.find("chestxray14", {"size": 32}, tmp_path)) == str(builder.data_dir)
    with pytest.raises(UserError, match="Other variants prepared there: 32_hist_png"):
        preparation.find("chestxray14", {"size": 64}, tmp_path)


def test_the_command_that_find_names_works(raw_data, tmp_path):
    options = {"size": 48, "equalize": "clahe", "encoding": "zstd", "allow_missing": True}
    with pytest.raises(UserError) as caught:
        preparation.find("chestxray14", options, tmp_path)
    command = str(caught.value).partition("Run:")[2].split()
    words = [str(raw_data.folder) if word == "DIR" else word for word in command[2:]]
    _run(*words, "--workers", 0)
    assert preparation.find("chestxray14", options, tmp_path).is_dir()


def test_generated_source_of_a_config_is_made_when_it_is_absent(tmp_path):
    options = {"subjects": 4, "sequences": 1, "seconds": 0.2}
    config = ml_collections.ConfigDict({
        "data": {
            "source": "motion_phantom", "options": options, "dir": str(tmp_path), "workers": 0,
        }
    })
    directory = preparation.find_or_generate(config)
    assert (directory / "dataset_info.json").exists()
    assert preparation.find_or_generate(config) == directory
    config.data.source, config.data.options = "chestxray14", {}
    with pytest.raises(UserError, match="jaxcxr prepare chestxray14"):
        preparation.find_or_generate(config)


def test_pose_source_prints_sequences_frames_and_subjects(tmp_path, capsys):
    _run("motion_phantom", "--subjects", 4, "--sequences", 1, "--seconds", 0.2, "--out", tmp_path)
    rows = {
        line.split()[1]: line.split()[3::2] for line in capsys.readouterr().out.splitlines()
        if "│" in line
    }
    assert rows["subjects"] == ["1", "1", "2"]
    assert int(rows["frames"][0]) == 10 * int(rows["sequences"][0])


@pytest.mark.parametrize("source", list(registry.SOURCES))
def test_every_option_of_a_source_has_a_flag_with_help(source, capsys):
    with pytest.raises(SystemExit):
        _run(source, "--help")
    text = " ".join(capsys.readouterr().out.split())
    for field in registry.source_fields(source):
        positional = field.metadata.get("positional")
        assert ("PART" if positional else f"--{field.name.replace('_', '-')}") in text
    documented = prepare._documented(registry.builder_class(source).builder_config_class)
    assert {field.name for field in registry.source_fields(source)} <= documented.keys()


def test_mistakes_are_sentences(raw_data, tmp_path):
    with pytest.raises(UserError, match=f"no folder {tmp_path / 'nowhere'}"):
        _run("chestxray14", "--raw", tmp_path / "nowhere", "--out", tmp_path)
    with pytest.raises(UserError, match="Give --raw DIR"):
        _run("chestxray14", "--out", tmp_path)
    with pytest.raises(UserError, match=r"has no option 'siz'\. Did you mean 'size'"):
        preparation.prepare("chestxray14", tmp_path, siz=32)
    file = raw_data.folder / "test_list.txt"
    with pytest.raises(UserError, match=r"cannot be written.*--out DIR"):
        _run("chestxray14", "--raw", raw_data.folder, "--out", file / "below")


def test_full_disk_is_a_sentence(raw_data, tmp_path, monkeypatch):
    def full(self, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(RunError, match=r"is full.*what is finished is kept"):
        _run("chestxray14", "--raw", raw_data.folder, "--out", tmp_path, "--workers", 0)


def test_default_root_is_that_of_tfds(raw_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "root"))
    _run("chestxray14", "--raw", raw_data.folder, "--size", 32, "--workers", 0)
    assert (tmp_path / "root/chestxray14/32_hist_png/2.0.0").is_dir()


@pytest.mark.parametrize(("out", "words"), [
    ("~nobody-at-all/x", "no such home folder"), ("x" * 300, "File name too long"),
])
def test_a_root_that_cannot_be_is_answered(out, words):
    with pytest.raises(UserError, match=rf"cannot be written \({words}\).*--out DIR"):
        preparation.prepare("chest_phantom", out, images=20)


def test_complete_data_on_a_read_only_mount_are_used_as_they_are(raw_data, tmp_path, monkeypatch):
    options = {"raw": raw_data.folder, "size": 32, "workers": 0}
    preparation.prepare("chestxray14", tmp_path, **options)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(preparation, "_locked", refuse)
    preparation.prepare("chestxray14", tmp_path, **options)
    with pytest.raises(UserError, match="Read-only file system"):
        preparation.prepare("chestxray14", tmp_path / "other", **options)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of(raw_data, tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = preparation.prepare("chestxray14", tmp_path, raw=raw_data.folder, size=32, workers=0)
    assert (pathlib.Path(folder.data_dir) / "dataset_info.json").exists()
    assert capsys.readouterr().err.count("this file system has no locks") == 1
