"""Tells rate and scale of the training data of a pose run, and adapts its config to one video."""

import inspect
from collections.abc import Callable

from jaxcxr import registry

_MOST_WINDOWS = 64  # at once, where the run trained on more


def training_fps(config) -> float:
    """Returns the frame rate of the training data: the option `fps`, else `FPS` of the source."""
    return float(config.data.options.get("fps") or _module(config).FPS)


def nominal_scale(config) -> Callable | None:
    """Returns the function that scales poses to a nominal size, if the source has no true one."""
    return getattr(_module(config), "nominal_scale", None)


def one_batch(config):
    """Puts all devices of a config on a batch of at most `_MOST_WINDOWS`; changes it in place."""
    import jax

    devices = jax.device_count()
    with config.unlocked():
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, 1, 1
        config.parallel, config.accumulate = "jit", 1
        config.batch_size = -(-min(config.batch_size, _MOST_WINDOWS) // devices) * devices
    return config


def _module(config):
    """Returns the module of the data source."""
    return inspect.getmodule(registry.builder_class(config.data.source))
