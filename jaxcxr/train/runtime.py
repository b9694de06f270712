"""Sets up a process that computes: huge pages, a cache of compiled programs, shared devices."""

import collections
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import sys

_SETTING = "glibc.malloc.hugetlb"
_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Events of jax.monitoring, and what we call them.
_EVENTS = {
    "/jax/compilation_cache/cache_misses": "compiled",
    "/jax/compilation_cache/cache_hits": "from the cache",
}
_counts: collections.Counter = collections.Counter()


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
    """Tells whether malloc can have huge pages and has to ask for them."""
    try:
        return "[madvise]" in _PAGES.read_text() and platform.libc_ver()[0] == "glibc"
    except OSError:  # not Linux, or built without them
        return False


def _cpu_alone() -> bool:
    """Tells whether JAX can only find the CPU, told without looking for devices."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not importlib.util.find_spec("libtpu")


def enable_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX's own settings say otherwise.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, by default `jaxcxr/<machine>` in `$XDG_CACHE_HOME`
    or `~/.cache`; `JAX_ENABLE_COMPILATION_CACHE=false` switches the cache off. Programs for a CPU
    hold its instructions, so that each kind of CPU that shares a home has a folder of its own.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # set at run time
        root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
        folder = pathlib.Path(root) / "jaxcxr" / _machine()
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # Also what compiles within a second: a start has hundreds of such programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if not _counts:
        _counts.update(dict.fromkeys(_EVENTS.values(), 0))
        jax.monitoring.register_event_listener(_count)


def counts() -> dict[str, int]:
    """Programs since `enable_cache` `compiled`, and taken `from the cache`."""
    return dict(_counts)


def first_step(seconds: dict[str, float]) -> str:
    """Says in a line how long the first step took to come.

    Arguments:
      seconds: by phase, see `setup.Setup`.
    """
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    programs = "".join(f", {count} programs {kind}" for kind, count in _counts.items())
    return f"first step after {sum(seconds.values()):.1f} s: {parts}{programs}"


def _count(event: str, **_) -> None:
    if event in _EVENTS:
        _counts[_EVENTS[event]] += 1


def share_device() -> None:
    """Leaves memory of a GPU to other processes; call it before JAX touches a device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _machine() -> str:
    """Returns a name for this kind of CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        found = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    except OSError:  # not Linux
        found = {platform.processor()}
    name = hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{name}"
