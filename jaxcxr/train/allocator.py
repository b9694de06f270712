"""Huge pages for the memory of programs that run on CPU."""

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import sys

_SETTING = "glibc.malloc.hugetlb"
_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Restarts this program once, with huge pages for malloc, where JAX computes on CPU.

    XLA allocates the temporary memory of a program each time it runs, hundreds of megabytes for a
    training step, and the kernel clears every page of it. Pages of 2 MB make that cheap, but glibc
    asks for them only if `GLIBC_TUNABLES` is set when the process starts. Process id, arguments and
    open files stay; `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` switches the restart off.

    Returns:
      Where nothing is to be gained: another C library, a kernel that gives huge pages unasked or
      never, a setting that is there, or a plugin of JAX for another device.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if _SETTING in given or not _on_request() or not _cpu_alone():
        return
    tunables = ":".join(filter(None, (given, f"{_SETTING}=1")))
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # then it goes on as it is, only slower
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]],
            os.environ | {"GLIBC_TUNABLES": tunables},
        )


def _on_request() -> bool:
    """Whether malloc can have huge pages and has to ask for them."""
    try:
        return "[madvise]" in _PAGES.read_text() and platform.libc_ver()[0] == "glibc"
    except OSError:  # not Linux, or built without them
        return False


def _cpu_alone() -> bool:
    """Whether JAX can only find the CPU, told without looking for devices."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not importlib.util.find_spec("libtpu")
