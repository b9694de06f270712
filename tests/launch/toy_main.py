"""What `python -m jaxcxr.main` is, over toy data: the launch scripts' `python` in tests.

    toy_main.py -m jaxcxr.main --config=toy --workdir=DIR [...]
"""

import pathlib
import sys

import jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from jaxcxr import main, task
from tests import toys


def get_config():
    """A short run of the X-ray task."""
    return toys.xray_config(
        stages__all__duration="2 steps", evaluate_every="2 steps", checkpoint__every="1 step"
    )


if __name__ == "__main__":
    assert sys.argv[1:3] == ["-m", "jaxcxr.main"], sys.argv
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_disable_most_optimizations", True)
    task.create = toys.create
    rest = [argument.replace("--config=toy", f"--config={__file__}") for argument in sys.argv[3:]]
    main.run(["jaxcxr", *rest])
