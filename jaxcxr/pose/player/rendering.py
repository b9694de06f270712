"""Renders motions as an HTML page with a 3D viewer, or as a film (GIF, MP4).

The page stores positions as 16-bit numbers, in steps of 0.1 mm if everyone stays within 3 m of the
hip, else of 1 mm or more; keypoints in steps of a quarter of a pixel, or more in large images. A
film shows the 2D input, and the skeleton from two sides with the truth.
"""

import base64
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcxr.errors import RunError, UserError
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import gaps
from jaxcxr.pose.player.motions import Take
from jaxcxr.report.canvas import BLUE, GRAY, GREEN, ORANGE, new_figure, styled
from jaxcxr.report.page import render_template

KINDS = (".html", ".gif", ".mp4")

NONE = -32768  # marks unknown values
_LARGEST = 32767
MOST_FRAMES = 20_000  # on one page, about 6 MB

FASTEST = 25.0  # frames per second of a film
LONGEST_FILM = 1500  # frames
_WIDTH, _HEIGHT, _DPI = 9.0, 3.9, 80
# Panels: title, turn about the vertical (degrees), tilt.
_SIDES = (("three-quarter view", 35, 10), ("from the side", 90, 0))
# In order of preference: VP9, which browsers play, and MPEG-4 part 2.
_CODECS = ("vp09", "mp4v")


def choose(takes: Sequence[Take], names: Sequence[str], path: pathlib.Path) -> list[Take]:
    """Chooses sequences by name, or by a part of their names if none matches."""
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


def write(takes: Sequence[Take], source: str, out: pathlib.Path) -> list[str]:
    """Writes the poses of file `source` in the format of `out`'s extension, one of `KINDS`.

    A film shows the first sequence.

    Returns:
      Lines that describe its content.

    Raises:
      RunError: OpenCV cannot write films here.
      OSError: the file cannot be written.
    """
    if out.suffix == ".html":
        text = page(takes, source)
        partial = out.with_name(out.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
        return [f"{len(takes)} sequences, {sum(len(take.joints) for take in takes):,} frames"]
    take, note = thinned(takes[0])
    lines = [f"{take.name}: {len(take.joints):,} frames at {take.fps:.4g} fps"]
    if out.suffix == ".gif":
        write_gif(take, out)
    else:
        codec = write_mp4(take, out)
        lines[0] += f", codec {codec}"
        if codec == "mp4v":
            lines.append("video players play this file, browsers do not: OpenCV lacks their codec")
    if note:
        lines.append(note)
    if len(takes) > 1:
        lines.append(f"a film shows one sequence; {source} has {len(takes) - 1} more, choose with "
                     "--sequence")
    return lines


def page(takes: Sequence[Take], title: str, most_frames: int = MOST_FRAMES) -> str:
    """Renders the page of the sequences to choose from.

    With more than `most_frames` in all it has every second, third ... frame of each and says so.
    """
    step = max(1, math.ceil(sum(len(take.joints) for take in takes) / most_frames))
    note = "" if step == 1 else f"Long motions: every {_ordinal(step)} frame is shown."
    content = {
        "joints": HUMAN36M.joints, "parents": HUMAN36M.parents, "left": HUMAN36M.left,
        "right": HUMAN36M.right, "none": NONE, "note": note,
        "takes": [_take(take.every(step)) for take in takes], "states": gaps.STATES,
    }
    return render_template("pose/player/player.html", title=title, content=content)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _take(take: Take) -> dict:
    reach = max(np.nanmax(np.abs(a), initial=1.0)
                for a in (take.joints, take.truth) if a is not None)
    scale = max(0.1, float(reach) / _LARGEST)
    entry: dict[str, Any] = {
        "name": take.name, "fps": take.fps, "frames": len(take.joints), "scale": scale,
        "predicted": encode(take.joints, scale),
        "truth": None if take.truth is None else encode(take.truth, scale),
        "input": None, "start": take.start,
        "state": None if take.state is None else take.state.tolist(),
    }
    if take.keypoints is not None and take.size is not None:
        unseen = take.keypoints[..., 2:] <= 0
        places = np.where(unseen, np.nan, take.keypoints[..., :2])
        reach = np.nanmax(np.abs(places), initial=0.0)
        entry["pixel"] = max(0.25, float(reach) / _LARGEST)
        entry["input"] = encode(places, entry["pixel"])
        entry["size"] = take.size
    return entry


def encode(values: np.ndarray, scale: float) -> str:
    """Encodes `value / scale` as base64 of little-endian int16; `NONE` if not finite."""
    known = np.isfinite(values)
    whole = np.clip(np.rint(np.where(known, values, 0) / scale), -_LARGEST, _LARGEST)
    return base64.b64encode(np.where(known, whole, NONE).astype("<i2").tobytes()).decode()


def thinned(take: Take) -> tuple[Take, str]:
    """Thins a take to at most 25 frames per second and 1,500 in all, at the same speed.

    Returns:
      The take, and a note if it is too long for 25 frames per second, else "".
    """
    step = max(1, math.ceil(take.fps / FASTEST - 1e-6))
    fewer = max(step, math.ceil(len(take.joints) / LONGEST_FILM))
    note = ""
    if fewer > step:
        note = (f"{take.name} is long: the film shows {take.fps / fewer:.3g} of {take.fps:g} "
                "frames per second; the .html shows more")
    return take.every(fewer), note


def frames(take: Take) -> Iterator[np.ndarray]:
    """Draws the pictures of a film, uint8 `[height, width, 3]` with even sides."""
    draw = _drawer(take)
    for frame in range(len(take.joints)):
        yield draw(frame)


def write_gif(take: Take, out: pathlib.Path) -> None:
    """Writes a film as GIF, completely or not at all."""
    from PIL import Image

    # Without a common palette colours flicker.
    pictures = [Image.fromarray(picture) for picture in frames(take)]
    palette = pictures[0].quantize(colors=64, method=Image.Quantize.MAXCOVERAGE)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    # GIF counts hundredths of a second; rounding errors must not accumulate.
    times = np.rint(np.arange(len(pictures) + 1) * 100 / take.fps).astype(int) * 10
    partial = out.with_name(out.name + ".partial")
    pictures[0].save(
        partial, format="GIF", save_all=True, append_images=pictures[1:],
        duration=np.maximum(np.diff(times), 20).tolist(), loop=0, optimize=False, disposal=1,
    )
    partial.replace(out)


def write_mp4(take: Take, out: pathlib.Path) -> str:
    """Writes a film as MP4, completely or not at all, and returns the codec.

    Raises:
      RunError: this build of OpenCV lacks the codecs.
    """
    import cv2

    partial = out.with_name(out.stem + ".partial.mp4")
    height, width = next(frames(take)).shape[:2]
    for codec in _CODECS:
        film = cv2.VideoWriter(
            str(partial), cv2.VideoWriter.fourcc(*codec), take.fps, (width, height)
        )
        opened = film.isOpened()
        for picture in frames(take) if opened else ():
            film.write(picture[..., ::-1])
        film.release()
        if opened and partial.exists() and partial.stat().st_size:
            partial.replace(out)
            return codec
        partial.unlink(missing_ok=True)
    raise RunError(
        f"this build of OpenCV has none of the codecs {', '.join(_CODECS)} for {out.name}; write "
        "a .gif or an .html."
    )


@styled
def _drawer(take: Take) -> Callable[[int], np.ndarray]:
    """Returns a function that draws a frame by moving the lines of one figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = new_figure(_WIDTH, _HEIGHT)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    panels = figure.subplots(1, 3)
    moves = [_input_panel(panels[0], take)]
    shown = [poses for poses in (take.truth, take.joints) if poses is not None]
    reach = 1.08 * max(float(np.nanmax(np.abs(poses))) for poses in shown)
    for axes, (title, turn, tilt) in zip(panels[1:], _SIDES, strict=True):
        axes.set_title(title)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        moves.append(_pose_lines(axes, take, turn, tilt))
    for axes in panels:
        axes.set(aspect="equal", xticks=(), yticks=())
        axes.grid(False)
    figure.legend(
        handles=_legend(take), loc="outside lower center", ncols=3, fontsize=10,
    )
    heading = figure.suptitle(" ", fontsize=11)
    errors = take.errors()

    def draw(frame: int) -> np.ndarray:
        for move in moves:
            move(frame)
        text = f"{take.name}   {frame / take.fps:6.2f} s"
        if errors is not None and np.isfinite(errors[frame]):
            text += f"   error {errors[frame]:4.0f} mm"
        if take.state is not None and take.state[frame] != gaps.SEEN:
            text += f"   {gaps.STATES[take.state[frame]]}"
        heading.set_text(text)
        canvas.draw()
        if frame == 0:
            figure.set_layout_engine("none")  # one layout serves all frames
        picture = np.asarray(canvas.buffer_rgba())[..., :3]
        return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2].copy()

    return draw


def _legend(take: Take) -> list:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=ORANGE, lw=2.5, label="predicted")]
    if take.truth is not None:
        handles.append(Line2D([], [], color=BLUE, lw=1.6, linestyle="--", label="truth"))
    if take.keypoints is not None:
        handles.append(Line2D([], [], color=GREEN, lw=2.5, label="2D input"))
    return handles


def _bones(points: np.ndarray) -> np.ndarray:
    """Returns the ends of the bones `[16, 2, 2]` of points `[17, 2]`, without unknown bones."""
    lines = points[np.array(HUMAN36M.bones)]
    return lines[np.isfinite(lines).all((1, 2))]


def _input_panel(axes, take: Take) -> Callable[[int], None]:
    from matplotlib.collections import LineCollection

    if take.keypoints is None or take.size is None:
        axes.set_title("as the camera sees it")
        shown = [poses for poses in (take.truth, take.joints) if poses is not None]
        reach = 1.08 * max(float(np.nanmax(np.abs(poses))) for poses in shown)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        return _pose_lines(axes, take, 0, 0)
    points = np.where(take.keypoints[..., 2:] > 0, take.keypoints[..., :2], np.nan)
    found = points[np.isfinite(points).all(-1)]
    found = found if len(found) else np.array([[0, 0], take.size])
    low, high = found.min(0), found.max(0)
    half = 0.56 * max(float((high - low).max()), 10.0)
    (x, y) = (low + high) / 2
    axes.set_title("2D input")
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    lines = axes.add_collection(LineCollection([], color=GREEN, lw=2.5, capstyle="round"))
    return lambda frame: lines.set_segments(_bones(points[frame]))


def _pose_lines(axes, take: Take, turn: float, tilt: float) -> Callable[[int], None]:
    """Draws lines of truth and prediction seen from a side; returns a function that moves them."""
    from matplotlib.collections import LineCollection

    a, b = np.radians([turn, tilt])
    # Rows: right and up in the picture.
    view = np.array([
        [np.cos(a), 0, np.sin(a)],
        [-np.sin(a) * np.sin(b), -np.cos(b), np.cos(a) * np.sin(b)],
    ])
    kinds: list[tuple[np.ndarray, dict[str, Any]]] = [
        (take.joints, {"color": ORANGE, "lw": 2.5, "linestyle": "-"})
    ]
    if take.truth is not None:
        kinds.insert(0, (take.truth, {"color": BLUE, "lw": 1.6, "linestyle": "--"}))
    drawn = [
        (poses @ view.T, axes.add_collection(LineCollection([], **style))) for poses, style in kinds
    ]
    axes.axhline(0, color=GRAY, lw=0.3)

    def move(frame: int) -> None:
        for flat, lines in drawn:
            lines.set_segments(_bones(flat[frame]))

    return move
