"""Strict settings for every test: eight CPU devices, no silent dtype promotion, no network."""

import os
import pathlib
import shutil
import tempfile

# Programs that tests start keep nothing in the user's cache; read when JAX is imported.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# Nor do they see or change what the user has prepared.
os.environ["TFDS_DATA_DIR"] = tempfile.mkdtemp(prefix="jaxcxr-tests-")

import jax
import numpy as np
import pytest
from absl import flags

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# LLVM's optimisations cost most of a test's time and change no test's outcome.
jax.config.update("jax_disable_most_optimizations", True)

flags.FLAGS.mark_as_parsed()  # grain reads absl flags; pytest never parses them

_DEFAULT_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
_DEFAULT_CASES = _DEFAULT_SHARED.with_name("cases")


def pytest_addoption(parser):
    parser.addoption("--record", metavar="DIR", help="write what tests measure to DIR/NAME.json")


def pytest_configure(config):
    if config.getoption("--record") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--record needs -n 0: one process writes each file.")


def pytest_sessionfinish():
    shutil.rmtree(os.environ["TFDS_DATA_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def record(pytestconfig):
    """Notes numbers for docs/results; see `tests.recording.Recorder`."""
    from tests import recording

    return recording.Recorder(pytestconfig.getoption("--record"))


@pytest.fixture(scope="session")
def agree(record):
    """Compares with another library and records the largest difference of each kind of thing."""
    largest = {}

    def check(what, found, expected, atol, scale=1.0):
        difference = float(np.max(np.abs(np.asarray(found) - np.asarray(expected)) / scale))
        assert difference <= atol, f"{what}: {difference} is above {atol}"
        largest[what] = max(difference, largest.get(what, 0.0))
        record("agreement", (what, f"{largest[what]:.0e}", f"{atol:.0e}"),
               columns=("what", "largest difference", "allowed"), note="Random weights.")

    return check


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder with the real X-rays and motion capture; the test is skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("JAXCXR_SHARED_DATA", _DEFAULT_SHARED))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set JAXCXR_SHARED_DATA to its folder")
    return folder


@pytest.fixture
def raw_data(tmp_path):
    """Four images of three patients: 1 and 2 in train_val, 3 with a box in test."""
    from tests.raw_chestxray14 import RawData

    folder = tmp_path / "raw"
    folder.mkdir()
    return RawData(folder)


@pytest.fixture(scope="session")
def shared_cases() -> pathlib.Path:
    """Folder with inputs that users had trouble with; the test is skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("JAXCXR_SHARED_CASES", _DEFAULT_CASES))
    if not folder.is_dir():
        pytest.skip(f"no cases of users at {folder}; set JAXCXR_SHARED_CASES to their folder")
    return folder


@pytest.fixture(scope="session")
def xray_run(tmp_path_factory) -> pathlib.Path:
    """Folder of a run of four steps on sixty generated radiographs; read it, do not change it."""
    from tests import phantom_runs

    return phantom_runs.make_xray_run(tmp_path_factory.mktemp("xray_run"))


@pytest.fixture(scope="session")
def bundle_file(xray_run, tmp_path_factory) -> pathlib.Path:
    """The bundle of `xray_run`; read it, do not change it."""
    from jaxcxr.deploy.bundle import from_run

    path = tmp_path_factory.mktemp("bundle") / "x.jaxcxr"
    from_run.make(xray_run, path, "CC0 1.0", lambda text: None)
    return path


@pytest.fixture(scope="module")
def chromium():
    """A browser; the tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright (pip)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        pytest.skip("no chromium (apt install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()
