"""A program is started anew with huge pages, once, and stays the same for who started it."""


import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys

import pytest

from jaxcxr.train import runtime

asks = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not runtime._on_request(),
    reason="this system gives huge pages unasked or never",
)
# Ten calls of a program with two arrays of 64 MB, and how often the kernel cleared a page.
PROGRAM = """
import os, resource, sys
from jaxcxr.train import runtime
runtime.restart_with_huge_pages()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.tanh((x @ x.T)[::-1].T).sum())
x = jnp.ones((4000, 8))
run = lambda: step(x).block_until_ready()
for _ in range(5):
    run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:], sys.stdin.read())
sys.exit(7)
"""


def start(tmp_path, **environment):
    """What the program printed, as started; it keeps its arguments, input and exit code."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(script), "a b", "--c"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | environment,
    ) as process:
        out, _ = process.communicate("the input")
    faults, pid, setting, rest = out.strip().split(" ", 3)
    assert process.returncode == 7
    assert int(pid) == process.pid
    assert rest == "['a b', '--c'] the input"
    return int(faults), setting


@asks
def test_a_step_does_not_wait_for_the_kernel_to_clear_pages(tmp_path):
    pages = 10 * 4000 * 4000 * 4 // os.sysconf("SC_PAGE_SIZE")  # of one array in all calls
    faults, setting = start(tmp_path, GLIBC_TUNABLES="")
    assert setting == "glibc.malloc.hugetlb=1"
    assert faults < 0.05 * pages
    faults, setting = start(tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert setting == "glibc.malloc.hugetlb=0"
    assert faults > pages


@asks
def test_other_settings_stay(tmp_path):
    given = "glibc.malloc.arena_max=4"
    assert start(tmp_path, GLIBC_TUNABLES=given)[1] == f"{given}:glibc.malloc.hugetlb=1"


@pytest.fixture
def restarts(monkeypatch):
    """The calls that would start the program anew."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(runtime, "_on_request", lambda: True)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


@pytest.mark.parametrize(("asked", "alone"), [("cpu", True), ("cuda", False), ("tpu,cpu", False)])
def test_other_devices_are_left_alone(restarts, monkeypatch, asked, alone):
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    runtime.restart_with_huge_pages()
    assert len(restarts) == alone


def test_a_plugin_of_a_device_is_seen(restarts, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = [importlib.metadata.EntryPoint("cuda", "jax_cuda.plugin", "jax_plugins")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    runtime.restart_with_huge_pages()
    assert not restarts


def test_a_system_without_huge_pages_goes_on(restarts, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(os, "execve", lambda *arguments: restarts.append(arguments))
    for text in ("always madvise [never]", "[always] madvise never", None):
        monkeypatch.setattr(runtime, "_PAGES", tmp_path / "enabled")
        if text is None:
            (tmp_path / "enabled").unlink()
        else:
            (tmp_path / "enabled").write_text(text)
        runtime.restart_with_huge_pages()
    assert not restarts


def test_a_program_that_cannot_be_started_anew_goes_on(restarts, monkeypatch):
    def fail(*arguments):
        restarts.append(arguments)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "execve", fail)
    runtime.restart_with_huge_pages()
    assert len(restarts) == 1


COMPILING = """
import json, jax, jax.numpy as jnp
from jaxcxr.train import runtime
runtime.enable_cache()
requests = []
jax.monitoring.register_event_listener(
    lambda event, **_: requests.append(event) if event.endswith("use_cache") else None
)
jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((8, 8))).block_until_ready()
counts = runtime.counts()
assert sum(counts.values()) == len(requests), (counts, requests)
print(json.dumps({"counts": counts, "folder": jax.config.jax_compilation_cache_dir}))
"""


def compile_in_process(**environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = subprocess.run(
        [sys.executable, "-c", COMPILING], capture_output=True, text=True, check=True,
        env=kept | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    return json.loads(found.stdout)


def test_a_second_start_compiles_nothing(tmp_path):
    first, second = (compile_in_process(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    made = first["counts"]["compiled"]
    assert made > 0
    assert first["counts"]["from the cache"] == 0
    assert second["counts"] == {"compiled": 0, "from the cache": made}
    assert first["folder"].startswith(str(tmp_path / "jaxcxr"))


def test_jax_own_settings_hold(tmp_path):
    chosen = compile_in_process(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert chosen["folder"] == str(tmp_path / "mine")
    assert any((tmp_path / "mine").iterdir())
    off = compile_in_process(
        XDG_CACHE_HOME=str(tmp_path / "x"), JAX_ENABLE_COMPILATION_CACHE="false"
    )
    assert sum(off["counts"].values()) == 0
    assert not (tmp_path / "x").exists()


def test_the_line_adds_up(monkeypatch):
    monkeypatch.setattr(runtime, "_counts", {"compiled": 3, "from the cache": 4})
    line = runtime.first_step({"data": 1.0, "compile": 2.5})
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
