"""A program that runs again gets its memory back without the kernel."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from jaxcxr.train import allocator

# Ten calls of a program with two arrays of 64 MB, and the pages that the kernel cleared.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jaxcxr.train import allocator
if sys.argv[1] == "kept":
    assert allocator.keep_freed_memory()
step = jax.jit(lambda x: jnp.tanh((x @ x.T)[::-1].T).sum())
x = jnp.ones((4000, 8))
run = lambda: step(x).block_until_ready()
for _ in range(5):
    run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | environment,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_step_does_not_wait_for_the_kernel():
    pages = 4000 * 4000 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert faults("kept") < 2 * pages  # a program that maps them anew: 20
    assert faults("plain", **allocator.ENVIRONMENT) < 2 * pages


@pytest.mark.parametrize(("asked", "alone"), [("cpu", True), ("cuda", False), ("tpu,cpu", False)])
def test_other_devices_are_left_alone(monkeypatch, asked, alone):
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    calls = []
    monkeypatch.setattr(allocator, "_settings", lambda: calls.append(1) or True)
    assert allocator.keep_freed_memory() is alone
    assert len(calls) == alone


def test_a_plugin_of_a_device_is_seen(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = [importlib.metadata.EntryPoint("cuda", "jax_cuda.plugin", "jax_plugins")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    assert not allocator.keep_freed_memory()
