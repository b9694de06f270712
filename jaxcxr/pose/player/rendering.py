"""Chooses sequences of poses and writes them as a page or a film."""

import pathlib
from collections.abc import Sequence

from jaxcxr.errors import UserError
from jaxcxr.pose.player.motions import Take

KINDS = (".html", ".gif", ".mp4")


def choose(takes: Sequence[Take], names: Sequence[str], path: pathlib.Path) -> list[Take]:
    """Chooses sequences by name, or by a part of their names if none matches.

    Raises:
      UserError: there is no such sequence.
    """
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
    from jaxcxr.pose.player import video, viewer_page  # lazily: matplotlib is slow to import

    if out.suffix == ".html":
        text = viewer_page.page(takes, source)
        partial = out.with_name(out.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(out)
        return [f"{len(takes)} sequences, {sum(len(take.joints) for take in takes):,} frames"]
    take, note = video.thinned(takes[0])
    lines = [f"{take.name}: {len(take.joints):,} frames at {take.fps:.4g} fps"]
    if out.suffix == ".gif":
        video.write_gif(take, out)
    else:
        codec = video.write_mp4(take, out)
        lines[0] += f", codec {codec}"
        if codec == "mp4v":
            lines.append("video players play this file, browsers do not: OpenCV lacks their codec")
    if note:
        lines.append(note)
    if len(takes) > 1:
        lines.append(f"a film shows one sequence; {source} has {len(takes) - 1} more, choose with "
                     "--sequence")
    return lines
