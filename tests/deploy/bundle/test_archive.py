"""The file of a bundle: what was written comes back, and everything else is refused."""

import json
import zipfile

import pytest

from jaxcxr.deploy.bundle import archive
from jaxcxr.errors import UserError

FILES = {"config.json": b'{"task": "cxr"}\n', "weights.safetensors": bytes(range(256)) * 40}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.jaxcxr"
    archive.write(path, {"task": "cxr", "classes": ["Größe"]}, FILES)
    return path


def rewritten(path, change, **how):
    """The same file with its members changed by a function of their dict."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", **how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def facts_changed(**new):
    def change(members):
        facts = json.loads(members[archive.FACTS])
        members[archive.FACTS] = json.dumps({**facts, **new}).encode()

    return change


def test_what_was_written_comes_back_and_equal_content_is_an_equal_file(path, tmp_path):
    found = archive.read(path)
    assert found.files == FILES
    assert found.facts["classes"] == ["Größe"]
    assert found.json("config.json") == {"task": "cxr"}
    digest = archive.write(tmp_path / "b", {"classes": ["Größe"], "task": "cxr"}, FILES)
    assert digest == found.digest
    assert (tmp_path / "b").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jaxcxr", "b"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m.pop("config.json"), "lists other files than there are"),
    (lambda m: m.update({"config.json": b'{"task": "pose"}'}),
     "the SHA-256 of config.json is not the one in bundle.json"),
    (lambda m: m.update({"../../evil": b""}), "'../../evil' does not belong there"),
    (lambda m: m.pop(archive.FACTS), "is no bundle"),
    (facts_changed(version=2), "of version 2 of the format, but this jaxcxr reads 1"),
    (facts_changed(format="zip"), "is no bundle"),
    (facts_changed(files=[1]), "lists other files"),
    (lambda m: m.update({archive.FACTS: b"[" * 100_000}), "is not JSON"),
    (lambda m: m.update({archive.FACTS: b"\xff"}), "is not JSON"),
])
def test_changed_files_are_refused(path, change, message):
    with pytest.raises(UserError, match=message):
        archive.read(rewritten(path, change))


def test_nothing_grows_while_it_is_read(path, monkeypatch):
    bomb = bytes(10**7)
    with pytest.raises(UserError, match=r"is no bundle: bundle\.json is compressed"):
        archive.read(rewritten(path, lambda m: m.update({"metrics.json": bomb}),
                               compression=zipfile.ZIP_DEFLATED))
    monkeypatch.setitem(archive.LIMITS, "weights.safetensors", 1000)
    with pytest.raises(UserError, match="at most 1,000 are read"):
        archive.read(rewritten(path, lambda m: m.pop("metrics.json")))


def test_a_size_that_the_file_does_not_have_is_refused(path):
    content = bytearray(path.read_bytes())
    # Both sizes of the first member in the central directory, of 4 bytes each.
    place = content.index(b"PK\x01\x02") + 20
    content[place : place + 8] = (2**21).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|larger than the file"):
        archive.read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all" * 100])
def test_other_files_are_no_bundles(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="is no bundle, or damaged"):
        archive.read(tmp_path / "x")


def test_a_cut_file_is_damaged_wherever_it_is_cut(path):
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 23):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is no bundle, or damaged"):
            archive.read(path)


def test_folders_and_absent_files_have_a_message(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        archive.read(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        archive.read(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        archive.write(tmp_path, {}, FILES)
