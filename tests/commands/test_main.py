"""The command line: every mistake is one clear message and exit code 2, before a device is used."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxcxr import __main__ as command
from jaxcxr import main

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONFIG = """
from jaxcxr import config as base
def get_config():
    config = base.default("cxr")
    base.set_model(config, "resnet18", stages=(1, 1, 1, 1), width=4, stem="small")
    base.add_stage(config, "all", "2 steps")
    config.data.source = "chestxray14"
    {line}
    return config
"""

# What is no mistake in the config may be found with the devices at hand.
LATER = ("unprepared data", "workdir that cannot be")

# Run in a fresh process: (code, stderr, whether a device was touched) of each command line.
PROGRAM = """
import contextlib, io, json, sys
from absl import flags
from jax._src import xla_bridge
from jaxcxr import main
results = []
for arguments in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    sys.argv, errors, code = ["jaxcxr", *arguments], io.StringIO(), 0
    with contextlib.redirect_stderr(errors):
        try:
            main.run()
        except SystemExit as exit:
            code = exit.code
    results.append((code, errors.getvalue(), xla_bridge.backends_are_initialized()))
print(json.dumps(results))
"""


def run_all(arguments):
    """Results of `PROGRAM`, whose process must not print anything else."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], cwd=ROOT, capture_output=True,
        text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """name -> (arguments, parts of the message)."""
    folder = tmp_path_factory.mktemp("configs")

    def config(name, line):
        path = folder / f"{name}.py"
        path.write_text(CONFIG.format(line=line))
        return f"--config={path}"

    good, workdir = config("good", "pass"), f"--workdir={folder / 'run'}"
    (folder / "file").touch()
    return {
        "misspelt group": ([good, "--config.modle.name=x", workdir], ["modle", "'model'"]),
        "misspelt key": ([good, "--config.batch=4", workdir], ["batch", "'batch_size'"]),
        "misspelt option": ([good, "--config.model.options.widht=4", workdir],
                            ["widht", "'width'"]),
        "misspelt key in the file": ([config("key", "config.batchsize = 4"), workdir],
                                     ["batchsize", "'batch_size'"]),
        "misspelt key past the lock": (
            [config("unlocked", 'config.unlock(); config.batchsize = 4'), workdir],
            ["batchsize", "'batch_size'"]),
        "word for a number": ([good, "--config.batch_size=many", workdir],
                              ["config.batch_size=many", "int"]),
        "impossible number": ([good, "--config.batch_size=0", workdir],
                              ["config.batch_size is 0", "at least 1"]),
        "other model's options": ([good, "--config.model.name=vit_tiny", workdir],
                                  ["vit_tiny", "no option 'bottleneck'"]),
        "no file": ([f"--config={folder}/absent.py", workdir], ["absent.py", "No such file"]),
        "no Python": ([config("syntax", "config. = 1"), workdir], ["syntax", "syntax.py"]),
        "no module": ([config("module", "import absent_module"), workdir], ["absent_module"]),
        "no config": ([workdir], ["--config is missing", "--config=configs/demo.py"]),
        "no workdir": ([good], ["--workdir is missing"]),
        "unknown flag": ([good, workdir, "--wrokdir=x"], ["wrokdir", "workdir"]),
        "unknown mode": ([good, workdir, "--mode=eval"], ["mode=eval", "train|evaluate"]),
        "stray word": ([good, workdir, "train"], ["unexpected argument 'train'"]),
        "variant": (["--config=configs/demo.py:puse", workdir], ["puse", "pose"]),
        "nothing to evaluate": ([workdir, "--mode=evaluate"], ["holds no run", "train first"]),
        "unprepared data": ([good, workdir, f"--config.data.dir={folder}"],
                            ["jaxcxr prepare chestxray14", "--raw"]),
        "workdir that cannot be": ([good, f"--workdir={folder / 'file' / 'run'}"],
                                   ["cannot write", "another --workdir"]),
    }


@pytest.fixture(scope="module")
def results(cases):
    return dict(zip(cases, run_all([arguments for arguments, _ in cases.values()]), strict=True))


def test_every_mistake_ends_with_code_2_before_a_device_is_touched(results):
    for name, (code, _, touched) in results.items():
        assert (name, code) == (name, 2)
        assert not touched or name in LATER, name


def test_every_message_names_the_mistake_and_the_remedy(cases, results):
    for name, (_, parts) in cases.items():
        message = results[name][1]
        assert message.startswith("jaxcxr: "), (name, message)
        assert "Traceback" not in message, name
        assert len(message) < 600, (name, message)
        for part in parts:
            assert part in message, (name, part, message)


def test_debug_shows_where_a_mistake_was_found(cases):
    arguments, _ = cases["no workdir"]
    done = subprocess.run([sys.executable, "-m", "jaxcxr", "train", *arguments, "--debug"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "--workdir is missing" in done.stderr


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_the_command_is_the_trainer_with_a_mode(monkeypatch, mode):
    seen = []
    monkeypatch.setattr(main, "run", seen.append)
    command.run([mode, "--config=F", "--workdir=D"])
    assert seen == [["jaxcxr", "--config=F", "--workdir=D", f"--mode={mode}"]]


def test_an_unknown_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        command.run(["prepar"])
    assert caught.value.code == 2
    assert "Did you mean 'prepare'?" in capsys.readouterr().err


def test_help_lists_the_commands_and_the_trainers_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        command.run(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("train", "evaluate", "prepare"))
    with pytest.raises(SystemExit) as caught:
        command.run(["train", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("config", "workdir", "mode", "debug"))


def test_every_command_has_the_functions_the_program_calls():
    import importlib

    for name in command.COMMANDS.keys() - {"train"}:
        loaded = importlib.import_module(f"jaxcxr.commands.{name}")
        assert callable(loaded.add_arguments)
        assert callable(loaded.run)
    files = {path.stem for path in (ROOT / "jaxcxr" / "commands").glob("*.py")} - {"__init__"}
    assert files == command.COMMANDS.keys() - {"train"}  # of `evaluate` it is the part with --data


def test_arguments_are_read_in_commands_alone():
    reading = {
        str(path.relative_to(ROOT / "jaxcxr")) for path in (ROOT / "jaxcxr").rglob("*.py")
        if "import argparse" in path.read_text(encoding="utf-8")
    }
    assert {path for path in reading if not path.startswith("commands/")} == {"__main__.py"}


def test_who_stops_reading_gets_no_traceback(tmp_path):
    (tmp_path / "l.csv").write_text("image,Mass\na,1\nb,0\nc,1\nd,0\n")
    command = [sys.executable, "-m", "jaxcxr", "score", "--labels", str(tmp_path / "l.csv"),
               "--predictions", str(tmp_path / "l.csv"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")
    assert (tmp_path / "out" / "metrics.json").exists()
