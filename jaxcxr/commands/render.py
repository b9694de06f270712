"""`jaxcxr render`: 3D poses to look at, as GIF, MP4 or an HTML page.

    jaxcxr render walk.npz --out walk.html
    jaxcxr render runs/pose/predictions/test.csv --out worst.gif --sequence S9/Walking 1/54138969

Takes the files of `jaxcxr predict`, the `predictions/test.csv` of a run, which holds the truth too,
and the `.npz` of any framework that `jaxcxr score --task=pose` takes. Poses stand beside the 2D
input, where the file holds it, and the truth. An `.html` is one file that needs no network and
holds every sequence, or those that are named; a film shows one.
"""

import argparse
import json
import pathlib

from jaxcxr.errors import UserError
from jaxcxr.pose.player import motions, rendering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr render`."""
    parser.add_argument(
        "predictions", metavar="PREDICTIONS", help=".npz of jaxcxr predict, or .csv of a run"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help=f"file to write: {', '.join(rendering.KINDS)}"
    )
    parser.add_argument(
        "--labels", metavar="L.npz",
        help="true poses, in sequences of the same names; of a single sequence in any",
    )
    parser.add_argument(
        "--sequence", action="append", metavar="NAME",
        help="only this sequence, or those in whose name this stands; may be given again",
    )
    parser.add_argument(
        "--fps", type=float, help="frames per second of the poses, where the file does not say it"
    )


def run(args: argparse.Namespace) -> None:
    """Reads, draws, writes and prints what was written."""
    out = pathlib.Path(args.out).expanduser()
    if out.suffix not in rendering.KINDS:
        raise UserError(f"--out {out.name!r} ends in none of {', '.join(rendering.KINDS)}.")
    path = pathlib.Path(args.predictions).expanduser()
    takes = motions.read(path, _fps(path) if args.fps is None else args.fps)
    if args.sequence is not None:
        takes = rendering.choose(takes, args.sequence, path)
    if args.labels:
        takes = motions.with_labels(takes, args.labels)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lines = rendering.write(takes, path.name, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    print("\n".join([f"{out}: {out.stat().st_size / 1e6:.2f} MB", *lines]))


def _fps(path: pathlib.Path) -> float | None:
    """Frames per second of the data of the run in whose `predictions/` a table lies."""
    record = path.parent.parent / "config.json"
    if path.suffix != ".csv" or path.parent.name != "predictions" or not record.is_file():
        return None
    from jaxcxr import config as config_lib
    from jaxcxr.deploy import pose_runs

    config = config_lib.from_saved(json.loads(record.read_text(encoding="utf-8"))["config"])
    return pose_runs.training_fps(config) if config.task == "pose" else None
