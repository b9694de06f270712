"""What a config may hold: every value that can be checked without data or devices."""

import math
import re

import ml_collections

from jaxcxr import models, registry
from jaxcxr.config import TASKS, default, get, nearest, source_options, steps
from jaxcxr.errors import UserError
from jaxcxr.models.layers import remat
from jaxcxr.pose import clips
from jaxcxr.pose import losses as pose_losses
from jaxcxr.statistics import recalibration
from jaxcxr.train import optim, rules, watchdog
from jaxcxr.xray import augment, balance
from jaxcxr.xray.evaluation import calibration

_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "parallel": ("jit", "pmap"),
    "checkpoint.mode": ("max", "min"),
    "model.options.remat": (*remat.NAMES, True, False),
    "loss.cxr": ("bce", "focal"),
    "loss.class_weights": balance.CLASS_WEIGHTS,
    "data.sampling": balance.SAMPLING,
    "data.target": clips.TARGETS,
    "loss.joint_weights": ("uniform", "limbs"),
    "calibration.method": tuple(calibration.METHODS),
    "calibration.threshold": recalibration.THRESHOLD_RULES,
}

# Validation metrics that choose the best checkpoint; "auroc/Effusion" is one class's.
_MONITORS = {
    "cxr": ("auroc", "average_precision"),
    "pose": ("mpjpe", "p_mpjpe", "mpjpe_action_mean"),
}

# key -> (least, greatest)
_RANGES = {
    "batch_size": (1, None),
    "accumulate": (1, None),
    "seed": (0, 2**31 - 1),
    "ema_decay": (0.0, 0.9999999),
    "log_every": (1, None),
    "data.image_size": (8, 4096),
    "data.frames": (1, 4096),
    "data.stride": (1, None),
    "data.folds": (0, 1000),
    "data.fold_seed": (0, 2**31 - 1),
    "data.threads": (0, 256),
    "data.prefetch": (1, None),
    "data.workers": (0, 1024),
    "checkpoint.keep": (1, None),
    "report.samples": (1, 100),
    "calibration.target": (0.01, 0.999),
    "loss.focal_gamma": (0.0, None),
    "loss.effective_beta": (0.0, 0.9999999),
    **{f"loss.{name}": (0.0, None) for name in pose_losses.TERMS},
    "mesh.fsdp": (1, None),
    "mesh.tensor": (1, None),
}


def check(config) -> None:
    """Check every value that can be checked without data or devices.

    Raises:
      UserError: a value is impossible; the message names the key, the value and what is allowed.
    """
    if get(config, "task") not in TASKS:
        raise UserError(
            f"config.task is {get(config, 'task')!r}; allowed: {', '.join(TASKS)}."
        )
    _check_tree(config, default(config.task), prefix="")
    for key, allowed in _CHOICES.items():
        value = get(config, key)
        if value is not None and value not in allowed:
            raise UserError(
                f"config.{key} is {value!r}; allowed: {', '.join(map(repr, allowed))}."
                + nearest(str(value), allowed)
            )
    for key, bounds in _RANGES.items():
        _check_range(key, get(config, key), *bounds)
    if config.batch_size % config.accumulate:
        raise UserError(
            f"config.batch_size ({config.batch_size}) must be a multiple of config.accumulate "
            f"({config.accumulate})."
        )
    if config.mesh.data != -1 and config.mesh.data < 1:
        raise UserError(f"config.mesh.data is {config.mesh.data}; allowed: -1 (all) or at least 1.")
    for key in ("evaluate_every", "checkpoint.every"):
        steps(get(config, key), 1, 1)
    watchdog.seconds(config.watchdog)
    if "://" in config.data.dir:
        raise UserError(
            f"config.data.dir is {config.data.dir!r}; shards are read through the file system: "
            "mount the bucket (gcsfuse BUCKET DIR, mount-s3 BUCKET DIR) and give the folder in DIR."
        )
    if registry.source(config.data.source).task != config.task:
        raise UserError(
            f"config.data.source {config.data.source!r} serves the task "
            f"{registry.source(config.data.source).task!r}, but config.task is {config.task!r}."
        )
    _check_training_rows(config)
    augment.check(config.augment, "config.augment")
    _check_model(config)
    if config.task == "pose":
        _check_pose(config)
    _check_monitor(config)
    rules.check_rules(
        config.sharding_rules, lambda action: action in ("fsdp", "replicate") or _is_spec(action),
        "'fsdp', 'replicate' or a tuple of mesh axes and None", "config.sharding_rules",
    )
    _check_stages(config)
    _check_scan(config)


def _check_tree(config, reference, prefix: str) -> None:
    """Unknown and missing keys, and values of another type than the default's."""
    for key in reference:
        if key not in config:
            raise UserError(f"config.{prefix}{key} is missing; start from config.default(task).")
    for key in config:
        path = f"{prefix}{key}"
        if path in ("stages", "data.options", "model.options"):
            continue
        if key not in reference:
            raise UserError(f"config.{path} is no key.{nearest(key, list(reference))}")
        value, expected = config[key], reference[key]
        if isinstance(expected, ml_collections.ConfigDict):
            if not isinstance(value, ml_collections.ConfigDict):
                raise UserError(f"config.{path} is {value!r}; it must be a group of keys.")
            _check_tree(value, expected, f"{path}.")
        elif not _same_kind(value, expected):
            raise UserError(
                f"config.{path} is {value!r}; it must be of type {type(expected).__name__}."
            )


def _same_kind(value, expected) -> bool:
    if isinstance(expected, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(expected, int) and not isinstance(expected, bool):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type(expected))


def _check_range(key, value, least, greatest) -> None:
    if value is None:  # a key of the other task
        return
    if not least <= value <= (math.inf if greatest is None else greatest):
        allowed = f"at least {least}" + ("" if greatest is None else f" and at most {greatest}")
        raise UserError(f"config.{key} is {value!r}; allowed: {allowed}.")


def _check_training_rows(config) -> None:
    """Which of the training images are trained on, and with whose labels."""
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
    """The model serves the task and has these options, and so has the data source."""
    name = config.model.name
    known = registry.model_options(name)
    if name.startswith("pose_") != (config.task == "pose"):
        fitting = [n for n in registry.MODELS if n.startswith("pose_") == (config.task == "pose")]
        raise UserError(
            f"config.model.name {name!r} does not serve the task {config.task!r}; "
            f"allowed: {', '.join(fitting)}."
        )
    for key in config.model.options:
        if key not in known:
            raise UserError(
                f"model {name!r} has no option {key!r}.{nearest(key, known)} Choose a model "
                "with its options in the config file, by set_model."
            )
    known = source_options(config.data.source)
    for key in config.data.options:
        if key not in known:
            raise UserError(
                f"data source {config.data.source!r} has no option {key!r}.{nearest(key, known)} "
                "Choose a source with its options in the config file, by set_source."
            )


def _check_pose(config) -> None:
    """The terms of the loss have what they need of the model and of the data."""
    options = {**registry.model_options(config.model.name), **config.model.options}
    weights = {name: config.loss[name] for name in pose_losses.TERMS}
    if not any(weights.values()):
        raise UserError("all weights in config.loss are 0; give one at least a positive weight.")
    for term, option in pose_losses.NEEDS.items():
        has = bool(options.get(option))
        if has != bool(weights[term]):
            raise UserError(
                f"config.loss.{term} is {weights[term]} and config.model.options.{option} is "
                f"{has} for {config.model.name!r}: set both, or none."
            )
    if config.data.target == "sequence":
        return
    for term in pose_losses.OVER_TIME:
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


def _check_monitor(config) -> None:
    monitor, allowed = config.checkpoint.monitor, _MONITORS[config.task]
    if monitor.partition("/")[0] not in allowed:
        raise UserError(
            f"config.checkpoint.monitor is {monitor!r}; allowed: {', '.join(allowed)}."
            + nearest(monitor, allowed)
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
                + nearest(name, list(config.stages))
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
        optim.check_stage(stage, f"config.stages.{name}")
    if len(set(config.stage_order)) != len(config.stage_order):
        raise UserError(f"config.stage_order {config.stage_order} names a stage twice.")


def _check_scan(config) -> None:
    """With scanned blocks there is one stack of parameters, and no rule can name a block."""
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
