"""Writes the measured numbers and the tables of options into README.md and docs/*.md.

    python docs/tables.py            # rewrite every marked block
    python docs/tables.py --check    # exit with code 1 if a block is out of date

Blocks are marked by HTML comments, which a reader does not see:

    <!-- results:NAME -->            the table of docs/results/NAME.json and how it was measured
    <!-- results:NAME COLUMN=CELL --> only the rows that have this cell, without its column
    <!-- results:NAME.KEY -->        one number of its "values", inside a sentence
    <!-- config:TASK -->             every key of a config with its default; config:stage
    <!-- models:TASK -->, <!-- sources:TASK -->  names with their options and defaults
    <!-- end -->                     the end of each

A result file holds: command (a string, or null where a column of the table has it), date, versions,
machine, columns, rows, values and, if it needs one, note. What was not recorded says so.
"""

import json
import pathlib
import re
import sys

from jaxcxr import registry
from jaxcxr.config import keys

DOCS = pathlib.Path(__file__).resolve().parent
_BLOCK = re.compile(
    r"(<!-- (\w+):(\S+)(?: ([^>\n]*))? -->)((?:(?!<!-- ).)*)(<!-- end -->)", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?[\d.,]+( ?%)?( [kMGT]?B?)?")


class Outdated(Exception):
    """A block names something that does not exist."""


def result(name: str) -> dict:
    """Reads docs/results/NAME.json.

    Raises:
      Outdated: no such file.
    """
    path = DOCS / "results" / f"{name}.json"
    if not path.exists():
        raise Outdated(f"docs/results/{name}.json does not exist")
    return json.loads(path.read_text())


def table(columns, rows) -> str:
    """Formats a Markdown table; columns of numbers are set to the right."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    ruler = [
        "---:" if all(_NUMBER.fullmatch(row[i]) for row in cells if row[i]) else "---"
        for i in range(len(columns))
    ]
    lines = [columns, ruler, *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def results_block(name: str, chosen: str | None) -> str:
    """Formats a result file: one of its values, or its table and where the numbers come from."""
    name, _, key = name.partition(".")
    found = result(name)
    if key:
        if key not in found["values"]:
            raise Outdated(f"docs/results/{name}.json has no value {key!r}")
        return found["values"][key]
    columns, rows = found["columns"], found["rows"]
    if chosen:
        column, _, cell = chosen.partition("=")
        at = columns.index(column)
        rows = [row[:at] + row[at + 1:] for row in rows if row[at] == cell]
        columns = columns[:at] + columns[at + 1:]
    return f"\n\n{table(columns, rows)}\n\n{origin(found)}\n\n"


def origin(found: dict) -> str:
    """Formats the line under a table: command, machine, date, versions."""
    command = f"`{found['command']}`. " if found["command"] else ""
    note = f" {found['note']}" if found.get("note") else ""
    return (f"*{command}Machine: {found['machine']}; date: {found['date']}; "
            f"versions: {found['versions']}.{note}*")


def config_block(task: str, _) -> str:
    """Formats the table of the keys of a task's config, or of a stage."""
    rows = [
        (f"`{key.name}`", default(key.default), key.meaning, key.allowed())
        for key in (keys.STAGE_KEYS if task == "stage" else keys.of_task(task))
        if key.name != "task"
    ]
    return f"\n\n{table(('key', 'default', 'meaning', 'allowed'), rows)}\n\n"


def default(value) -> str:
    """Formats a default; long lists of rules have no place in a table."""
    text = f"`{value!r}`"
    return text if len(text) < 60 else "rules, see `jaxcxr.config.keys`"


def models_block(task: str, _) -> str:
    """Formats the table of a task's models and their options."""
    models = {name: registry.model_options(name)
              for name, model in registry.MODELS.items() if model.task == task}
    return f"\n\n{table(('model', 'options'), options(models))}\n\n"


def sources_block(task: str, _) -> str:
    """Formats the table of a task's data sources and their options."""
    sources = {name: registry.source_options(name)
               for name, source in registry.SOURCES.items() if source.task == task}
    return f"\n\n{table(('source', 'options'), options(sources))}\n\n"


def options(named: dict[str, dict]) -> list[tuple[str, str]]:
    """Formats options as `name=default`, one row for each model or source."""
    return [
        (f"`{name}`", ", ".join(f"`{key}={value!r}`" for key, value in found.items()) or "none")
        for name, found in named.items()
    ]


KINDS = {"results": results_block, "config": config_block, "models": models_block,
         "sources": sources_block}


def filled(text: str) -> str:
    """Fills every marked block of a page."""

    def block(match):
        start, kind, name, chosen, _, end = match.groups()
        if kind not in KINDS:
            raise Outdated(f"{start}: no block is called {kind!r}")
        return f"{start}{KINDS[kind](name, chosen)}{end}"

    filled_in, count = _BLOCK.subn(block, text)
    if count != len(re.findall(r"<!-- \w+:", text)) or count != text.count("<!-- end -->"):
        raise Outdated("a block has no end, or an end no block")
    if start := re.search(r"^\s*<!-- \w+:\w+\.\S+ -->", text, re.MULTILINE):
        raise Outdated(f"{start[0].strip()} begins a line, and so a paragraph; move it")
    return filled_in


def main(check: bool) -> int:
    """Rewrites or compares every page; returns the exit code."""
    outdated = []
    for path in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))):
        text = path.read_text()
        try:
            new = filled(text)
        except Outdated as error:
            print(f"{path.name}: {error}")
            return 1
        if new != text:
            outdated.append(path.name)
            if not check:
                path.write_text(new)
    if check and outdated:
        print(f"Out of date: {', '.join(outdated)}. Run python docs/tables.py.")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
