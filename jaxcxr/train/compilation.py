"""The cache of compiled programs, which lets a second start compile nothing."""

import collections
import hashlib
import os
import pathlib
import platform

# Events of jax.monitoring, and what we call them.
_EVENTS = {
    "/jax/compilation_cache/cache_misses": "compiled",
    "/jax/compilation_cache/cache_hits": "from the cache",
}
_counts: collections.Counter = collections.Counter()


def enable_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX's own settings say otherwise.

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
    """A line that says how long the first step took to come.

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
    """Leave the memory of a GPU to another process too; before JAX touches a device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _machine() -> str:
    """A name for this kind of CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        found = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    except OSError:  # not Linux
        found = {platform.processor()}
    name = hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{name}"
