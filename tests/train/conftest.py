"""Compiled programs are kept for the session: many tests run the same toy steps."""

import jax
import pytest

SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.2,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Folder of the compiled programs, for processes that a test starts."""
    folder = tmp_path_factory.mktemp("compiled")
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in {**SETTINGS, "jax_compilation_cache_dir": str(folder)}.items():
        jax.config.update(name, value)
    yield folder
    for name, value in {**before, "jax_compilation_cache_dir": None}.items():
        jax.config.update(name, value)
