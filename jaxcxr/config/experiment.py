"""Builds the default config of a task and changes it for an experiment."""

from typing import Any

import ml_collections

from jaxcxr import registry
from jaxcxr.config import keys
from jaxcxr.errors import UserError, nearest_or_known


def default(task: str) -> ml_collections.ConfigDict:
    """Builds the config of a task with every key at its default.

    Arguments:
      task: "cxr" or "pose".

    Returns:
      A locked ConfigDict. `stages` is empty: a config file adds at least one with `add_stage`.

    Raises:
      UserError: no such task.
    """
    if task not in registry.TASKS:
        raise UserError(f"task is {task!r}; allowed: {', '.join(registry.TASKS)}.")
    config = tree({key.name: key.default for key in keys.of_task(task)})
    config.task = task
    return config.lock()


# Values of `augment` of chest X-rays that leave an image as it is.
NO_AUGMENTATION = {
    "rotation": 0.0, "scale": 0.0, "translation": 0.0, "shear": 0.0, "crop_area": 1.0,
    "crop_aspect": 0.0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "horizontal_flip": 0.0,
}


def layer_decay(config, factor: float) -> tuple:
    """Builds learning-rate multipliers that fall by a factor from layer to layer.

    The head learns at the full rate, the last layer of the backbone at `factor` of it, the one
    before at `factor` squared, and so on (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022,
    arXiv:2106.08254).

    Arguments:
      config: with its model, whose class declares its layers by a method `depths`.
      factor: of one layer, above 0 and at most 1.

    Returns:
      Rules for `optimizer.multiplier_rules`.

    Raises:
      UserError: the model declares no layers, or scans over them.
    """
    model = registry.model(config.model.name)(**config.model.options.to_dict())
    if not hasattr(model, "depths"):
        raise UserError(f"model {config.model.name!r} does not say in which order its layers are.")
    if getattr(model, "scan", False):
        raise UserError("layers that a model scans over have one learning rate; set scan=False.")
    layers = model.depths()
    rates = tuple((pattern, factor ** (len(layers) - i)) for i, pattern in enumerate(layers))
    return (*keys.MULTIPLIERS[:-1], *rates, keys.MULTIPLIERS[-1])


def default_stage() -> ml_collections.ConfigDict:
    """Builds the default settings of a stage, apart from its duration and trained parameters."""
    return tree({key.name: key.default for key in keys.STAGE_KEYS})


def tree(flat: dict[str, Any]) -> ml_collections.ConfigDict:
    """Builds a ConfigDict from {dotted key: value}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = dict(value) if isinstance(value, dict) else value
    return ml_collections.ConfigDict(nested)


def set_model(config, name: str, **options) -> None:
    """Chooses the model and lists all its options, so that the command line can override them.

    Arguments:
      config: a config of `default`.
      name: a key of `registry.MODELS`.
      **options: the options to change.

    Raises:
      UserError: unknown model or option; the message names the nearest.
    """
    known = registry.model_options(name)
    for key in options:
        if key not in known:
            raise UserError(f"model {name!r} has no option {key!r}.{nearest_or_known(key, known)}")
    with config.unlocked():
        config.model.name = name
        config.model.options = ml_collections.ConfigDict({**known, **options})


def set_source(config, name: str, **options) -> None:
    """Chooses the data source and the options that name its prepared variant.

    Raises:
      UserError: unknown source or option; the message names the nearest.
    """
    known = registry.source_options(name)
    for key in options:
        if key not in known:
            raise UserError(
                f"data source {name!r} has no option {key!r}.{nearest_or_known(key, known)}"
            )
    with config.unlocked():
        config.data.source = name
        config.data.options = ml_collections.ConfigDict({**known, **options})


def add_stage(config, name: str, duration: str, trainable=(".*",), **changes) -> None:
    """Appends a training stage.

    Arguments:
      config: a config of `default`.
      name: name of the stage, shown in logs and used in overrides (`--config.stages.NAME...`).
      duration: e.g. "300 steps", "5 epochs", "1e6 examples".
      trainable: regular expressions; a parameter is frozen if its path matches none of them. A
        frozen BatchNorm layer uses and keeps its running statistics.
      **changes: dotted keys of `default_stage` with "." written as "__", e.g.
        `optimizer__name="radam"`.
    """
    stage = default_stage()
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    stage.update_from_flattened_dict(flat)
    with config.unlocked(), stage.unlocked():
        stage.duration = duration
        stage.trainable = tuple(trainable)
        config.stages[name] = stage
        config.stage_order = (*config.stage_order, name)
