"""The commands of `jaxcxr`: one file each, arguments and printing only."""

import argparse
from typing import Any

from jaxcxr.report import result_file


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--json` of commands that measure or count."""
    parser.add_argument(
        "--json", metavar="FILE", help="also write the table, with command, date, versions and "
        "machine, as a result file"
    )


def write_json(args: argparse.Namespace, table: result_file.Table, **more: Any) -> None:
    """Writes the file that `--json` names, if it does; arguments as of `result_file.write`."""
    if args.json:
        from jaxcxr import config  # lazily: not every command needs configs

        result_file.write(args.json, table, config.origin(), **more)
