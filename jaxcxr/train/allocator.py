"""How a process that computes on CPU keeps the memory it frees."""

import ctypes
import importlib.metadata
import importlib.util
import os

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
# The same for a process that is started.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
}


def keep_freed_memory() -> bool:
    """Lets glibc keep freed memory for the next step, where JAX will compute on CPU.

    XLA's CPU client takes the temporary memory of a program from malloc whenever the program runs,
    hundreds of megabytes for a training step. glibc maps blocks of that size anew and gives them
    back when they are freed, so that in every step the kernel clears each page: a third of the
    time of a step of the pose transformers (`jaxcxr.bench.train` has the figures). One arena, since
    those of other threads hold at most 64 MB. Memory that a process once needed stays with it until
    it ends. To be called before JAX starts threads, that is before it looks for devices.

    Returns:
      Whether that was done: not with another C library, nor where JAX has another device's plugin.
    """
    return _cpu_alone() and _settings()


def _settings() -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER}
    return mallopt is not None and all(mallopt(key, value) for key, value in settings.items())


def _cpu_alone() -> bool:
    """Whether JAX can only find the CPU, told without looking for devices."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not importlib.util.find_spec("libtpu")
