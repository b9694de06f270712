"""Measures a step in a process of its own, with as many fake devices as it takes."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Sequence

from jaxcxr.errors import RunError, UserError
from jaxcxr.plan.planning import Needs, Traffic

_RESULT = "plan: "


def to_line(needs: Needs) -> str:
    """The line by which the process tells what it measured."""
    return _RESULT + json.dumps(dataclasses.asdict(needs))


def needs(program: Sequence[str], devices: int) -> Needs:
    """Runs a program that measures.

    Arguments:
      program: command line of a program that prints `to_line`.
      devices: fake CPU devices to give it.

    Raises:
      UserError: it ended with code 2; the message is its last line.
      RunError: it failed.
    """
    forced = f"--xla_force_host_platform_device_count={devices}"
    env = {
        **os.environ, "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip(),
    }
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("jaxcxr: "))
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(
            f"the process that compiles the step ended with code {done.returncode}: {last}"
        )
    values = json.loads(lines[-1].removeprefix(_RESULT))
    values["traffic"] = tuple(
        Traffic(**{**part, "axes": tuple(part["axes"])}) for part in values["traffic"]
    )
    return Needs(**values)
