"""`jaxcxr export`: the model of a bundle for other programs, each compared with the bundle.

    jaxcxr export --model=cxr.jaxcxr --format=onnx --out=cxr.onnx

`jaxcxr.deploy.export` says what the formats are.
"""

import argparse
import json
import pathlib
import sys

from jaxcxr.commands import add_json, write_json
from jaxcxr.deploy.export import FORMATS
from jaxcxr.errors import UserError
from jaxcxr.report.result_file import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr export`."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="the bundle")
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="of the file to write"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--tensorflow", default=sys.executable, metavar="PYTHON",
        help="of savedmodel: interpreter of an environment with TensorFlow (default: this one)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the file and what belongs beside it, and prints how far it agrees."""
    from jaxcxr.deploy.bundle.bundled_model import Bundle
    from jaxcxr.deploy.export import formats

    bundle, out = Bundle.load(args.model), pathlib.Path(args.out).expanduser()
    if out.is_dir() and args.format != "savedmodel":
        raise UserError(f"{out} is a folder; give --out a file.")
    try:
        about, beside = formats.write(bundle, args.format, out, args.tensorflow)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); give another --out"
        ) from error
    print(bundle.description)
    facts = [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in about.items()
    ]
    print("\n".join(f"{name}: {value}" for name, value in facts))
    size = sum(path.stat().st_size for path in (out, *out.rglob("*")) if path.is_file())
    print(f"Written: {out}, {size / 1e6:.1f} MB, and {beside.name}")
    facts.append(("size", f"{size / 1e6:.1f} MB"))
    write_json(args, Table(("", args.format), facts, bundle.description))
