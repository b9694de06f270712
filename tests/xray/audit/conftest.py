"""The audit as a function, for the tests of several files."""

import pytest

from tests.xray.audit import audits


@pytest.fixture
def run(capsys, tmp_path):
    """Runs `jaxcxr audit` with these words."""
    return lambda *words: audits.Audited(capsys, tmp_path, *words)
