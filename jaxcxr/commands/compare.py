"""`jaxcxr compare`: whether models differ on the same images, beyond chance.

    jaxcxr compare runs/a runs/b
    jaxcxr compare runs/a0,runs/a1,runs/a2 runs/b0,runs/b1,runs/b2     three seeds of two models
    jaxcxr compare ours.csv theirs.csv --labels Data_Entry_2017_v2020.csv --split-list test_list.txt

Every model is compared with the first one. Of several seeds the mean and the spread are shown, and
the mean is compared; scores are never pooled. Runs of poses are compared by MPJPE.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import jaxcxr
from jaxcxr.errors import UserError
from jaxcxr.report import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr compare`."""
    parser.epilog = (
        "A model is a workdir, or a csv of predictions as jaxcxr score reads it; its seeds are "
        "joined by commas. Workdirs bring their own labels."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="at least two; first: reference")
    parser.add_argument("--labels", metavar="FILE", help="the true labels, for csv files")
    parser.add_argument("--split-list", metavar="TXT", help="compare on these images only")
    parser.add_argument("--split", default="test", help="of workdirs; default: %(default)s")
    parser.add_argument("--out", metavar="DIR", help="folder for metrics.json, .csv and .md")
    parser.add_argument("--resamples", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap; default: 0")


def run(args: argparse.Namespace) -> None:
    """Compares, prints the tables, writes them if asked to."""
    if args.resamples < 1 or args.seed < 0:
        raise UserError("--resamples must be at least 1 and --seed at least 0")
    models = _models(args.models)
    if _are_poses(models, args.split):
        task, result = _compare_poses(args, models)
    else:
        task, result = _compare_xrays(args, models)
    result |= {
        "models": {name: list(paths) for name, paths in models.items()},
        "jaxcxr_version": jaxcxr.__version__,
    }
    lines, notes = task.lines(result), task.remarks(result)
    head = [f"{name}: {', '.join(paths)}" for name, paths in models.items()]
    print("\n".join(head))
    for title, cells in lines.items():
        print("\n".join(["", title, *tables.aligned(cells)]))
    print("\n".join(["", *notes]))
    if args.out:
        out = pathlib.Path(args.out)
        parts = [*head]
        for title, cells in lines.items():
            parts += [f"## {title}", "\n".join(tables.markdown(cells))]
        tables.write_result(out, result, task.rows(result), [*parts, *notes])
        print("Written: " + ", ".join(str(out / f"metrics.{e}") for e in ("json", "csv", "md")))


def _compare_xrays(args: argparse.Namespace, models: Mapping[str, Sequence[str]]):
    from jaxcxr.xray.evaluation import compare_xrays

    files = {
        name: {path: _predictions_of(path, f"{args.split}.csv") for path in paths}
        for name, paths in models.items()
    }
    compared = compare_xrays.read(files, args.labels, args.split_list)
    result = compare_xrays.compare(compared, args.resamples, args.seed)
    return compare_xrays, result | {"inputs": compared.inputs}


def _compare_poses(args: argparse.Namespace, models: Mapping[str, Sequence[str]]):
    from jaxcxr.pose.evaluation import run_errors

    if args.labels or args.split_list:
        raise UserError("--labels and --split-list are of radiographs; leave them out")
    files = {
        name: {
            path: (_predictions_of(path, f"{args.split}_labels.npz"),
                   _predictions_of(path, f"{args.split}.npz"))
            for path in paths
        }
        for name, paths in models.items()
    }
    return run_errors, run_errors.compare(files, args.resamples, args.seed)


def _models(specs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names the models; reads their seeds from arguments such as "runs/a" or "a0,a1,a2"."""
    if not 2 <= len(specs) <= 26:
        raise UserError(f"{len(specs)} models to compare; give at least two, and at most 26")
    found = {chr(ord("A") + i): tuple(spec.split(",")) for i, spec in enumerate(specs)}
    for paths in found.values():
        if not all(paths) or len(set(paths)) < len(paths):
            raise UserError(
                f"{','.join(paths)!r}: the seeds of a model are paths joined by commas, each once"
            )
    return found


def _are_poses(models: Mapping[str, Sequence[str]], split: str) -> bool:
    """Tells whether the first path is a workdir of poses."""
    first = next(iter(models.values()))[0]
    file = _predictions_of(first, f"{split}.csv")
    return file.with_name(f"{split}_labels.npz").is_file()


def _predictions_of(path: str, name: str) -> pathlib.Path:
    """Returns the file of predictions that a path means: itself, or that of a workdir."""
    given = pathlib.Path(path)
    file = given / "predictions" / name if given.is_dir() else given
    if not file.is_file():
        raise UserError(
            f"{file} is missing; give a file of predictions, or the workdir of a run that ended"
        )
    return file
