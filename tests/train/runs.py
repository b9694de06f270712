"""Toy runs in this process and in others, and what they leave in their workdirs."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxcxr import task
from jaxcxr.models.sequence import look
from jaxcxr.pose.report import error_report, pose_figures
from jaxcxr.pose.task import PoseTask
from jaxcxr.report import canvas, curves
from jaxcxr.train import checkpoint, loop, parallel, setup, writers
from jaxcxr.train import state as state_lib
from jaxcxr.xray.task import XrayTask
from tests import toys

PROGRAM = pathlib.Path(__file__).with_name("run_toy.py")
TIMES = ("examples_per_second", "data_wait")


@contextlib.contextmanager
def toy_run(devices=8, stop_at=None, figures=False):
    """Toy data, the first `devices` devices, and a SIGTERM after step `stop_at`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "create", toys.create)
        if devices < 8:
            mesh = jax.sharding.Mesh(
                np.array(jax.devices()[:devices]).reshape(devices, 1, 1), parallel.AXES
            )
            patch.setattr(parallel, "make_mesh", lambda config: mesh)
        if stop_at is not None:
            patch.setattr(loop.SigTerm, "received", lambda self, step: step == stop_at)
        if not figures:
            patch.setattr(
                curves, "curves_figure", lambda *args: canvas.new_figure(1, 1)
            )
            patch.setattr(look, "at_examples", lambda *args: None)
            for module in (error_report, pose_figures):
                patch.setattr(module, "write", lambda *args: None)
            for task_class in (PoseTask, XrayTask):
                patch.setattr(task_class, "page", lambda *args: None)
        yield patch


def train(workdir, config=None, **how):
    with toy_run(**how):
        return loop.train(config or toys.two_stages(), workdir, writers.Screen(quiet=True))


def saved_steps(workdir):
    """Steps of the complete checkpoints; a killed run leaves folders of another name."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def saved_state(workdir, step, config=None):
    """Host copy of a checkpoint's state."""
    config = config or toys.two_stages()
    with toy_run(devices=1):
        run = setup.make(config)
        with contextlib.closing(checkpoint.Checkpoints(workdir, config)) as checkpoints:
            stage = state_lib.stage_at(run.stages, step)
            return jax.device_get(checkpoints.restore(step, run.abstract_state(stage)))


def lines(workdir, *kinds):
    """Records of metrics.jsonl without those that measure time."""
    records = curves.read_metrics(workdir / "metrics.jsonl")
    return [
        {k: v for k, v in record.items() if k not in TIMES}
        for record in records if not kinds or record["kind"] in kinds
    ]


def assert_same(left, right):
    """Both trees are equal bit for bit; what differs is named."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    pairs = zip(jax.tree.leaves_with_path(left), jax.tree.leaves(right), strict=True)
    differing = [jax.tree_util.keystr(path) for (path, a), b in pairs if not np.array_equal(a, b)]
    assert differing == []


def start(workdir, compiled, *more, devices=8, **environment):
    """Starts the toy run as a program of its own."""
    env = {
        **os.environ, **environment, "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, str(PROGRAM), str(workdir), f"--devices={devices}", *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)


def wait_for(process, path, seconds=120):
    """Waits until a path exists, while the process lives."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)
