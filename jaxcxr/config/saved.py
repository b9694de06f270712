"""Reads and compares the config of config.json, and records what computes beside it."""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys

import ml_collections

from jaxcxr import registry
from jaxcxr.config.experiment import default
from jaxcxr.errors import UserError

# Keys that may differ between the run that wrote a workdir and the run that resumes it: they
# change where and how fast the run computes, not what it computes.
RESUME_MAY_CHANGE = (
    r"^mesh\.", r"^parallel$", r"^log_every$", r"^data\.(dir|threads|prefetch|workers)$",
    r"^checkpoint\.keep$", r"^report\.", r"^watchdog$",
    r"^calibration\.", r"^model\.options\.remat$", r"^model\.random_backbone$",
)

# flag of /proc/cpuinfo -> name, the widest first
_INSTRUCTIONS = {"avx512f": "AVX-512", "avx2": "AVX2"}


def get(config, dotted: str):
    """Returns the value at a dotted key; None if the task has no such key."""
    for part in dotted.split("."):
        if part not in config:
            return None
        config = config[part]
    return config


def flatten(config) -> dict:
    """Flattens a config to {dotted key: value} of JSON types (tuples become lists)."""
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
    """Rebuilds the config that config.json holds; JSON's lists become tuples again.

    A key that did not exist when the run was made gets its default, which is what the run did.

    Raises:
      UserError: it is not the config of a run.
    """
    if saved.get("task") not in registry.TASKS:
        raise UserError(
            f"config.json of the workdir names the task {saved.get('task')!r}, which does not "
            "exist: it is not that of a run; give another --workdir."
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
    """Lists "key: saved -> now" for changes that make this another experiment.

    Keys that did not exist when the run was made count as their defaults, see `from_saved`.

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
    """Returns the versions of Python and packages, and the git commit if there is one."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
                "tensorflow-datasets", "numpy", "scikit-learn", "jaxcxr")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {"python": platform.python_version(), "packages": versions, "git": _git_commit()}


def origin() -> dict:
    """Returns what this process is: `provenance`, its command and its kind of machine."""
    return {"command": _command_line(), "machine": _machine(), **provenance()}


def _command_line() -> str:
    """Formats the command of this process as one types it: `jaxcxr ...`, `python -m ...`."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else ""
    if not module:
        program = [pathlib.Path(sys.argv[0]).name]
    elif module == "jaxcxr":
        program = ["jaxcxr"]
    else:
        program = ["python", "-m", module]
    return shlex.join([*program, *sys.argv[1:]])


def _machine() -> str:
    """Describes the kind of machine: accelerators, CPU cores and their instruction set."""
    jax = sys.modules.get("jax")  # what has not imported it has used no accelerator
    devices = jax.devices() if jax else ()
    kinds = [device.device_kind for device in devices if device.platform != "cpu"]
    accelerators = f"{len(kinds)} x {kinds[0]}, " if kinds else ""
    return f"{accelerators}{os.cpu_count()} CPU cores, {_instruction_set()}"


def _instruction_set() -> str:
    name = platform.machine().replace("x86_64", "x86-64").replace("AMD64", "x86-64")
    if name in ("arm64", "aarch64"):
        return f"{name} with NEON"  # part of the architecture
    try:
        flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        return f"{name}, instruction set not recorded"
    widest = next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), "")
    return f"{name} with {widest}" if widest else name


def _git_commit() -> str:
    root = pathlib.Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installation inside another repository, as in its virtual environment, is not of it.
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() == root:
            return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.CalledProcessError):
        pass
    return "not a git checkout"
