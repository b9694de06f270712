"""`jaxcxr prepare`: converts a data set into ArrayRecord shards, once.

    jaxcxr prepare chestxray14 --raw DIR
    jaxcxr prepare chestxray14 --help

What is there already is not made again, and an interrupted preparation goes on.
"""

import argparse
import inspect
import re

from jaxcxr import registry
from jaxcxr.errors import RunError

_BEAM_HELP = (
    "let Apache Beam make the records, with these options of its runner in one string, as in "
    '--beam="--runner=FlinkRunner --flink_master=HOST:PORT"; all workers must see the raw data '
    "and --out under the same paths"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command per source, with the options of its builder's config."""
    commands = parser.add_subparsers(
        dest="source", required=True, metavar="SOURCE", parser_class=_SourceParser
    )
    for source in registry.SOURCES:
        origin = "generated" if registry.source(source).generated else "from raw files"
        command = commands.add_parser(source, help=f"{registry.source(source).task}, {origin}")
        command.source = source


def run(args: argparse.Namespace) -> None:
    """Prepares what the arguments say and prints the table of what there is."""
    from jaxcxr.data import dataset, preparation

    given = {name: getattr(args, name) for name in preparation.option_names(args.source)}
    given = {name: value for name, value in given.items() if value is not None}
    if args.dry_run:
        preparation.preview(args.source, args.out, **given)
        print("Nothing was written; without --dry-run, this is prepared.")
        return
    directory, before = preparation.locate(args.source, given, args.out)
    try:
        preparation.prepare(args.source, args.out, beam=args.beam, **given)
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command goes on where it stopped") from None
    print(f"{'Already prepared' if before else 'Prepared'}: {directory}")
    dataset.show(directory, registry.builder_class(args.source).overview)
    if before:
        print("To prepare it anew, remove that folder first.")


class _SourceParser(argparse.ArgumentParser):
    """Parser of one source's options, which imports the builder only when it is asked for."""

    source = ""

    def parse_known_args(self, args=None, namespace=None):
        from jaxcxr.data import preparation

        self.add_argument("--out", metavar="DIR", help="root of the prepared data (TFDS's default)")
        self.add_argument("--beam", metavar="OPTIONS", default="", help=_BEAM_HELP)
        text = "print what would be prepared, and write nothing"
        self.add_argument("--dry-run", action="store_true", help=text)
        config_class = registry.builder_class(self.source).builder_config_class
        help_of = _documented(config_class)
        for field in registry.source_fields(self.source):
            default = preparation.shown(field.default)
            if field.name == "workers":
                default = "one per core"
            text = help_of.get(field.name, "") + (f" (default: {default})" if default else "")
            if field.metadata.get("positional"):
                self.add_argument(field.name, nargs="*", metavar="PART", default=None, help=text)
                continue
            flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
            if kind is bool:
                action = {"action": argparse.BooleanOptionalAction}
            else:
                action = {"type": kind if kind in (int, float, str) else _listed}
            self.add_argument(flag, default=None, help=text.replace("%", "%%"), **action)
        return super().parse_known_args(args, namespace)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _documented(config_class: type) -> dict[str, str]:
    """Texts of the sections "Attributes:" of a class and its bases, by their names."""
    texts: dict[str, str] = {}
    for cls in reversed(config_class.__mro__):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        entries = re.findall(r"^  (\w+): (.*(?:\n {4,}.*)*)", section, re.MULTILINE)
        texts |= {name: " ".join(body.split()).rstrip(".") for name, body in entries}
    return texts
