"""Speaks with `torch_peer.py`, which runs in a process of its own and perhaps another Python."""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

from jaxcxr.errors import RunError, UserError

_SCRIPT = pathlib.Path(__file__).with_name("torch_peer.py")


class Peer:
    """The torch counterpart of a training step.

    Attributes:
      parameters: how many it has.
      how: "eager" or what torch.compile does.
      version: of torch.
      device: "cpu" or "cuda".
      memory: bytes it needed at most on a GPU, None elsewhere.

    Arguments:
      python: path of a Python that has torch.
      spec: see `train_spec.of`.

    Raises:
      UserError: it cannot be built; the message holds its last words.
    """

    def __init__(self, python: str, spec: dict[str, Any]):
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed by close()
        # -P: the folder of the script holds modules that are no one's business there.
        command = [python, "-P", str(_SCRIPT), json.dumps(spec)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                text=True,
            )
        except OSError as error:
            raise UserError(f"--peer-python={python}: {error.strerror}.") from error
        built = self._read()
        if built is None:
            said = self.close()
            raise UserError(
                f"the torch counterpart did not start in {python}: {said}; install the extra "
                "`oracles`, or name a Python that has torch, torchvision and timm with "
                "--peer-python."
            )
        self.parameters, self.how = built["parameters"], built["how"]
        self.version, self.device, self.memory = built["version"], spec["device"], None

    def run(self, count: int) -> list[tuple[float, float]]:
        """Seconds and CPU seconds of each of so many steps.

        Raises:
          RunError: the process has ended.
        """
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        found = self._read()
        if found is None:
            raise RunError(f"the torch counterpart ended: {self.close()}.")
        self.memory = found["memory"]
        return [tuple(pair) for pair in found["steps"]]

    def close(self) -> str:
        """Ends the process and returns the last line of its error output."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()] or ["it said nothing"]
        self._errors.close()
        return lines[-1]

    def _read(self) -> dict[str, Any] | None:
        line = self._process.stdout.readline()
        return json.loads(line) if line else None
