"""The process of one run of a study: `python -m jaxcxr.study.one_run WORKDIR`.

It trains as WORKDIR's `request.json` says, by the ordinary trainer, and leaves `result.json`, which
is there only when everything is done.
"""

import json
import pathlib
import re
import statistics
import sys
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxcxr import config as config_lib
from jaxcxr.errors import RunError, UserError
from jaxcxr.plan import measuring
from jaxcxr.pose.evaluation import run_errors
from jaxcxr.study.grid import RESULT
from jaxcxr.study.runner import REQUEST
from jaxcxr.train import finished, loop, writers
from jaxcxr.train import step as step_lib

# Calls of a forward pass of which the median time is taken.
_CALLS = 20
_LEARNED = re.compile(r"(^|/)group_\d+/(span|alpha|gate)$")


def train(folder: pathlib.Path) -> None:
    """What the process of one run does: train as `request.json` says, leave `result.json`.

    Arguments:
      folder: workdir of the run.

    Raises:
      UserError, RunError: as the trainer.
    """
    config = config_lib.from_saved(json.loads((folder / REQUEST).read_text(encoding="utf-8")))
    metrics = loop.train(config, folder, writers.Screen())
    if not metrics:
        return  # SIGTERM
    records = [json.loads(line) for line in
               (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    best = best_checkpoint(folder)
    result = {
        "monitor": config.checkpoint.monitor, "test": metrics, **_history(records, best["step"]),
        **best, "batch_size": config.batch_size,
    }
    if config.task == "pose":
        result["sequences"] = run_errors.sequence_sums(folder)
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / RESULT)


def _history(records: list[dict], step: int) -> dict[str, Any]:
    """Metrics of the validation at `step`, and the pace of training, from metrics.jsonl."""
    skip = ("step", "kind")
    checks = [r for r in records if r["kind"] == "validation" and r["step"] == step]
    training = [r for r in records if r["kind"] == "train"]
    rates = sorted(r["examples_per_second"] for r in training)
    return {
        "validation": {k: v for k, v in checks[-1].items() if k not in skip} if checks else {},
        "steps": training[-1]["step"],
        "examples_per_second": rates[len(rates) // 2],
    }


def best_checkpoint(folder: pathlib.Path) -> dict[str, Any]:
    """What the best checkpoint tells: its step, parameters, costs and what heads learned."""
    with finished.open_best(folder) as run:
        flat = flatten_dict(jax.device_get(run.variables["params"]), sep="/")
        return {
            "step": run.step,
            "parameters": sum(leaf.size for leaf in flat.values()),
            **forward_cost(run.setup, run.variables),
            "learned": {
                path: leaf.tolist() for path, leaf in sorted(flat.items())
                if _LEARNED.search(path)
            },
        }


def forward_cost(run, variables) -> dict[str, float]:
    """What a forward pass over one example costs.

    Arguments:
      run: the setup.
      variables: `params` and `batch_stats`.

    Returns:
      `flops`, loops counted as often as they run (see `bench.compiled`), and `milliseconds`, the
      median of some calls on this device.
    """
    example = run.task.source("validation").read(np.array([0]))
    one = {**example, "index": np.zeros(1, np.int32), "position": np.zeros(1, np.uint32),
           "valid": np.ones(1, np.bool_)}
    forward = step_lib.make_eval_step(run.model, run.task)
    args = (variables["params"], variables["batch_stats"], one)
    built = measuring.compile_(forward, *args)
    built.seconds(*args)
    times = [built.seconds(*args) for _ in range(_CALLS)]
    return {"flops": built.flops, "milliseconds": 1e3 * statistics.median(times)}


def main(argv: list[str] | None = None) -> None:
    """The process of one run; a mistake ends it with one line and an exit code as the trainer's."""
    (folder,) = sys.argv[1:] if argv is None else argv
    try:
        train(pathlib.Path(folder))
    except (UserError, RunError) as error:
        print(f"jaxcxr: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
