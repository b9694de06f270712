"""Writes the result file of a finished run, or of its stress test or explanations.

    python docs/record_run.py evaluate runs/demo docs/results/demo.json \\
        --note="The time includes the generation of the images."
    python docs/record_run.py stress runs/demo docs/results/demo_stress.json
    python docs/record_run.py explain runs/demo docs/results/demo_explain.json

The numbers come from RUN/report, those of poses from the best checkpoint, evaluated again; the
versions come from RUN/config.json, the date from the file read; command, machine and time of a
training from RUN/run.jsonl. Record stress tests and explanations on the machine that did them.
"""

import argparse
import datetime
import json
import pathlib
import sys
from collections.abc import Mapping

from jaxcxr import config
from jaxcxr.errors import RunError, UserError
from jaxcxr.report import result_file
from jaxcxr.report.result_file import Table

FILES = {"evaluate": "metrics.jsonl", "stress": "report/stress.json",
         "explain": "report/explanations.json"}


def evaluated(run: pathlib.Path, record: Mapping) -> Table:
    """Reads the test metrics of a run.

    Arguments:
      run: its folder.
      record: the content of its config.json.
    """
    if record["config"]["task"] == "pose":
        return of_poses(run)
    return of_classes(json.loads((run / "report" / "metrics.json").read_text()))


def of_classes(result: Mapping) -> Table:
    """Formats report/metrics.json: a row for each class and one for their mean."""
    macro, counts = result["macro"], result["counts"]
    rows = [
        (name, str(found["n_positive"]), str(found["n_negative"]), *_scores(found),
         *(_cell(found[key]) for key in ("ece", "shipped_threshold")))
        for name, found in result["per_class"].items()
    ]
    scored = len(macro["classes"])
    rows.append((f"macro mean ({scored} of {len(rows)})", "", "", *_scores(macro), "", ""))
    columns = ("class", "n+", "n-", "AUROC [95 %]", "AP [95 %]", "F1 [95 %]", "sensitivity",
               "specificity", "Brier", "ECE", "threshold")
    ends = macro["auroc_interval_bootstrap"]
    return Table(columns, rows, values={
        "auroc": _cell(macro["auroc"]),
        "auroc_interval": " to ".join(map(_cell, ends)) if ends else "n/a",
        "images": f"{counts['images']:,}", "patients": f"{counts['patients']:,}",
        "classes": str(scored),
    })


def _scores(found: Mapping) -> list[str]:
    intervals = {"auroc": "auroc_interval_bootstrap",
                 "average_precision": "average_precision_interval", "f1": "f1_interval"}
    cells = [_with_interval(found, key, interval) for key, interval in intervals.items()]
    return cells + [_cell(found[key]) for key in ("sensitivity", "specificity", "brier")]


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _with_interval(found: Mapping, key: str, interval: str) -> str:
    """A value and its interval; either may be undefined."""
    ends = ", ".join(map(_cell, found[interval] or ()))
    return f"{_cell(found[key])} [{ends}]" if ends else _cell(found[key])


def of_poses(run: pathlib.Path) -> Table:
    """Evaluates the best checkpoint of a run of poses again: a row for model and baselines each."""
    from jaxcxr.train import finished, loop

    with finished.open_best(run) as run_:
        predictions = loop.predict(run_.setup, run_.variables, run_.task.source("test"))
        result = run_.task.evaluate("test", predictions)
    columns, *rows = (line.split() for line in result.table.splitlines())
    names = {"mpjpe": "mpjpe", "p_mpjpe": "p_mpjpe", "mean_pose": "mean_pose/mpjpe",
             "ridge": "ridge/mpjpe"}
    return Table(columns, [row for row in rows if len(row) == len(columns)], values={
        name: f"{result.metrics[key]:.1f}" for name, key in names.items()
    })


def stressed(run: pathlib.Path, record: Mapping) -> Table:
    """Reads report/stress.json: a row for each level of what changes."""
    result = json.loads((run / FILES["stress"]).read_text())
    if record["config"]["task"] == "pose":
        from jaxcxr.pose.evaluation import stress_poses

        rows = [[kind["title"], kind["unit"], *line] for kind in result["kinds"].values()
                for line in stress_poses.lines(kind)[1:]]
        return Table(("what changes", "unit", "level", "MPJPE, mm [95 %]", "change, mm [95 %]"),
                     rows)
    from jaxcxr.xray.evaluation import stress_xrays

    # A table of three columns whose last one is a change; the others hold other quantities.
    rows = [[title, *line] for title, (header, *lines) in stress_xrays.sections(result)
            if header[-1] == "change" for line in lines]
    features = result.get("attributes", {}).get("from_features", {})
    return Table(("what changes", "level", "macro AUROC [95 %]", "change [95 %]"), rows, values={
        name: f"{found['auroc']:.3f}" for name, found in features.items()
    })


def explained(run: pathlib.Path, record: Mapping) -> Table:
    """Reads report/explanations.json: a row for each method."""
    del record
    from jaxcxr.xray.explain import faithfulness

    result = json.loads((run / FILES["explain"]).read_text())
    columns, *lines = faithfulness.lines(result)
    rows = [[cell.replace("_", " ").replace("n/a", "") for cell in line[:-1]] for line in lines]
    return Table(columns[:-1], rows, f"{result['boxes']} findings of {result['patients']} patients "
                 "with boxes; 95 % intervals over patients.")


def started(run: pathlib.Path) -> dict[str, str]:
    """Reads command, machine and time of a training from run.jsonl.

    The time is that of all starts together; it is left out where one of them was killed, which
    leaves a gap in the steps.
    """
    path = run / "run.jsonl"
    if not path.exists():
        return {}
    starts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ends = [0, *(start["to_step"] for start in starts)]
    done = next((i for i, start in enumerate(starts, 1) if start["finished"]), 0)
    whole = done and all(start["from_step"] == end for start, end in zip(starts[:done], ends,
                                                                         strict=False))
    machines = ", ".join(dict.fromkeys(start["machine"] for start in starts))
    found = {"command": starts[0]["command"], "machine": machines}
    if whole:
        minutes, seconds = divmod(round(sum(start["seconds"] for start in starts[:done])), 60)
        hours, minutes = divmod(minutes, 60)
        parts = {"h": hours, "min": minutes, "s": seconds}
        kept = [f"{value} {unit}" for unit, value in parts.items() if value]
        found["time"] = " ".join(kept) or "0 s"
    return found


KINDS = {"evaluate": evaluated, "stress": stressed, "explain": explained}


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and writes the file.

    Raises:
      UserError: no such run, or one that did not do what is to be recorded.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=KINDS, help="what was done")
    parser.add_argument("run", type=pathlib.Path, help="folder of the run")
    parser.add_argument("out", type=pathlib.Path, help="docs/results/NAME.json")
    parser.add_argument(
        "--command", default="",
        help="that did it (default: RUN/run.jsonl's, or jaxcxr WHAT --workdir=RUN)",
    )
    parser.add_argument("--time", default="", help="how long it took (default: RUN/run.jsonl's)")
    parser.add_argument("--note", default="", help="what a reader must know beside the command")
    args = parser.parse_args(argv)
    path = args.run / FILES[args.what]
    if not path.exists():
        raise UserError(
            f"{path} does not exist; run jaxcxr {args.what} --workdir={args.run} first."
        )
    record = json.loads((args.run / "config.json").read_text())
    table = KINDS[args.what](args.run, record)
    start = started(args.run) if args.what == "evaluate" else {}
    time = args.time or start.get("time")
    values = {**table.values, **({"time": time} if time else {})}
    origin = config.origin() | record | {"command": f"jaxcxr {args.what} --workdir={args.run}"}
    origin |= start | ({"command": args.command} if args.command else {})
    result_file.write(
        args.out, Table(table.columns, table.rows, args.note or table.note, values), origin,
        datetime.date.fromtimestamp(path.stat().st_mtime).isoformat(),
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
