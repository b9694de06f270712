"""A program is started anew with huge pages, once, and stays the same for who started it."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from jaxcxr.train import allocator

asks = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not allocator._on_request(),
    reason="this system gives huge pages unasked or never",
)
# Ten calls of a program with two arrays of 64 MB, and how often the kernel cleared a page.
PROGRAM = """
import os, resource, sys
from jaxcxr.train import allocator
allocator.restart_with_huge_pages()
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
    monkeypatch.setattr(allocator, "_on_request", lambda: True)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


@pytest.mark.parametrize(("asked", "alone"), [("cpu", True), ("cuda", False), ("tpu,cpu", False)])
def test_other_devices_are_left_alone(restarts, monkeypatch, asked, alone):
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    allocator.restart_with_huge_pages()
    assert len(restarts) == alone


def test_a_plugin_of_a_device_is_seen(restarts, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = [importlib.metadata.EntryPoint("cuda", "jax_cuda.plugin", "jax_plugins")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    allocator.restart_with_huge_pages()
    assert not restarts


def test_a_system_without_huge_pages_goes_on(restarts, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(os, "execve", lambda *arguments: restarts.append(arguments))
    for text in ("always madvise [never]", "[always] madvise never", None):
        monkeypatch.setattr(allocator, "_PAGES", tmp_path / "enabled")
        if text is None:
            (tmp_path / "enabled").unlink()
        else:
            (tmp_path / "enabled").write_text(text)
        allocator.restart_with_huge_pages()
    assert not restarts


def test_a_program_that_cannot_be_started_anew_goes_on(restarts, monkeypatch):
    def fail(*arguments):
        restarts.append(arguments)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "execve", fail)
    allocator.restart_with_huge_pages()
    assert len(restarts) == 1
