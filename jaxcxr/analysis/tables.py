"""Tables of text: aligned for the screen, or as Markdown."""

from collections.abc import Mapping, Sequence


def flat(entry: Mapping) -> dict:
    """An entry whose intervals `NAME_interval` are two columns, `_low` and `_high`."""
    columns = {}
    for name, value in entry.items():
        if "_interval" in name:
            columns[f"{name}_low"], columns[f"{name}_high"] = value or (None, None)
        else:
            columns[name] = value
    return columns


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def markdown(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of cells as a Markdown table, the first one its header; `left` columns are of text."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    rule = "|".join("---" if column < left else "---:" for column in range(len(lines[0])))
    return [rows[0], f"|{rule}|", *rows[1:]]
