"""Validates a config: every value that can be checked without data or devices."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxcxr import registry
from jaxcxr.config import keys
from jaxcxr.config.durations import seconds, steps
from jaxcxr.config.experiment import default
from jaxcxr.config.keys import check_rules, is_number
from jaxcxr.config.saved import get
from jaxcxr.errors import UserError, nearest_or_known

# Subtrees whose keys the registry or the experiment decides.
_OPEN = ("stages", "data.options", "model.options")

_REMAT = ("none", "full", "dots", "weight_dots", True, False)

# Terms of the pose loss -> the model option they need; terms that compare neighbouring frames.
_TERM_NEEDS = {"likelihood": "uncertainty", "root": "trajectory"}
_OVER_TIME = ("velocity", "acceleration")


def validate(config) -> None:
    """Checks every value that needs no data or devices.

    Raises:
      UserError: a value is impossible; the message names the key, the value and what is allowed.
    """
    if get(config, "task") not in registry.TASKS:
        raise UserError(
            f"config.task is {get(config, 'task')!r}; allowed: {', '.join(registry.TASKS)}."
        )
    known = {key.name: key for key in keys.of_task(config.task)}
    _check_tree(config, default(config.task), known, prefix="")
    if config.batch_size % config.accumulate:
        raise UserError(
            f"config.batch_size ({config.batch_size}) must be a multiple of config.accumulate "
            f"({config.accumulate})."
        )
    if config.mesh.data != -1 and config.mesh.data < 1:
        raise UserError(f"config.mesh.data is {config.mesh.data}; allowed: -1 (all) or at least 1.")
    for key in ("evaluate_every", "checkpoint.every"):
        steps(get(config, key), 1, 1)
    seconds(config.watchdog)
    if "://" in config.data.dir:
        raise UserError(
            f"config.data.dir is {config.data.dir!r}; shards are read through the file system: "
            "mount the bucket (gcsfuse BUCKET DIR, mount-s3 BUCKET DIR) and give the folder in DIR."
        )
    serves = registry.source(config.data.source).task
    if serves != config.task:
        raise UserError(
            f"config.data.source {config.data.source!r} serves the task {serves!r}, but "
            f"config.task is {config.task!r}."
        )
    _check_training_rows(config)
    _check_model(config)
    if config.task == "pose":
        _check_pose(config)
    check_rules(
        config.sharding_rules, lambda action: action in ("fsdp", "replicate") or _is_spec(action),
        "'fsdp', 'replicate' or a tuple of mesh axes and None", "config.sharding_rules",
    )
    _check_stages(config)
    _check_scan(config)


def _check_tree(config, reference, known: Mapping[str, keys.Key], prefix: str) -> None:
    """Refuses unknown and missing keys, and values that the table of keys does not allow."""
    for key in reference:
        if key not in config:
            raise UserError(f"config.{prefix}{key} is missing; start from config.default(task).")
    for key in config:
        path = f"{prefix}{key}"
        if path in _OPEN:
            continue
        if key not in reference:
            raise UserError(f"config.{path} is no key.{nearest_or_known(key, reference)}")
        if not isinstance(reference[key], ml_collections.ConfigDict):
            known[path].check(config[key], f"config.{path}")
        elif not isinstance(config[key], ml_collections.ConfigDict):
            raise UserError(f"config.{path} is {config[key]!r}; it must be a group of keys.")
        else:
            _check_tree(config[key], reference[key], known, f"{path}.")


def _check_training_rows(config) -> None:
    """Refuses folds and label files that contradict each other or the task."""
    folds, left_out = config.data.folds, config.data.left_out
    if config.task != "cxr" and (folds or left_out or config.data.labels):
        raise UserError(
            "config.data.folds, left_out and labels serve the task 'cxr', but config.task is "
            f"{config.task!r}."
        )
    if folds == 1:
        raise UserError("config.data.folds is 1; allowed: 0 (off) or at least 2.")
    numbers = [n for n in left_out if isinstance(n, int) and not isinstance(n, bool)]
    if len(numbers) != len(left_out) or not set(numbers) <= set(range(folds)):
        raise UserError(
            f"config.data.left_out is {left_out!r}; allowed: numbers of folds, which "
            f"config.data.folds={folds} numbers "
            + (f"from 0 to {folds - 1}." if folds else "not at all.")
        )
    if len(set(numbers)) != len(numbers) or (folds and not 0 < len(numbers) < folds):
        raise UserError(
            f"config.data.left_out is {left_out!r}; of the {folds} folds at least one must be left "
            "out and one trained on, each named once."
        )


def _check_model(config) -> None:
    """Refuses models and options that the registry does not know for this task."""
    name = config.model.name
    known = registry.model_options(name)
    if registry.MODELS[name].task != config.task:
        fitting = [n for n, model in registry.MODELS.items() if model.task == config.task]
        raise UserError(
            f"config.model.name {name!r} does not serve the task {config.task!r}; "
            f"allowed: {', '.join(fitting)}."
        )
    _check_options(config.model.options, known, f"model {name!r}", "a model", "set_model")
    remat = get(config, "model.options.remat")
    if remat is not None and remat not in _REMAT:
        raise UserError(
            f"config.model.options.remat is {remat!r}; allowed: {', '.join(map(repr, _REMAT))}."
            + nearest_or_known(str(remat), _REMAT)
        )
    source = config.data.source
    _check_options(config.data.options, registry.source_options(source),
                   f"data source {source!r}", "a source", "set_source")


def _check_options(options, known: Mapping, of: str, choose: str, by: str) -> None:
    for key in options:
        if key not in known:
            raise UserError(
                f"{of} has no option {key!r}.{nearest_or_known(key, known)} Choose {choose} with "
                f"its options in the config file, by {by}."
            )


def _check_pose(config) -> None:
    """Refuses loss terms that the model or the data cannot serve."""
    options = {**registry.model_options(config.model.name), **config.model.options}
    weights = {name: value for name, value in config.loss.items() if name != "joint_weights"}
    if not any(weights.values()):
        raise UserError("all weights in config.loss are 0; give one at least a positive weight.")
    for term, option in _TERM_NEEDS.items():
        has = bool(options.get(option))
        if has != bool(weights[term]):
            raise UserError(
                f"config.loss.{term} is {weights[term]} and config.model.options.{option} is "
                f"{has} for {config.model.name!r}: set both, or none."
            )
    if config.data.target == "sequence":
        return
    for term in _OVER_TIME:
        if weights[term]:
            raise UserError(
                f"config.loss.{term} compares neighbouring frames, but with config.data.target="
                "'center' a window has one target; use 'sequence' or a weight of 0."
            )
    if options.get("teacher_forcing"):
        raise UserError(
            f"{config.model.name!r} is taught with the poses of all frames, but with "
            "config.data.target='center' a window has one; use 'sequence', or "
            "model.options.teacher_forcing=False."
        )


def _is_spec(action) -> bool:
    return isinstance(action, tuple) and all(
        axis in (None, "data", "fsdp", "tensor") for axis in action
    )


def _check_stages(config) -> None:
    if not config.stage_order:
        raise UserError("config.stage_order is empty; a run needs at least one stage (add_stage).")
    for name in config.stage_order:
        if name not in config.stages:
            raise UserError(
                f"config.stage_order names {name!r}, which is no stage."
                + nearest_or_known(name, list(config.stages))
            )
        stage = config.stages[name]
        steps(stage.duration, 1, 1)
        for pattern in stage.trainable:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"config.stages.{name}.trainable holds {pattern!r}, which is no regular "
                    f"expression: {error}."
                ) from error
        check_stage(stage, f"config.stages.{name}")
    if len(set(config.stage_order)) != len(config.stage_order):
        raise UserError(f"config.stage_order {config.stage_order} names a stage twice.")


def _check_scan(config) -> None:
    """Refuses rules that name a block where scanned blocks share one stack of parameters."""
    if not get(config, "model.options.scan"):
        return
    rules_by_key = {"sharding_rules": [regex for regex, _ in config.sharding_rules]}
    for name in config.stage_order:
        stage = config.stages[name]
        rules_by_key[f"stages.{name}.trainable"] = stage.trainable
        for key in ("decay_rules", "multiplier_rules"):
            rules_by_key[f"stages.{name}.optimizer.{key}"] = [
                regex for regex, _ in stage.optimizer[key]
            ]
    for key, patterns in rules_by_key.items():
        for pattern in patterns:
            if "blocks_" in pattern:
                raise UserError(
                    f"config.{key} holds {pattern!r}, but with config.model.options.scan=True all "
                    "blocks are one stack, 'blocks', and none has a number; set scan=False."
                )


def check_stage(stage: ml_collections.ConfigDict, where: str) -> None:
    """Refuses impossible settings of a stage.

    Arguments:
      stage: settings of a stage; only those of `keys.STAGE_KEYS` are checked.
      where: path of the stage for messages, such as "config.stages.head".

    Raises:
      UserError: a missing setting or an impossible value; the message says what is allowed.
    """
    for key in keys.STAGE_KEYS:
        node = stage
        for part in key.name.split("."):
            if part not in node:
                raise UserError(f"{where}.{key.name} is missing; see config.default_stage().")
            node = node[part]
        key.check(node, f"{where}.{key.name}")
    for name, words in (("decay_rules", (keys.MATRICES,)), ("multiplier_rules", ())):
        check_rules(
            stage.optimizer[name],
            functools.partial(_is_factor, words),
            f"a number of at least 0 (or {', '.join(['True', *map(repr, words)])} or False)",
            f"{where}.optimizer.{name}",
        )
    _check_warmup(stage, where)
    _check_decay(stage.decay, f"{where}.decay")


def _is_factor(words: tuple[str, ...], value: Any) -> bool:
    return value in words or isinstance(value, bool) or (is_number(value) and value >= 0)


def _check_warmup(stage: ml_collections.ConfigDict, where: str) -> None:
    name = stage.warmup.name
    if name in ("linear", "exponential", "noam") and stage.warmup.steps <= 0:
        raise UserError(
            f"{where}.warmup.steps is {stage.warmup.steps}; it must be above 0 with the {name} "
            "warm-up."
        )
    if name.startswith("untuned") and stage.optimizer.name == "sgd":
        raise UserError(
            f"{where}.warmup.name is {name!r}; choose linear or exponential: sgd has no b2 to "
            "take the period from."
        )
    if name != "noam":
        return
    if stage.warmup.dim <= 0:
        raise UserError(
            f"{where}.warmup.dim is {stage.warmup.dim}; with the noam warm-up it must be the width "
            "of the model."
        )
    if stage.decay.name != "constant":
        raise UserError(
            f"{where}.decay.name is {stage.decay.name!r}; use 'constant' with the noam warm-up, "
            "which decays by itself."
        )


def _check_decay(settings: ml_collections.ConfigDict, where: str) -> None:
    if settings.name == "exponential" and settings.end_factor <= 0:
        raise UserError(
            f"{where}.end_factor is {settings.end_factor}; it must be above 0 with the "
            "exponential decay."
        )
    edges = settings.boundaries
    if settings.name == "step" and not (
        edges and all(is_number(edge) and 0 < edge < 1 for edge in edges)
    ):
        raise UserError(
            f"{where}.boundaries is {edges!r}; give one or more fractions of the stage between 0 "
            "and 1, such as (0.6, 0.8)."
        )
