"""Imports go one way: no circle of files or of packages, and a room imports only what it may.

Imports inside functions count. What a config names (tasks, data sources, models) is opened by
`jaxcxr.registry`, by name, and is no import. `docs/architecture.md` repeats the table.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxcxr"

# Room -> rooms that it may import.
_BASE = {"errors", "registry"}
_TRAINER = _BASE | {"config", "data", "models", "task"}
_TASK = _TRAINER | {"statistics", "report"}
_ABOVE = _TASK | {"xray", "pose", "train", "plan"}
MAY_IMPORT = {
    "errors": set(), "statistics": set(), "registry": {"errors"}, "task": {"errors", "registry"},
    "report": {"errors", "statistics"}, "config": _BASE, "data": {"config", *_BASE},
    "models": _BASE, "xray": _TASK, "pose": _TASK, "train": _TRAINER,
    "plan": _TRAINER | {"statistics", "report", "train"},
    "deploy": _ABOVE | {"deploy"}, "study": _ABOVE | {"study"}, "bench": _ABOVE | {"bench"},
    "commands": _ABOVE | {"deploy", "study", "bench", "main"},
    "main": _ABOVE, "__main__": _ABOVE | {"main", "commands"},
}

# The only files that may import what is forbidden elsewhere.
FORBIDDEN = ("torch", "tensorflow", "torchvision", "timm", "clu", "pickle", "cloudpickle")
ALLOWED = {
    # Restricted unpicklers: they execute nothing that a file says.
    ("jaxcxr/models/weights/torch_files.py", "pickle"),
    ("jaxcxr/data/object_arrays.py", "pickle"),
    # A program of its own, which nothing imports.
    ("jaxcxr/deploy/export/tensorflow_program.py", "tensorflow"),
}


def modules():
    """Dotted name -> file, of the whole package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path):
    """What a file imports, anywhere in it: `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph():
    """Module -> modules of the package that it imports."""
    files = modules()
    edges = {}
    for name, path in files.items():
        targets = set()
        for target in imported(path):
            while target and target not in files:
                target = target.rpartition(".")[0]
            if target and target not in (name, "jaxcxr"):
                targets.add(target)
        edges[name] = targets
    return edges


def circles(edges):
    """Strongly connected components of more than one node (Tarjan 1972)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in number:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], number[target])
        if low[node] == number[node]:
            part = stack[stack.index(node):]
            del stack[stack.index(node):]
            if len(part) > 1:
                found.append(sorted(part))

    for node in edges:
        if node not in number:
            visit(node)
    return found


def package_of(module, files):
    """The folder of a module; a package's `__init__` counts as one of its own."""
    return module if files[module].name == "__init__.py" else module.rpartition(".")[0]


def room_of(module):
    return module.split(".")[1]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == []


def test_no_circle_of_files():
    assert circles(graph()) == []


def test_no_circle_of_packages():
    files, edges = modules(), {}
    for name, targets in graph().items():
        package = package_of(name, files)
        if files[name].name == "__init__.py" and targets:
            continue  # what a package offers from its own files is no step up
        edges.setdefault(package, set()).update(
            package_of(target, files) for target in targets
            if package_of(target, files) not in (package, "jaxcxr")
        )
    assert circles(edges) == []


def test_a_room_imports_only_the_rooms_it_may():
    breaches = {
        (name, target) for name, targets in graph().items() if name != "jaxcxr"
        for target in targets
        if room_of(target) != room_of(name) and room_of(target) not in MAY_IMPORT[room_of(name)]
    }
    assert breaches == set()


def test_the_table_names_every_room_and_no_other():
    assert {room_of(name) for name in modules() if name != "jaxcxr"} == set(MAY_IMPORT)


def test_files_have_names_of_their_own():
    names = {}
    for path in modules().values():
        if path.name != "__init__.py":
            names.setdefault(path.name, []).append(path.parent.name)
    mirrored = {"task.py", "losses.py", "augment.py"}  # of both tasks
    shared = {name: folders for name, folders in names.items() if len(folders) > 1}
    assert set(shared) <= mirrored, shared


@pytest.mark.parametrize("forbidden", FORBIDDEN)
def test_no_file_imports_other_frameworks_or_pickle(forbidden):
    found = {
        (str(path.relative_to(ROOT)), forbidden) for path in modules().values()
        if any(target.split(".")[0] == forbidden for target in imported(path))
    }
    assert found <= ALLOWED


@pytest.mark.parametrize("module", ["jaxcxr.main", "jaxcxr.config", "jaxcxr.commands.prepare"])
def test_processes_that_make_data_do_not_load_jax(module):
    code = f"import sys, {module}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
