"""Tells rate and scale of the training data of a pose run, and adapts its config to one video."""

import inspect
from collections.abc import Callable

import numpy as np

from jaxcxr import registry
from jaxcxr.data import preparation
from jaxcxr.errors import UserError
from jaxcxr.pose.sources import clips

_MOST_WINDOWS = 64  # at once, where the run trained on more


def training_fps(config) -> float:
    """Returns the frame rate of the training data: the option `fps`, else `FPS` of the source."""
    return float(config.data.options.get("fps") or _module(config).FPS)


def nominal_scale(config) -> Callable | None:
    """Returns the function that scales poses to a nominal size, if the source has no true one."""
    return getattr(_module(config), "nominal_scale", None)


def confidence(config) -> dict[str, float]:
    """Tells the confidences of the training data: lowest, usual and highest, and unseen share.

    Without the prepared data all are taken for 1, and joints for always seen.
    """
    try:
        folder = preparation.find(
            config.data.source, dict(config.data.options), config.data.dir or None
        )
        parts = clips.read_sequences(folder, "train")
        values = np.concatenate([part.inputs[..., 2].ravel() for part in parts])
    except (UserError, OSError):
        return {"low": 1.0, "usual": 1.0, "high": 1.0, "unseen": 0.0}
    seen = values[values > 0]
    low, usual, high = np.quantile(seen, (0.01, 0.5, 0.99)) if len(seen) else (1.0, 1.0, 1.0)
    return {"low": round(float(low), 4), "usual": round(float(usual), 4),
            "high": round(float(high), 4), "unseen": round(float(np.mean(values <= 0)), 4)}


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
