"""What a run of poses says of its training data, and its config made fit for one video."""

import inspect
from collections.abc import Callable

from jaxcxr import registry

_MOST_WINDOWS = 64  # at once, where the run trained on more


def training_fps(config) -> float:
    """Frames per second of a run's training data: its option `fps`, or else its source's `FPS`.

    Arguments:
      config: the run's config.
    """
    return float(config.data.options.get("fps") or _module(config).FPS)


def nominal_scale(config) -> Callable | None:
    """What brings poses of a run to a nominal scale, where its source knows no true one."""
    return getattr(_module(config), "nominal_scale", None)


def one_batch(config):
    """A config with all devices on the batch, of as many windows as a video may need.

    Arguments:
      config: of a run of poses; it is changed.
    """
    import jax

    devices = jax.device_count()
    with config.unlocked():
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, 1, 1
        config.parallel, config.accumulate = "jit", 1
        config.batch_size = -(-min(config.batch_size, _MOST_WINDOWS) // devices) * devices
    return config


def _module(config):
    """That of a run's source."""
    return inspect.getmodule(registry.builder_class(config.data.source))
