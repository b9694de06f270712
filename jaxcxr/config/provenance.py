"""Records the versions of packages and the git commit of the code."""

import importlib.metadata
import pathlib
import platform
import subprocess


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


def _git_commit() -> str:
    root = pathlib.Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
