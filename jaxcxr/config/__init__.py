"""Configuration: the defaults of every key, their validation, and durations.

A config file starts from `default(task)` and changes what its experiment needs; the tree is locked,
so that a misspelt key fails at once. `validate` checks values before any device is touched.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess

import ml_collections

from jaxcxr import models, registry
from jaxcxr.errors import UserError, did_you_mean
from jaxcxr.train import optim
from jaxcxr.xray import augment

TASKS = ("cxr", "pose")

# Keys that may differ between the run that wrote a workdir and the run that resumes it: they
# change where and how fast the run computes, not what it computes.
RESUME_MAY_CHANGE = (
    r"^mesh\.", r"^parallel$", r"^log_every$", r"^data\.(dir|threads|prefetch|workers)$",
    r"^checkpoint\.keep$", r"^report\.", r"^watchdog$",
    r"^calibration\.", r"^model\.options\.remat$",
)

_DURATION = re.compile(r"^\s*(\d+\.?\d*(?:e\d+)?)\s*(steps?|epochs?|examples?)\s*$")

_LOSS = {
    "cxr": {
        "cxr": "bce", "focal_gamma": 2.0, "class_weights": "thesis", "effective_beta": 0.9999,
    },
    # Weights of the terms of jaxcxr/pose/losses.py, which says their units.
    "pose": {
        "position": 1.0,
        "n_mpjpe": 0.0,
        "velocity": 0.0,
        "acceleration": 0.0,
        "bone_length": 0.0,
        "symmetry": 0.0,
        "likelihood": 0.0,  # needs a model with uncertainty=True
        "root": 0.0,  # needs a model with trajectory=True
        "joint_weights": "uniform",
    },
}


def default(task: str) -> ml_collections.ConfigDict:
    """Every key with its default value, for one task.

    Arguments:
      task: "cxr" or "pose".

    Returns:
      A locked ConfigDict. `stages` is empty: a config file adds at least one with `add_stage`.

    Raises:
      UserError: no such task.
    """
    if task not in TASKS:
        raise UserError(f"task is {task!r}; allowed: {', '.join(TASKS)}.")
    cxr = task == "cxr"
    config = ml_collections.ConfigDict({
        "task": task,
        "seed": 0,
        "batch_size": 32,  # examples per optimiser step, over all devices and hosts
        "accumulate": 1,  # micro-batches per optimiser step
        "dtype": "float32",  # of activations; parameters are float32
        "parallel": "jit",  # "pmap": the same step function, one host
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},  # -1: all remaining devices
        "sharding_rules": (),  # before the defaults of train/parallel.py
        "data": {
            "source": "chest_phantom" if cxr else "motion_phantom",
            "options": {},  # of the source's builder; they name the prepared variant
            "dir": "",  # "": TFDS's default ($TFDS_DATA_DIR or ~/tensorflow_datasets)
            "image_size": 64,  # cxr: pixels a side fed to the model
            "frames": 27,  # pose: frames per training window
            "stride": 9,  # pose: frames between training windows
            "target": "sequence",  # pose: or center, one frame is lifted from each window
            "sampling": "plain",  # cxr: or class_balanced, source_balanced
            "labels": "",  # cxr: csv with the training split's labels; "": the recorded ones
            "folds": 0,  # cxr: parts of the training split, by patient; 0: it is one whole
            "fold_seed": 0,
            "left_out": (),  # cxr: numbers of the folds not trained on
            "threads": 2,
            "prefetch": 4,  # batches decoded ahead
            "workers": 0,  # processes that generate a phantom; 0: one per core
        },
        "augment": (augment.xray_defaults() if cxr else augment.pose_defaults()).to_dict(),
        "model": {"name": "resnet50" if cxr else "pose_temporal", "options": {}, "pretrained": ""},
        "loss": _LOSS[task],
        "stage_order": (),
        "stages": {},
        "ema_decay": 0.0,  # 0: no average of the parameters is kept
        "log_every": 10,
        "evaluate_every": "1 epoch",
        "checkpoint": {
            "every": "1 epoch",
            "keep": 2,  # newest; the best by `monitor` is kept besides
            "monitor": "auroc" if cxr else "mpjpe",
            "mode": "max" if cxr else "min",
        },
        "report": {"samples": 12},
        "watchdog": "30 minutes",  # without progress the run ends with all stacks; "0": never
        # Fitted on the validation split at the end of a run, see analysis/calibrate.py.
        **({"calibration": {"method": "platt", "threshold": "f1", "target": 0.9}} if cxr else {}),
    })
    return config.lock()


def set_model(config, name: str, **options) -> None:
    """Choose the model: every option with its default, so that the command line can override it.

    Arguments:
      config: a config of `default`.
      name: a name of `jaxcxr.models`.
      **options: the options to change.

    Raises:
      UserError: unknown model or option; the message names the nearest.
    """
    known = registry.model_options(name)
    for key in options:
        if key not in known:
            raise UserError(f"model {name!r} has no option {key!r}.{nearest(key, known)}")
    with config.unlocked():
        config.model.name = name
        config.model.options = ml_collections.ConfigDict({**known, **options})


def set_source(config, name: str, **options) -> None:
    """Choose the data source and the options that name its prepared variant.

    Raises:
      UserError: unknown source or option; the message names the nearest.
    """
    known = source_options(name)
    for key in options:
        if key not in known:
            raise UserError(f"data source {name!r} has no option {key!r}.{nearest(key, known)}")
    with config.unlocked():
        config.data.source = name
        config.data.options = ml_collections.ConfigDict({**known, **options})


def source_options(name: str) -> dict:
    """Options of a source that a config may set, with their defaults."""
    return registry.source_options(name)


def add_stage(config, name: str, duration: str, trainable=(".*",), **changes) -> None:
    """Append a training stage.

    Arguments:
      config: a config of `default`.
      name: name of the stage, shown in logs and used in overrides (`--config.stages.NAME...`).
      duration: e.g. "300 steps", "5 epochs", "1e6 examples".
      trainable: regular expressions; a parameter whose path matches none of them is frozen, and
        a BatchNorm layer so frozen uses and keeps its running statistics.
      **changes: dotted keys of `optim.default_stage` with "." written as "__", e.g.
        `optimizer__name="radam"`.
    """
    stage = optim.default_stage()
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    stage.update_from_flattened_dict(flat)
    with config.unlocked(), stage.unlocked():
        stage.duration = duration
        stage.trainable = tuple(trainable)
        config.stages[name] = stage
        config.stage_order = (*config.stage_order, name)


def steps(duration: str, data_size: int, batch_size: int) -> int:
    """Number of optimiser steps of a duration such as "3 epochs"; at least 1.

    Arguments:
      duration: a number and "steps", "epochs" or "examples".
      data_size: examples in the training split.
      batch_size: examples per step.

    Raises:
      UserError: not a duration.
    """
    return max(1, round(_exact_steps(duration, data_size, batch_size)))


def due(step: int, every: str, data_size: int, batch_size: int) -> bool:
    """Whether what happens once per duration `every` happens after step `step`.

    Four times "5 epochs" is due exactly at the end of "20 epochs", also where an epoch is not a
    whole number of steps.

    Arguments:
      step: optimiser steps done, from 1.
      every: a duration, see `steps`.
      data_size: examples in the training split.
      batch_size: examples per step.
    """
    exact = max(1.0, _exact_steps(every, data_size, batch_size))
    return round(step / exact) > 0 and step == round(round(step / exact) * exact)


def _exact_steps(duration: str, data_size: int, batch_size: int) -> float:
    match = _DURATION.match(str(duration))
    if not match or float(match[1]) <= 0:
        raise UserError(
            f"{duration!r} is not a duration; write a positive number and a unit, such as "
            "'300 steps', '5 epochs' or '1e6 examples'."
        )
    number, unit = float(match[1]), match[2].rstrip("s")
    if unit == "step":
        return number
    examples = number * data_size if unit == "epoch" else number
    return examples / batch_size


def validate(config) -> None:
    """Check every value that can be checked without data or devices.

    Raises:
      UserError: a value is impossible; the message names the key, the value and what is allowed.
    """
    from jaxcxr.config import checks  # it needs the defaults above

    checks.check(config)


def get(config, dotted: str):
    """Value at a dotted key, None where the key does not exist for this task."""
    for part in dotted.split("."):
        if part not in config:
            return None
        config = config[part]
    return config


def flatten(config) -> dict:
    """The config as {dotted key: value}, JSON types only (tuples become lists)."""
    flat = {}

    def visit(node, prefix):
        for key in sorted(node):
            if isinstance(node[key], dict):
                visit(node[key], f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = node[key]

    visit(json.loads(config.to_json_best_effort()), "")
    return flat


def from_saved(saved: dict):
    """The config that a workdir's config.json holds; JSON's lists become tuples again.

    A key that did not exist when the run was made has its default, which is what the run did.

    Raises:
      UserError: it is no config of a run.
    """
    if saved.get("task") not in TASKS:
        raise UserError(
            f"config.json of the workdir names no task but {saved.get('task')!r}; it is not that "
            "of a run: give another --workdir."
        )

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    config = default(saved["task"])
    with config.unlocked(), config.ignore_type():
        config.update(ml_collections.ConfigDict(tuples(saved)))
        if config.model.options and config.model.name in registry.MODELS:
            known = registry.model_options(config.model.name)
            config.model.options = ml_collections.ConfigDict({**known, **config.model.options})
    return config


def difference(config, saved: dict) -> list[str]:
    """Lines "key: saved -> now" for the keys whose change would make this another experiment.

    A key that did not exist when the run was made counts as its default, see `from_saved`.

    Arguments:
      config: the config of this run.
      saved: the `config` entry of a workdir's config.json.
    """
    now = flatten(config)
    before = flatten(from_saved(saved))
    lines = []
    for key in sorted(now.keys() | before.keys()):
        changed = now.get(key) != before.get(key)
        if changed and not any(re.search(pattern, key) for pattern in RESUME_MAY_CHANGE):
            lines.append(f"{key}: {before.get(key)!r} -> {now.get(key)!r}")
    return lines


def provenance() -> dict:
    """Versions of what computes, and the git commit of the code where there is one."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
                "tensorflow-datasets", "numpy", "scikit-learn", "jaxcxr")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {"python": platform.python_version(), "packages": versions, "git": _git_commit()}


def _git_commit() -> str:
    root = pathlib.Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def nearest(key: str, known) -> str:
    """The end of a message about a key that is not among the known ones."""
    return did_you_mean(key, known, 0.5) or f" Known: {', '.join(map(str, known))}."
