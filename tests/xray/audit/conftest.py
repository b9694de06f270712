"""The audit as a function, for the tests of several files."""

import pytest

from tests.xray.audit import audits


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of fingerprints for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def run(capsys, tmp_path):
    """Runs `jaxcxr audit` with these words."""
    return lambda *words: audits.Audited(capsys, tmp_path, *words)
