"""A run whose workdir is an address in an object store; a folder of this machine is the store."""

import importlib
import json
import os
import pathlib

import fsspec
import pytest
from etils import epath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from orbax.checkpoint._src.path import gcs_utils

from jaxcxr.errors import UserError
from jaxcxr.train import checkpoint, loop, workdir, writers
from tests import toys
from tests.train.runs import lines, saved_state, saved_steps, toy_run, train


class Store(DirFileSystem):
    """The buckets of `gs://` as folders below one folder."""

    protocol = ("gs", "gcs")
    root = None

    def __init__(self, **kwargs):
        super().__init__(path=Store.root, fs=LocalFileSystem(auto_mkdir=True))

    @classmethod
    def _strip_protocol(cls, path):
        return os.fspath(path).removeprefix("gs://").removeprefix("gcs://").strip("/")

    def _join(self, path):
        if isinstance(path, (list, dict)):
            return super()._join(path)
        return super()._join(self._strip_protocol(path))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder in which `gs://bucket` lies."""
    Store.root = str(tmp_path / "store")
    folder = tmp_path / "store" / "bucket"
    folder.mkdir(parents=True)
    fsspec.register_implementation("gcs", Store, clobber=True)
    fsspec.register_implementation("gs", Store, clobber=True)
    backend = epath.backend.fsspec_backend
    backend._get_filesystem.cache_clear()
    Store.clear_instance_cache()

    def as_files(path):
        name, inside = gcs_utils.parse_gcs_path(path, add_trailing_slash=False)
        return {"driver": "file", "path": str(pathlib.Path(Store.root, name, inside))}

    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", as_files)
    monkeypatch.setattr(gcs_utils, "get_bucket", lambda name: object())  # no folders of its own
    yield folder
    registry = importlib.import_module("fsspec.registry")._registry
    for name in ("gcs", "gs"):
        registry.pop(name)
    backend._get_filesystem.cache_clear()


def test_a_run_in_a_bucket_stops_and_goes_on_as_one_on_disk(bucket, tmp_path):
    remote, local = workdir.parse("gs://bucket/runs/one"), tmp_path / "local"
    assert train(remote, stop_at=4, figures=True) is None
    folder = bucket / "runs" / "one"
    before = (folder / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in before.splitlines()
            if json.loads(line)["kind"] == "train"] == [1, 2, 3, 4]
    metrics = train(remote, figures=True)
    assert metrics == train(local, figures=True)
    assert lines(folder) == lines(local)
    ours, theirs = ({path.relative_to(root).as_posix() for path in root.rglob("*")
                     if path.is_file() and not path.is_relative_to(root / "checkpoints")
                     and path.parent.name != "tensorboard"} for root in (folder, local))
    assert ours == theirs, "config, metrics, predictions, report"
    assert len(list((folder / "tensorboard").iterdir())) == 2
    steps = {path.name for path in (folder / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {path.name for path in (local / "checkpoints").iterdir()}
    assert not list(tmp_path.glob("*gs:*")), "no folder of that name"
    with toy_run(figures=True):
        screen = writers.Screen(quiet=True)
        assert loop.evaluate(toys.two_stages(), remote, screen) == metrics
    with pytest.raises(UserError, match=r"gs://bucket/runs/one holds a run of another config"):
        checkpoint.check_workdir(remote, toys.two_stages(seed=1))


def test_addresses(monkeypatch):
    assert workdir.parse("~/runs") == pathlib.Path("~/runs").expanduser()
    assert str(workdir.parse("gs://b/c") / "d") == "gs://b/c/d"
    for text in ("ftp://b/c", "s3://b/c"):
        with pytest.raises(UserError, match="mount the bucket"):
            workdir.parse(text)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UserError, match="pip install gcsfs"):
        workdir.parse("gs://b/c")


def test_a_bucket_that_cannot_be_written_is_a_mistake(bucket, monkeypatch):
    def refuse(self, path, mode="rb", **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "open", refuse)
    with pytest.raises(UserError, match=r"cannot write gs://bucket/x: Permission denied"):
        workdir.check_writable(workdir.parse("gs://bucket/x"))


def test_only_what_changed_is_copied(bucket):
    local = workdir.Local(workdir.parse("gs://bucket/run"))
    (local.path / "report").mkdir()
    (local.path / "report" / "a.csv").write_text("1")
    (local.path / "metrics.jsonl").write_text("{}\n")
    local.push()
    target = bucket / "run" / "report" / "a.csv"
    target.write_text("mine")
    (local.path / "metrics.jsonl").write_text("{}\n{}\n")
    local.push()
    assert target.read_text() == "mine"
    assert (bucket / "run" / "metrics.jsonl").read_text() == "{}\n{}\n"
    local.close()
    assert not local.path.exists()
    again = workdir.Local(workdir.parse("gs://bucket/run"))
    assert (again.path / "metrics.jsonl").read_text() == "{}\n{}\n"
    again.close()


@pytest.mark.parametrize("name", ["r[red]", "[!a]", "a\\b", "lr*", "what?", "a/[b]/c", "x]y",
                                  "r(1)", "ä b", "a{b}", "100%"])
def test_a_name_with_which_checkpoints_cannot_be_read_is_refused_at_the_start(name, tmp_path):
    folder = workdir.parse(tmp_path / name)
    if set(name) & set("*?[\\"):
        with pytest.raises(UserError, match="give a --workdir without"):
            checkpoint.check_workdir(folder, toys.two_stages())
        assert not (tmp_path / name).exists()
        return
    assert train(folder, stop_at=1) is None
    assert saved_steps(tmp_path / name) == [1]
    saved_state(folder, 1)


def test_a_working_folder_with_such_a_name_is_refused_too(tmp_path, monkeypatch):
    (tmp_path / "[a]").mkdir()
    monkeypatch.chdir(tmp_path / "[a]")
    with pytest.raises(UserError, match=r"\[a\]/run has \[ in its name"):
        workdir.check_writable(workdir.parse("run"))
