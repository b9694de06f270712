"""The loop. Read it from top to bottom: everything a run does happens here, in this order."""

import contextlib
import signal
import time

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jaxcxr import config as config_lib
from jaxcxr.data import pipeline
from jaxcxr.train import (
    checkpoint,
    finished,
    initial_weights,
    lease,
    parallel,
    probe,
    setup,
    watchdog,
    writers,
)
from jaxcxr.train import state as state_lib
from jaxcxr.train import workdir as workdir_lib
from jaxcxr.train.step_log import StepLog


def train(
    config, workdir: epath.Path, screen: writers.Screen, split: str = "test"
) -> dict[str, float] | None:
    """Trains, or resumes from the workdir's last checkpoint, then evaluates and reports.

    Returns:
      Metrics of the best checkpoint on `split`, {} where the data have no split to evaluate; None
      when the run was asked to stop by SIGTERM.
    """
    begun = time.perf_counter()
    initial = initial_weights.resolve(config, workdir)
    checkpoint.check_workdir(workdir, config)
    run = setup.make(config)
    initial |= initial_weights.check_frozen(config, run.stages, run.parameter_shapes)
    with (
        lease.held(workdir), run.mesh_context(), watchdog.watching(config.watchdog),
        contextlib.closing(checkpoint.Checkpoints(workdir, config)) as checkpoints,
        contextlib.closing(workdir_lib.Local(workdir)) as local,
    ):
        checkpoint.write_config(workdir, config, run.task.facts())
        trained = probe.make(run) if config.data.get("cache_features") else run
        data = pipeline.train_iterator(
            trained.task.source("train"), config, run.task.sampling(), run.local_rows
        )
        state, step = start(run, checkpoints, data)
        screen.table("jaxcxr", {**describe(run, state, step, workdir), **initial})
        writer = writers.MetricWriter(local.path, step)
        with contextlib.closing(writer), SigTerm() as stop:
            workdir_lib.mark_done(workdir, False)
            metrics = None
            try:
                if isinstance(trained, probe.Probe):
                    trained.fill(state, local.path, screen.print)
                train_until_done(
                    trained, state, step, data, checkpoints, writer, local, screen, stop
                )
                metrics = finish(run, checkpoints, writer, local, screen, split, stop)
            except Stopped:
                screen.print(
                    f"stopped by SIGTERM after saving; run the same command again to go on "
                    f"from {workdir}"
                )
            ended, seconds = metrics is not None, time.perf_counter() - begun
            last_step = checkpoints.latest_step or step
            writers.append_start(local.path, step, last_step, seconds, ended)
            workdir_lib.mark_done(workdir, ended)
            return metrics


def start(run: setup.Setup, checkpoints, data):
    """Begins at the newest checkpoint, or with initial (perhaps pretrained) weights."""
    begun = time.perf_counter()
    step = checkpoints.latest_step
    if step is None:
        state, step = run.first_state(), 0
    else:
        abstract = run.abstract_state(state_lib.stage_at(run.stages, step))
        state = checkpoints.restore(step, abstract, data)
    jax.block_until_ready(state)
    run.seconds["init"] = time.perf_counter() - begun
    return state, step


def train_until_done(run, state, step, data, checkpoints, writer, local, screen, sigterm) -> None:
    """Does the remaining steps; when asked to stop, saves and raises `Stopped`."""
    config = run.config
    sizes = (len(run.task.source("train")), config.batch_size)
    log = StepLog(run, writer, screen, checkpoints)
    validates = len(run.task.source("validation")) > 0
    with screen.progress(step, run.total_steps):
        for done, current in steps(run, state, step, data, log):
            last, stop = done == run.total_steps, sigterm.received(done)
            scores = None
            if last or config_lib.due(done, config.evaluate_every, *sizes):
                log.flush()
                scores = validate(run, current, done, writer, screen) if validates else None
            save = config_lib.due(done, config.checkpoint.every, *sizes)
            if last or stop or save or scores is not None:
                log.flush()  # a checkpoint never holds a state whose loss was not finite
                writer.flush()
                local.push()
                checkpoints.save(done, current, data, scores)
            if scores is not None:
                log.restart()
            if stop and not last:
                checkpoints.wait()
                raise Stopped
    checkpoints.wait()


def steps(run, state, step, data, log):
    """Yields (steps done, state) after each step, from `step` to the end of the last stage.

    The order matters and is tested: the next batch is taken only when the caller asks for the next
    step, after it saved, so that a saved iterator stands exactly after the saved step. A state
    yielded at the end of a stage already holds the next stage's optimiser.
    """
    stage, train_step = None, None
    while step < run.total_steps:
        if stage is not state_lib.stage_at(run.stages, step):
            stage = state_lib.stage_at(run.stages, step)
            watchdog.progress(f"step {step}", compiles=True)
            train_step = run.train_step(stage)
            watchdog.progress(f"step {step}", compiles=run.config.parallel == "pmap")
            log.enter(step, stage)
        with log.waiting():
            batch = next(data)
        state, metrics = train_step(state, parallel.put_batch(run.mesh, batch))
        step += 1
        log.add(step, stage.name, metrics, batch["index"])
        if step == stage.end and step < run.total_steps:
            watchdog.progress(f"step {step}", compiles=True)
            state = run.enter_stage(state, state_lib.stage_at(run.stages, step))
        yield step, state


def predict(
    run: setup.Setup, variables, source, what: str = "predictions", sigterm=None
) -> dict[str, np.ndarray]:
    """Predicts every example of a source exactly once, in its order.

    Arguments:
      source: random access to examples, as `Task.source` gives.
      what: names what is predicted, for the watchdog.
      sigterm: raises `Stopped` between two batches, if given.
    """
    parts = []
    watchdog.progress(what, compiles=True)
    for number, batch in enumerate(pipeline.eval_batches(source, run.config, run.local_rows)):
        if sigterm and sigterm.received(run.total_steps + 1 + number):
            raise Stopped
        placed = parallel.put_batch(run.mesh, batch)
        outputs = run.eval_step(variables["params"], variables["batch_stats"], placed)
        parts.append(
            parallel.gather({**outputs, "index": placed["index"], "valid": placed["valid"]})
        )
        watchdog.progress(f"batch {number + 1} of {what}")
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    whole = {key: value[whole["valid"]] for key, value in whole.items()}
    order = np.argsort(whole["index"])
    return {k: v[order] for k, v in whole.items() if k not in ("index", "valid")}


def predict_split(run, variables, split: str, sigterm=None) -> dict[str, np.ndarray]:
    """Predicts a split of the run's data, see `predict`."""
    return predict(run, variables, run.task.source(split), f"the evaluation on {split}", sigterm)


def validate(run, state, step, writer, screen) -> dict[str, float]:
    """Evaluates on the validation split and shows the table."""
    predictions = predict_split(run, state.eval_variables, "validation")
    result = run.task.evaluate("validation", predictions)
    writer.write(step, "validation", result.metrics)
    screen.print(f"validation after step {step}\n{result.table}")
    return result.metrics


def finish(
    run, checkpoints, writer, local, screen, split="test", sigterm=None
) -> dict[str, float]:
    """Calibrates the best checkpoint, evaluates it on a split, writes predictions and report.

    Without a test split validation takes its place; without either nothing is evaluated, and the
    report says so.
    """
    step, variables = finished.best(run, checkpoints, local.workdir)
    first, alone = jax.process_index() == 0, jax.process_count() == 1
    missing = [name for name in _WITHOUT if not len(run.task.source(name))]
    for name in missing:
        screen.print(f"the data have no {name} split: {_WITHOUT[name]}")
    split = "validation" if split in missing else split
    if split in missing:
        if first:
            run.task.draw("", run.model, None, local.path)
            run.task.page("", run.model, {}, local.path)
        screen.print(f"report: {local.workdir / 'report'}, with training curves alone")
        return {}
    if "calibration" in run.config and "validation" not in missing:
        predictions = predict_split(run, variables, "validation", sigterm)
        if first:
            run.task.calibrate(predictions, step, local.path)
    predictions = predict_split(run, variables, split, sigterm)
    result = run.task.evaluate(split, predictions)
    writer.write(step, split, result.metrics)
    if first:
        (local.path / "report").mkdir(exist_ok=True)
        table = run.task.write(split, predictions, local.path) or result.table
        screen.print(f"{split}, checkpoint of step {step}\n{table}")
        # Of several processes none has all parameters; `jaxcxr report` writes the page later.
        for line in run.task.draw(split, run.model, variables if alone else None, local.path):
            screen.print(line)
        if alone and split in _WITHOUT:
            run.task.page(split, run.model, jax.device_get(variables), local.path)
    screen.print(f"predictions: {local.workdir / 'predictions'}\n"
                 f"report: {local.workdir / 'report'}")
    return result.metrics


def evaluate(config, workdir: epath.Path, screen: writers.Screen) -> dict[str, float]:
    """Evaluates the best checkpoint of a workdir as `train` does at its end."""
    checkpoint.load_config(workdir)
    run = setup.make(config)
    with (
        run.mesh_context(), watchdog.watching(config.watchdog),
        contextlib.closing(checkpoint.Checkpoints(workdir, config)) as checkpoints,
        contextlib.closing(workdir_lib.Local(workdir)) as local,
        contextlib.closing(writers.MetricWriter(local.path, None)) as writer,
    ):
        return finish(run, checkpoints, writer, local, screen)


def describe(run: setup.Setup, state, step: int, workdir) -> dict[str, str]:
    """Describes the resolved run, for the screen."""
    stages = ", ".join(f"{s.name} to step {s.end:,}" for s in run.stages)
    mesh = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    begin = f"resumes at step {step:,}" if step else "starts"
    count = jax.process_count()
    processes = f", {count} processes" if count > 1 else ""
    return {
        **run.task.describe(),
        "model": run.config.model.name,
        **run.parameter_rows(state.params),
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}, mesh {mesh}{processes}",
        "steps": f"{run.total_steps:,} of {run.config.batch_size} examples ({stages}); {begin}",
        "workdir": str(workdir),
    }


# What is left out where there is no such split.
_WITHOUT = {
    "validation": "the newest checkpoint counts as the best, and nothing is calibrated",
    "test": "the results are those of validation, if there is one, which chose the checkpoint",
}


class Stopped(Exception):
    """A SIGTERM was received, and everything that it must not cost is saved."""


class SigTerm:
    """Remembers a SIGTERM, so that the loop can save and stop between two steps."""

    def __enter__(self):
        self._flag = False
        self._previous = None
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._set)
        return self

    def _set(self, *_):
        self._flag = True

    def received(self, step: int) -> bool:
        """Tells whether to stop now; with several processes, all get the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._flag

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

