"""Runs a program that measures: arguments in, tables out, a user's mistake as one line."""

import argparse
import sys
from collections.abc import Callable

from jaxcxr.commands import add_json, write_json
from jaxcxr.errors import RunError, UserError
from jaxcxr.report.result_file import Table


def main(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], Table],
    description: str,
    argv: list[str] | None = None,
) -> None:
    """Parses the command line and measures.

    Arguments:
      add_arguments: adds the program's options.
      run: measures, prints and returns what it printed; finds `--config=FILE` and its overrides
        in `args.config`.
      description: the program's docstring.
      argv: arguments without the program name; sys.argv's by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    add_json(parser)
    args, args.config = parser.parse_known_args(argv)
    unknown = [word for word in args.config if not word.startswith("--config")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        write_json(args, run(args))
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
