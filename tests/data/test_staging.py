"""Staged records: order, reuse, bad records, worker processes."""


import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import serialization

from jaxcxr.data import staging
from jaxcxr.data.staging import usable_cores
from jaxcxr.errors import BadRecord, UserError


@dataclasses.dataclass(frozen=True)
class Item:
    name: str
    value: int


def encode(item: Item, calls: pathlib.Path, scale: int = 1):
    """Record of an item; leaves a file behind so that a test can count the calls."""
    (calls / f"{item.name}-{scale}-{len(list(calls.iterdir()))}").touch()
    if item.value < 0:
        raise BadRecord(f"{item.name}: negative")
    record = {
        "image": bytes([item.value]) * 3,
        "labels": np.full((2,), item.value * scale, np.int8),
        "boxes": np.zeros((0, 5), np.float32),
        "age": item.value,
        "text": "é",
    }
    return {item.name: record}


@pytest.fixture
def calls(tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


def _items(count):
    return [Item(f"i{n}", n) for n in range(count)]


def _stage(items, function, tmp_path, **options):
    options = {"workers": 0, "chunk": 3, "label": "test", **options}
    return _records(staging.staged_splits(
        {"": items}, function, serialization.msgpack_serialize, directory=tmp_path / "staging",
        **options,
    )[""])


def _records(staged):
    return [(one.key, serialization.msgpack_restore(one.read())) for one in staged]


@pytest.mark.parametrize("workers", [0, 2])
def test_records_come_back_in_order_with_types_and_shapes(tmp_path, calls, workers):
    records = _stage(_items(8), functools.partial(encode, calls=calls), tmp_path, workers=workers)
    assert [key for key, _ in records] == [f"i{n}" for n in range(8)]
    last = records[7][1]
    assert last["image"] == b"\x07\x07\x07"
    assert last["labels"].dtype == np.int8
    assert last["labels"].tolist() == [7, 7]
    assert last["boxes"].shape == (0, 5)
    assert last["boxes"].dtype == np.float32
    assert (last["age"], last["text"]) == (7, "é")


def test_finished_chunks_are_not_made_again(tmp_path, calls):
    function = functools.partial(encode, calls=calls)
    first = _stage(_items(6), function, tmp_path)
    made = len(list(calls.iterdir()))
    second = _stage(_items(6), functools.partial(encode, calls=calls), tmp_path)
    assert made == len(list(calls.iterdir())) == 6
    assert str(first) == str(second)


def test_longer_item_list_makes_only_the_new_chunks(tmp_path, calls):
    function = functools.partial(encode, calls=calls)
    _stage(_items(6), function, tmp_path)
    records = _stage(_items(9), function, tmp_path)
    assert len(records) == len(list(calls.iterdir())) == 9


def test_changed_options_and_changed_items_are_made_again(tmp_path, calls):
    _stage(_items(3), functools.partial(encode, calls=calls), tmp_path)
    scaled = _stage(_items(3), functools.partial(encode, calls=calls, scale=2), tmp_path)
    assert [record["labels"][0] for _, record in scaled] == [0, 2, 4]
    changed = [*_items(2), Item("i2", 9)]
    records = _stage(changed, functools.partial(encode, calls=calls), tmp_path)
    assert records[2][1]["age"] == 9


def test_fingerprint_depends_on_values_not_on_identity():
    one, two = "a" * 3, "".join(["a", "a", "a"])
    array = np.arange(3)
    assert staging._fingerprint(encode, [(one, one, array)]) == staging._fingerprint(
        encode, [(one, two, array.copy())]
    )
    assert staging._fingerprint(encode, [("a", "b")]) != staging._fingerprint(encode, [("ab",)])
    assert staging._fingerprint(encode, [array]) != staging._fingerprint(encode, [array + 1])


def test_changed_code_anywhere_in_the_package_makes_records_anew(tmp_path, calls, monkeypatch):
    package = tmp_path / "package"
    (package / "phantom").mkdir(parents=True)
    (package / "phantom/anatomy.py").write_text("RIBS = 12")
    monkeypatch.setattr(staging, "_PACKAGE", package)
    function = functools.partial(encode, calls=calls)
    for text, made in (("RIBS = 12", 3), ("RIBS = 12", 3), ("RIBS = 13", 6)):
        (package / "phantom/anatomy.py").write_text(text)
        staging._code.cache_clear()  # another process
        _stage(_items(3), function, tmp_path)
        assert len(list(calls.iterdir())) == made
    staging._code.cache_clear()


def test_package_whose_code_counts_holds_the_sources_and_what_they_use():
    names = {str(path.relative_to(staging._PACKAGE)) for path in staging._PACKAGE.rglob("*.py")}
    assert {"xray/images/film_files.py", "xray/images/fingerprint.py", "xray/phantom/__init__.py",
            "xray/sources/builder.py", "pose/sources/virtual.py"} <= names


@pytest.mark.parametrize("damage", ["truncated records", "no summary", "half a summary"])
def test_damaged_chunk_is_made_again(tmp_path, calls, damage):
    function = functools.partial(encode, calls=calls)
    _stage(_items(3), function, tmp_path)
    (chunk,) = (tmp_path / "staging").glob("*.records")
    summary = chunk.with_suffix(".json")
    if damage == "truncated records":
        chunk.write_bytes(chunk.read_bytes()[:-5])
    elif damage == "no summary":
        summary.unlink()
    else:
        summary.write_bytes(summary.read_bytes()[:5])
    assert len(_stage(_items(3), function, tmp_path)) == 3
    assert len(list(calls.iterdir())) == 6


def test_too_many_bad_records_are_counted_and_named(tmp_path, calls):
    items = [Item("bad-one", -1), *_items(3), Item("bad-two", -1)]
    with pytest.raises(UserError, match=r"2 bad records.*max_bad=1.*bad-one.*bad-two"):
        _stage(items, functools.partial(encode, calls=calls), tmp_path, max_bad=1)


def test_allowed_bad_records_are_left_out_and_named(tmp_path, calls, capsys):
    items = [Item("bad-one", -1), *_items(3)]
    records = _stage(items, functools.partial(encode, calls=calls), tmp_path, max_bad=1)
    assert [key for key, _ in records] == ["i0", "i1", "i2"]
    assert "bad-one: negative" in capsys.readouterr().err


def test_budget_of_bad_records_is_shared_by_the_splits(tmp_path, calls):
    splits = {"train": [Item("a", -1)], "test": [Item("b", -1)]}
    function = functools.partial(encode, calls=calls)
    with pytest.raises(UserError, match="2 bad records"):
        staging.staged_splits(
            splits, function, serialization.msgpack_serialize, directory=tmp_path, workers=0,
            max_bad=1,
        )


def test_mended_record_is_tried_again(tmp_path, calls):
    broken = tmp_path / "calls"
    function = functools.partial(encode_if_mended, flag=broken / "mended")
    with pytest.raises(UserError):
        _stage(_items(2), function, tmp_path)
    (broken / "mended").touch()
    assert len(_stage(_items(2), function, tmp_path)) == 2


def encode_if_mended(item, flag):
    if not flag.exists():
        raise BadRecord("broken")
    return {item.name: {"age": item.value}}


def test_left_over_parts_are_cleared_and_summaries_tell_the_bytes(tmp_path, calls):
    (tmp_path / "staging").mkdir()
    part = tmp_path / "staging" / "x.records.part-1"
    part.touch()
    _stage(_items(1), functools.partial(encode, calls=calls), tmp_path)
    assert not part.exists()
    (chunk,) = (tmp_path / "staging").glob("*.records")
    assert json.loads(chunk.with_suffix(".json").read_bytes())["sizes"] == [chunk.stat().st_size]


def test_plain_lines_tell_count_and_speed_where_there_is_no_terminal(tmp_path, calls, capsys):
    _stage(_items(4), functools.partial(encode, calls=calls), tmp_path, label="phantoms")
    assert "phantoms: 4/4" in capsys.readouterr().err


def test_an_item_can_have_several_records_or_none(tmp_path):
    records = _stage([0, 3, 1], several, tmp_path)
    assert records == [("3-0", {"n": 0}), ("3-1", {"n": 1}), ("3-2", {"n": 2}), ("1-0", {"n": 0})]


def several(item):
    return {f"{item}-{i}": {"n": i} for i in range(item)}


def test_spooled_records_are_read_back(tmp_path):
    contents = {"a": b"", "b": b"\x00\xff", "c": b"c" * 1000}
    staged = staging.spooled(iter(contents.items()), tmp_path / "staging")
    assert {one.key: one.read() for one in staged} == contents


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process")
def test_a_process_bound_to_a_core_uses_one():
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{core}]); "
        "from jaxcxr.data.staging import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_system_that_cannot_say_has_all_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
