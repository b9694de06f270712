"""Checkpoints: the train state and the data iterator, saved and restored together by Orbax.

This is the only file that knows Orbax (its V0 API).
"""

import contextlib
import errno
import json
import shutil

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxcxr import config as config_lib
from jaxcxr.errors import RunError, UserError
from jaxcxr.train import private_apis
from jaxcxr.train import workdir as workdir_lib


class Checkpoints:
    """The checkpoints of one workdir: the newest few, and the best by the monitored metric.

    Arguments:
      workdir: folder of the run; checkpoints lie in its `checkpoints/`.
      config: `checkpoint.keep`, `checkpoint.monitor`, `checkpoint.mode`.
    """

    def __init__(self, workdir: epath.Path, config):
        remote = workdir_lib.is_remote(workdir)
        self._directory = epath.Path(workdir) / "checkpoints"
        if not remote:
            self._directory = self._directory.absolute()
        self._monitor = config.checkpoint.monitor
        self._sign = 1.0 if config.checkpoint.mode == "max" else -1.0
        best = checkpoint_managers.BestN(
            get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
        )
        newest = checkpoint_managers.LatestN(n=config.checkpoint.keep)
        private_apis.quiet_orbax()
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_names=("model", "optimizer", "data"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
                best_fn=self._rank,  # without it Orbax keeps the metrics in memory only
                enable_async_checkpointing=True,
            ),
        )

    def _rank(self, metrics) -> float:
        return self._sign * metrics[self._monitor]

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the best monitored metric; None where none has one."""
        ranked = []
        for step in self._manager.all_steps():
            metrics = self._manager.metrics(step)
            if metrics and self._monitor in metrics:
                ranked.append((self._rank(metrics), step))
        return max(ranked)[1] if ranked else None

    def save(self, step: int, state, data, metrics: dict | None = None) -> None:
        """Starts saving; returns once the arrays are copied, writing goes on in the background.

        Arguments:
          step: optimiser steps done.
          data: the grain iterator, positioned after the batch of `step`.
          metrics: validation metrics at `step`, numbers only.
        """
        if step in self._manager.all_steps():
            return
        usable = metrics if metrics and self._monitor in metrics else None
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(state.model_item),
            optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            data=grain.checkpoint.CheckpointSave(data),
        )
        with _full_disk_said(self._manager.directory):
            needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            remote = workdir_lib.is_remote(self._directory)
            if not remote and shutil.disk_usage(self._directory).free < needed:
                # Said before Orbax starts: its threads would leave their tracebacks on the screen.
                raise OSError(errno.ENOSPC, "No space left on device")
            self._manager.save(step, args=items, metrics=usable, force=True)

    def restore(self, step: int, abstract_state, data=None):
        """Reads a state into the shardings of `abstract_state`, and moves `data` to its position.

        Arguments:
          abstract_state: TrainState of ShapeDtypeStructs; the devices may be others than those
            that saved it.
          data: the grain iterator, or None to leave the data alone.
        """
        optimizer = {"step": abstract_state.step, "opt_state": abstract_state.opt_state}
        items = {
            "model": ocp.args.StandardRestore(abstract_state.model_item),
            "optimizer": ocp.args.StandardRestore(optimizer),
        }
        folder = self._directory / str(step) / "data"
        if data is not None and private_apis.grain_states(folder):
            items["data"] = grain.checkpoint.CheckpointRestore(data)
        elif data is not None:
            _move(data, folder)
        found = self._restore(step, items)
        return abstract_state.replace(**found["model"], **found["optimizer"])

    def restore_model(self, step: int, abstract_model: dict) -> dict:
        """Reads parameters, running statistics and moving average alone.

        Arguments:
          abstract_model: `TrainState.model_item` of ShapeDtypeStructs with shardings.
        """
        items = {"model": ocp.args.StandardRestore(abstract_model)}
        return self._restore(step, items)["model"]

    def _restore(self, step: int, items: dict):
        if (self._directory / str(step) / "state").exists():
            raise UserError(
                f"checkpoint {step} was written before jaxcxr 0.2, which cannot read it; bundle "
                "the run with the version that trained it, or train again in another --workdir."
            )
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise UserError(
                f"checkpoint {step} does not fit this config's model or optimiser: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def wait(self) -> None:
        """Waits until all is on disk; raises the errors of the background."""
        with _full_disk_said(self._manager.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and releases the threads."""
        with _full_disk_said(self._manager.directory):
            self._manager.close()


@contextlib.contextmanager
def _full_disk_said(folder):
    """Turns the errors of a full disk, of whatever type in whatever layer, into a RunError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if "No space left" not in str(error):
            raise
        raise RunError(
            f"the disk of {folder} is full; make room and run the same command again to go on "
            "from the last complete checkpoint."
        ) from error


def _move(data, folder: epath.Path) -> None:
    """Moves the iterator to where those of another number of processes stood, all at one place."""
    data.set_state(json.loads(private_apis.grain_states(folder, 0)[0].read_text()))


def check_workdir(workdir: epath.Path, config) -> None:
    """Checks that the workdir can be this run's; what it holds is left alone.

    Arguments:
      workdir: the folder; made where absent.
      config: the resolved config.
    """
    workdir_lib.check_writable(workdir)
    if (workdir / "config.json").exists():
        lines = config_lib.difference(config, load_config(workdir))
        if lines:
            raise UserError(
                f"{workdir} holds a run of another config:\n  " + "\n  ".join(lines)
                + "\nGive another --workdir, or the same config to resume."
            )


def write_config(workdir: epath.Path, config, facts: dict | None = None) -> None:
    """Writes config.json once for each run: config, `Task.facts`, versions and git commit."""
    path = workdir / "config.json"
    if path.exists() and facts and "classes" in facts:
        before = json.loads(path.read_text()).get("data", {}).get("classes", facts["classes"])
        if before != facts["classes"]:
            raise UserError(
                f"{workdir} holds a run on the classes {', '.join(before)}; the data now teach "
                f"{', '.join(facts['classes'])}. Give another --workdir."
            )
    if jax.process_index() == 0 and not path.exists():
        record = {"config": json.loads(config.to_json_best_effort()), "data": facts or {},
                  **config_lib.provenance()}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        partial.replace(path)


def load_config(workdir: epath.Path) -> dict:
    """Returns the `config` entry of a workdir."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} holds no run (no config.json); train first.")
    return json.loads(path.read_text())["config"]
