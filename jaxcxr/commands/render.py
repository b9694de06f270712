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
from jaxcxr.pose.player import motions
from jaxcxr.pose.player.motions import Take

KINDS = (".html", ".gif", ".mp4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "predictions", metavar="PREDICTIONS", help=".npz of jaxcxr predict, or .csv of a run"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help=f"file to write: {', '.join(KINDS)}"
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
    """Read, draw, write and print what was written.

    Raises:
      UserError: a file or a sequence that there is not, or no poses in it.
      RunError: OpenCV cannot write films here.
    """
    out = pathlib.Path(args.out).expanduser()
    if out.suffix not in KINDS:
        raise UserError(f"--out {out.name!r} ends in none of {', '.join(KINDS)}.")
    path = pathlib.Path(args.predictions).expanduser()
    takes = motions.read(path, _fps(path) if args.fps is None else args.fps)
    takes = _chosen(takes, args.sequence, path)
    if args.labels:
        takes = motions.with_labels(takes, args.labels)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lines = _write(takes, path, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out.") from error
    print("\n".join([f"{out}: {out.stat().st_size / 1e6:.2f} MB", *lines]))


def _write(takes: list[Take], path: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Writes the file; lines on what is in it."""
    if out.suffix == ".html":
        from jaxcxr.pose.player import viewer_page

        text = viewer_page.page(takes, path.name)
        partial = out.with_name(out.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
        return [f"{len(takes)} sequences, {sum(len(take.joints) for take in takes):,} frames"]
    from jaxcxr.pose.player import video

    take, note = video.thinned(takes[0])
    lines = [f"{take.name}: {len(take.joints):,} frames at {take.fps:.4g} fps"]
    if out.suffix == ".gif":
        video.write_gif(take, out)
    else:
        codec = video.write_mp4(take, out)
        lines[0] += f", codec {codec}"
        if codec == "mp4v":
            lines.append("this build of OpenCV has no codec that browsers play; players do")
    if note:
        lines.append(note)
    if len(takes) > 1:
        lines.append(f"a film shows one sequence; {len(takes) - 1} more are in {path.name}, choose "
                     "by --sequence")
    return lines


def _chosen(takes: list[Take], names: list[str] | None, path: pathlib.Path) -> list[Take]:
    if names is None:
        return takes
    chosen = []
    for name in names:
        found = [take for take in takes if take.name == name]
        found = found or [take for take in takes if name in take.name]
        if not found:
            shown = ", ".join(take.name for take in takes[:8])
            more = f" and {len(takes) - 8} more" if len(takes) > 8 else ""
            raise UserError(f"{path}: no sequence {name!r}; its sequences: {shown}{more}.")
        chosen += [take for take in found if take not in chosen]
    return chosen


def _fps(path: pathlib.Path) -> float | None:
    """Frames per second of the data of the run in whose `predictions/` a table lies."""
    record = path.parent.parent / "config.json"
    if path.suffix != ".csv" or path.parent.name != "predictions" or not record.is_file():
        return None
    from jaxcxr import config as config_lib
    from jaxcxr.deploy.predict import lifter

    config = config_lib.from_saved(json.loads(record.read_text(encoding="utf-8"))["config"])
    return lifter.training_fps(config) if config.task == "pose" else None
