"""`--beam`: the same data as without it, the same answers to bad images, and its own mistakes."""

import functools
import importlib.util
import pathlib
import time

import numpy as np
import pytest
from flax import serialization

from jaxcxr.data import preparation, staging
from jaxcxr.errors import BadRecord, RunError, UserError
from jaxcxr.xray.images import film_files, manifest, radiographs

LOCAL = "--runner=FnApiRunner"
# Beam wants protobuf before 7, which is ashamed of a field that TFDS uses.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="needs pip install 'jaxcxr[beam]'"
)


def _content(builder) -> tuple:
    """Names of the files, records in order, and manifest of what was prepared."""
    # Not the bytes of the shards, which differ between two runs of one preparation.
    directory = pathlib.Path(builder.data_dir)
    records = {
        split: [
            {key: np.asarray(value).tobytes() for key, value in record.items()}
            for record in radiographs.open_records(directory, split)
        ]
        for split in builder.info.splits
    }
    names = sorted(path.name for path in directory.iterdir())
    return names, records, (directory / manifest.NAME).read_bytes()


@pytest.fixture
def options(raw_data):
    return {"raw": str(raw_data.folder), "size": 32, "workers": 0, "val_fraction": 0.0}


@needs_beam
def test_shards_and_manifest_are_those_of_an_ordinary_preparation(options, tmp_path):
    ordinary = preparation.prepare("chestxray14", tmp_path / "a", **options)
    beamed = preparation.prepare("chestxray14", tmp_path / "b", beam=LOCAL, **options)
    assert {split: len(found) for split, found in _content(ordinary)[1].items()} == {
        "train": 3, "test": 1
    }
    assert _content(beamed) == _content(ordinary)


@needs_beam
def test_processes_of_their_own_give_the_same_phantoms(tmp_path):
    drawn = {"size": 32, "images": 60, "workers": 0}
    ordinary = preparation.prepare("chest_phantom", tmp_path / "a", **drawn)
    runner = "--direct_num_workers=2 --direct_running_mode=multi_processing"
    beamed = preparation.prepare("chest_phantom", tmp_path / "b", beam=f"{LOCAL} {runner}", **drawn)
    assert _content(beamed) == _content(ordinary)


@needs_beam
def test_bad_image_is_named_and_a_mended_one_goes_on(raw_data, options, tmp_path, capsys):
    broken = raw_data.folder / "images_002/images/00000003_000.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"1 bad records.*00000003_000\.png.*truncated"):
        preparation.prepare("chestxray14", tmp_path, beam=LOCAL, **options)
    broken.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:  # what is finished is not made again
        patch.setattr(film_files, "read", _only(film_files.read, "00000003_000.png"))
        resumed = preparation.prepare("chestxray14", tmp_path, beam=LOCAL, **options)
    assert "going on after 3 of 4 already made" in capsys.readouterr().err
    ordinary = preparation.prepare("chestxray14", tmp_path / "ordinary", **options)
    assert _content(resumed) == _content(ordinary)


def _only(read, name):
    def checked(path):
        assert str(path).endswith(name)
        return read(path)

    return checked


@needs_beam
def test_as_many_bad_images_as_allowed_are_left_out(raw_data, options, tmp_path, capsys):
    (raw_data.folder / "images_001/images/00000001_000.png").write_bytes(b"")
    builder = preparation.prepare("chestxray14", tmp_path, beam=LOCAL, max_bad=1, **options)
    assert builder.info.splits["train"].num_examples == 2
    assert "00000001_000.png: the file is empty" in capsys.readouterr().err


def _draw(item, calls=None):
    (calls / str(item)).touch()
    time.sleep(0.02)
    if item >= 1000:
        raise BadRecord(f"{item} is bad")
    return {str(item): {"inverse": 1 / item}}


def _stage(items, tmp_path, **options):
    from jaxcxr.data import beam

    calls = tmp_path / "calls"
    calls.mkdir(exist_ok=True)
    with staging.made_by(beam.maker(LOCAL)):
        encode = functools.partial(_draw, calls=calls)
        options = {"workers": 0, "chunk": 1, **options}
        staged = staging.staged_splits(
            {"": items}, encode, serialization.msgpack_serialize, directory=tmp_path / "staging",
            **options,
        )
    return [serialization.msgpack_restore(one.read()) for one in staged[""]]


@needs_beam
def test_failure_keeps_what_is_finished(tmp_path):
    with pytest.raises(RunError, match=r"division by zero .*what is finished is kept"):
        _stage([1, 2, 3, 0], tmp_path)
    finished = {path.name for path in (tmp_path / "staging").glob("*.json")}
    records = _stage([1, 2, 4], tmp_path)
    assert [record["inverse"] for record in records] == [1, 0.5, 0.25]
    assert finished <= {path.name for path in (tmp_path / "staging").glob("*.json")}


@needs_beam
def test_hopeless_work_is_stopped_early(tmp_path, monkeypatch):
    from jaxcxr.data import beam

    monkeypatch.setattr(staging, "_PATIENCE", 0)
    monkeypatch.setattr(beam, "_SECONDS_BETWEEN_LOOKS", 0.01)
    items = list(range(1000, 1300))
    with pytest.raises(UserError, match="bad records, more than max_bad=2"):
        _stage(items, tmp_path, max_bad=2)
    assert 3 <= len(list((tmp_path / "calls").iterdir())) < len(items)
    assert not (tmp_path / "staging/stop").exists()


@needs_beam
def test_folder_that_the_workers_do_not_share_is_named(tmp_path, monkeypatch):
    from jaxcxr.data import beam

    monkeypatch.setattr(staging, "encode_chunk", lambda *task: None)
    monkeypatch.setattr(beam, "_SECONDS_LATE", 0.0)
    with pytest.raises(UserError, match=f"2 of 2 chunks are not in {tmp_path}/staging"):
        _stage([1, 2], tmp_path)


@needs_beam
@pytest.mark.parametrize(("options", "message"), [
    ("--runner=NoSuchRunner", "Unexpected pipeline runner: NoSuchRunner"),
    ("--runer=DirectRunner", "no option --runer; did you mean --runner"),
    ("--direct_num_workers=two", "--direct_num_workers: invalid int value: 'two'"),
    ("DirectRunner", "'DirectRunner' is no option"),
    ("--runner='", "No closing quotation"),
])
def test_mistaken_options_are_sentences(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        preparation.prepare("chest_phantom", tmp_path, beam=options)
    assert not list(tmp_path.iterdir())


def test_without_beam_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxcxr\[beam\]'"):
        preparation.prepare("chest_phantom", tmp_path, beam=LOCAL)


def test_source_that_stages_nothing_takes_no_beam(tmp_path):
    with pytest.raises(UserError, match="motion_phantom makes its records in one process"):
        preparation.prepare("motion_phantom", tmp_path, beam=LOCAL)
