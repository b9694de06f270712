"""`jaxcxr stress`: how much worse a trained run gets as its input does.

    jaxcxr stress --workdir=RUN
    jaxcxr stress --workdir=RUN --kinds noise fps

Takes the checkpoint that `evaluate` takes, and writes `RUN/report/stress.json`, `.md` and `.png`.

What is tested is the business of a module for each task, named in `TESTS`, which has `KINDS`,
`measure(task, split, predict, kinds, resamples, seed, say) -> dict`, `to_text(result)`,
`to_markdown(result)` and `figure(result)`; `predict` gives the model's predictions for every
example of a source as the task's own splits are. All levels share the compiled step of the run.
With `TAKES_FEATURES`, `measure` also takes `features`, which gives what the head of the model gets.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from jaxcxr.errors import UserError

# Task -> the module that tests it.
TESTS = {"pose": "jaxcxr.pose.evaluation.stress_poses", "cxr": "jaxcxr.xray.evaluation.stress_xrays"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--workdir", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--split", default="test", choices=("validation", "test"), help="default: test"
    )
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND", help="only these ways of making the input worse"
    )
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the bootstrap and of what is drawn (default: 0)"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, write and print.

    Raises:
      UserError: no run, no checkpoint, a task without a test, or a kind that it does not have.
    """
    from jaxcxr.train import finished
    from jaxcxr.train import workdir as workdir_lib

    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1, and --seed at least 0.")
    workdir = workdir_lib.parse(args.workdir)
    config = finished.load_config(workdir)
    if config.task not in TESTS:
        raise UserError(
            f"{workdir} is a run of the task {config.task!r}; there are stress tests of "
            f"{', '.join(TESTS)}."
        )
    test = importlib.import_module(TESTS[config.task])
    kinds = tuple(dict.fromkeys(args.kinds or test.KINDS))
    unknown = [kind for kind in kinds if kind not in test.KINDS]
    if unknown:
        raise UserError(f"--kinds {unknown[0]!r} is not known; kinds: {', '.join(test.KINDS)}.")
    result = measure(config, workdir, test, args.split, kinds, args.resamples, args.seed)
    try:
        with contextlib.closing(workdir_lib.Local(workdir)) as local:
            _write(result, test, local.path / "report")
    except OSError as error:
        raise UserError(f"{workdir} cannot be written ({error.strerror or error}).") from error
    print(f"\n{test.to_text(result)}")
    names = [str(workdir / "report" / f"stress.{end}") for end in ("json", "md", "png")]
    print("Written: " + ", ".join(names))


def _write(result: dict, test: Any, folder: pathlib.Path) -> None:
    from jaxcxr.report.canvas import save

    save(test.figure(result), folder / "stress.png")
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / "stress.json").write_text(text + "\n", encoding="utf-8")
    (folder / "stress.md").write_text(test.to_markdown(result), encoding="utf-8")


def measure(
    config, workdir: os.PathLike, test: Any, split: str, kinds: tuple[str, ...],
    resamples: int = 1000, seed: int = 0,
) -> dict:
    """Runs a test on the best checkpoint of a run.

    Arguments:
      config: of the run.
      workdir: its folder.
      test: the module of its task.
      split: on which data.
      kinds: of `test.KINDS`.
      resamples, seed: of the bootstrap.

    Returns:
      What the test's `measure` returns, and the number of the `checkpoint`.

    Raises:
      UserError: no checkpoint, or unprepared data.
    """
    from jaxcxr.train import finished, loop

    with finished.open_best(workdir, config=config) as run_:
        predict = functools.partial(loop.predict, run_.setup, run_.variables)
        options = {}
        if getattr(test, "TAKES_FEATURES", False):
            options["features"] = functools.partial(_features, run_)
        result = test.measure(
            run_.task, split, predict, kinds, resamples, seed, print, **options
        )
        return {"checkpoint": run_.step, **result}


def _features(run_, source) -> np.ndarray:
    """Output of the backbone for every example of a source, `[n, d]`."""
    import jax

    from jaxcxr.data import pipeline
    from jaxcxr.train import parallel

    @jax.jit
    def backbone(variables, batch):
        inputs, options = run_.task.inputs(batch)
        return run_.model.apply(
            variables, inputs, method=lambda model, x: model.backbone(x, False, **options)
        )

    parts = []
    for batch in pipeline.eval_batches(source, run_.config):
        placed = parallel.put_batch(run_.setup.mesh, batch)
        found = parallel.gather(
            {"x": backbone(run_.variables, placed), "valid": placed["valid"], "index": placed["index"]}
        )
        parts.append({key: value[found["valid"]] for key, value in found.items()})
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    return np.concatenate([part["x"] for part in parts])[order].astype(np.float32)
