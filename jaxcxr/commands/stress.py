"""`jaxcxr stress`: how much worse a trained run gets as its input does.

    jaxcxr stress --workdir=RUN
    jaxcxr stress --workdir=RUN --kinds noise fps

Takes the checkpoint that `evaluate` takes, and writes `RUN/report/stress.json`, `.md` and `.png`.
"""

import argparse
import contextlib
import functools
import json
import pathlib
from typing import Any

from jaxcxr import registry
from jaxcxr.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr stress`."""
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
    """Measures, writes and prints."""
    from jaxcxr.task import present
    from jaxcxr.train import finished, loop
    from jaxcxr.train import workdir as workdir_lib

    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1, and --seed at least 0.")
    workdir = workdir_lib.parse(args.workdir)
    config = finished.load_config(workdir)
    test = _test_of(config.task, workdir)
    kinds = tuple(dict.fromkeys(args.kinds or test.KINDS))
    unknown = [kind for kind in kinds if kind not in test.KINDS]
    if unknown:
        raise UserError(f"--kinds {unknown[0]!r} is not known; kinds: {', '.join(test.KINDS)}.")
    with finished.open_best(workdir, config=config) as run_:
        present(run_.task.source(args.split), args.split, workdir)
        found = test.measure(
            run_.task, args.split, functools.partial(loop.predict, run_.setup, run_.variables),
            kinds, args.resamples, args.seed, print,
            features=functools.partial(finished.features, run_),
        )
        result = {"checkpoint": run_.step, **found}
    try:
        with contextlib.closing(workdir_lib.Local(workdir)) as local:
            _write(result, test, local.path / "report")
    except OSError as error:
        raise UserError(f"{workdir} cannot be written ({error.strerror or error}).") from error
    print(f"\n{test.to_text(result)}")
    names = [str(workdir / "report" / f"stress.{end}") for end in ("json", "md", "png")]
    print("Written: " + ", ".join(names))


def _test_of(task: str, workdir: pathlib.Path) -> Any:
    """Returns the stress test of a task, see `jaxcxr.task.StressTest`."""
    tests = {
        name: registry.task(name).stress_test for name in registry.TASKS
        if hasattr(registry.task(name), "stress_test")
    }
    if task not in tests:
        raise UserError(
            f"{workdir} is a run of the task {task!r}; there are stress tests of "
            f"{', '.join(tests)}."
        )
    return tests[task]()


def _write(result: dict, test: Any, folder: pathlib.Path) -> None:
    from jaxcxr.report.canvas import save

    save(test.figure(result), folder / "stress.png")
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / "stress.json").write_text(text + "\n", encoding="utf-8")
    (folder / "stress.md").write_text(test.to_markdown(result), encoding="utf-8")
