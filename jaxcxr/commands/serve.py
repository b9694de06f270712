"""`jaxcxr serve`: a bundle behind a small local web page and a JSON API.

    jaxcxr serve model.jaxcxr                    # http://127.0.0.1:8000
    curl --data-binary @chest.png http://127.0.0.1:8000/api/findings

`jaxcxr.deploy.serve` says what it answers, and to whom.
"""

import argparse
import functools
import importlib.util

from jaxcxr.errors import UserError

_MEGA = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jaxcxr serve`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="file that `jaxcxr bundle` wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="radiographs at once in the model (8)"
    )
    group = parser.add_argument_group("limits of a request")
    group.add_argument("--upload", type=float, default=32, metavar="MB", help="largest file (32)")
    group.add_argument(
        "--pixels", type=float, default=40, metavar="MILLION", help="that an image may have (40)"
    )
    group.add_argument(
        "--frames", type=int, default=10_000, metavar="N", help="of poses at once (10,000)"
    )
    group.add_argument("--seconds", type=float, default=30, help="to an answer (30)")
    group.add_argument(
        "--waiting", type=int, default=64, metavar="N",
        help="requests at once, each with its file in memory; more are refused (64)",
    )


def run(args: argparse.Namespace) -> None:
    """Serves until SIGTERM or Ctrl+C."""
    missing = [name for name in ("fastapi", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}; pip install 'jaxcxr[serve]'.")
    for name in ("batch", "upload", "pixels", "frames", "seconds", "waiting"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name} must be more than 0, not {getattr(args, name):g}.")
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port {args.port} is none; give one from 0 to 65535.")
    from jaxcxr.deploy.bundle.bundled_model import Bundle
    from jaxcxr.deploy.serve import server
    from jaxcxr.deploy.serve.limits import Limits

    limits = Limits(
        int(args.upload * _MEGA), int(args.pixels * _MEGA), args.seconds, args.waiting, args.frames
    )
    say = functools.partial(print, flush=True)
    server.serve(Bundle.load(args.bundle), args.host, args.port, limits, args.batch, say)
