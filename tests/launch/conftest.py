"""Stand-ins for the programs that the launch scripts call."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"


class Shell:
    """Runs scripts with programs of the test's own before all others on the PATH.

    Each program writes its name and arguments into `calls` and then does what the test says.
    """

    def __init__(self, folder):
        self.folder, self._log = folder, folder / "calls.txt"
        self._log.touch()

    def program(self, name, body="exit 0"):
        path = self.folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {self._log}\n{body}\n')
        path.chmod(0o755)

    def python(self):
        """`python` is the trainer over toy data."""
        toy = LAUNCH.parent / "tests" / "launch" / "toy_main.py"
        self.program("python", f'if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi\n'
                               f'exec {sys.executable} {toy} "$@"')

    def start(self, *command, **variables):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("SLURM", "JAX_", "XLA_FLAGS"))}
        env.update(variables, PATH=f"{self.folder}:{os.environ['PATH']}")
        return subprocess.Popen(["bash", *map(str, command)], cwd=self.folder, env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *command, seconds=60, **variables):
        process = self.start(*command, **variables)
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output

    @property
    def calls(self):
        return self._log.read_text().splitlines()


@pytest.fixture
def shell(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    return Shell(folder)
