"""Defines every key of a config with its default, validates configs and parses durations.

A config file starts from `default(task)` and changes what its experiment needs; a misspelt key
fails at once, because the tree is locked. `validate` checks values before any device is touched.
"""

from jaxcxr.config.checks import validate
from jaxcxr.config.durations import due, seconds, steps
from jaxcxr.config.experiment import (
    NO_AUGMENTATION,
    add_stage,
    default,
    default_stage,
    layer_decay,
    set_model,
    set_source,
)
from jaxcxr.config.saved import difference, flatten, from_saved, get, origin, provenance

__all__ = [
    "NO_AUGMENTATION", "add_stage", "default", "default_stage", "difference", "due", "flatten",
    "from_saved", "get", "layer_decay", "origin", "provenance", "seconds", "set_model",
    "set_source", "steps", "validate",
]
