"""Imports go downwards only; tests/train/test_loop.py looks at what a whole run has loaded."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxcxr"


def imports(path):
    """Modules that a file imports, anywhere in it: `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(module, packages):
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def breaches(folder, forbidden):
    return {
        (str(path.relative_to(ROOT)), module)
        for path in sorted(PACKAGE.glob(folder)) for module in imports(path)
        if within(module, forbidden)
    }


ABOVE_TRAIN = ("jaxcxr.main", "jaxcxr.__main__", "jaxcxr.bench", "jaxcxr.study.out_of_fold", "jaxcxr.study",
               "jaxcxr.deploy.pruned_run", "jaxcxr.commands.predict", "jaxcxr.deploy.predict.xray_predictor", "jaxcxr.deploy.predict.lifter",
               "jaxcxr.deploy.bundle", "jaxcxr.deploy.export", "jaxcxr.commands.render", "jaxcxr.deploy.serve",
               "jaxcxr.commands.stress")


@pytest.mark.parametrize(("folder", "forbidden"), [
    ("metrics/**/*.py", ("jax", "flax", "optax", "jaxcxr")),
    ("models/**/*.py", ("jaxcxr.data", "jaxcxr.task", "jaxcxr.train", *ABOVE_TRAIN)),
    ("data/**/*.py", ("jaxcxr.models", "jaxcxr.task", "jaxcxr.train", *ABOVE_TRAIN)),
    ("analysis/**/*.py", ("jaxcxr.train", *ABOVE_TRAIN)),
    ("tasks/**/*.py", ("jaxcxr.train", *ABOVE_TRAIN)),
    ("train/**/*.py", ("jaxcxr.xray.task", "jaxcxr.pose.task", *ABOVE_TRAIN)),
    ("**/*.py", ("torch", "tensorflow", "torchvision", "timm", "clu", "pickle", "cloudpickle")),
])
def test_a_room_imports_only_what_lies_below(folder, forbidden):
    assert list(PACKAGE.glob(folder))
    # The restricted unpicklers.
    allowed = {
        ("jaxcxr/models/weights/weight_files.py", "pickle"), ("jaxcxr/pose/formats/object_arrays.py", "pickle"),
        # Programs of their own, which nothing imports.
        ("jaxcxr/deploy/export/tensorflow_program.py", "tensorflow"),
        *(("jaxcxr/bench/torch_peer.py", name) for name in ("torch", "torchvision", "timm")),
    }
    found = breaches(folder, forbidden)
    if folder.startswith("metrics"):
        found = {item for item in found if not item[1].startswith("jaxcxr.statistics")}
    assert {(path, module) for path, module in found
            if (path, module.partition(".")[0]) not in allowed} == set()


def test_processes_that_make_data_do_not_load_jax():
    code = "import sys, jaxcxr.main; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
