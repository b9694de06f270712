"""The cache of compiled programs, in processes of their own."""

import json
import os
import re
import subprocess
import sys

import pytest

from jaxcxr.train import compilation

PROGRAM = """
import json, jax, jax.numpy as jnp
from jaxcxr.train import compilation
compilation.enable_cache()
requests = []
jax.monitoring.register_event_listener(
    lambda event, **_: requests.append(event) if event.endswith("use_cache") else None
)
jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((8, 8))).block_until_ready()
counts = compilation.counts()
assert sum(counts.values()) == len(requests), (counts, requests)
print(json.dumps({"counts": counts, "folder": jax.config.jax_compilation_cache_dir}))
"""


def start(**environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env=kept | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    return json.loads(found.stdout)


def test_a_second_start_compiles_nothing(tmp_path):
    first, second = (start(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    made = first["counts"]["compiled"]
    assert made > 0
    assert first["counts"]["from the cache"] == 0
    assert second["counts"] == {"compiled": 0, "from the cache": made}
    assert first["folder"].startswith(str(tmp_path / "jaxcxr"))


def test_jax_own_settings_hold(tmp_path):
    chosen = start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert chosen["folder"] == str(tmp_path / "mine")
    assert any((tmp_path / "mine").iterdir())
    off = start(XDG_CACHE_HOME=str(tmp_path / "x"), JAX_ENABLE_COMPILATION_CACHE="false")
    assert sum(off["counts"].values()) == 0
    assert not (tmp_path / "x").exists()


def test_the_line_adds_up(monkeypatch):
    monkeypatch.setattr(compilation, "_counts", {"compiled": 3, "from the cache": 4})
    line = compilation.first_step({"data": 1.0, "compile": 2.5})
    assert line == (
        "first step after 3.5 s: data 1.0 s, compile 2.5 s, 3 programs compiled, "
        "4 programs from the cache"
    )


@pytest.mark.slow
def test_a_second_start_of_the_demo_compiles_nothing(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    for number, made in enumerate(("[1-9]", "0")):
        found = subprocess.run(
            [sys.executable, "-m", "jaxcxr.main", "--config=configs/demo.py:pose,quick",
             f"--workdir={tmp_path / str(number)}"],
            capture_output=True, text=True, check=True,
            env=kept | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "300"},
        )
        pattern = rf"first step after .*, {made}\d* programs compiled"
        assert re.search(pattern, found.stdout), found.stdout
