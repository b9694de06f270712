"""`jaxcxr serve`: a bundle behind a small local web page and a JSON API.

    jaxcxr serve model.jaxcxr                    # http://127.0.0.1:8000
    curl --data-binary @chest.png http://127.0.0.1:8000/api/findings

Of radiographs: `POST /api/findings` (probabilities, thresholds, what is flagged as no frontal chest
radiograph) and `POST /api/heatmap?finding=NAME` (PNG), the body being a PNG, JPEG or DICOM file. Of
poses: `POST /api/poses?fps=30` and `POST /api/player?fps=30`, the body being JSON of 2D keypoints.
`GET /openapi.json` describes them, `GET /api/model` the model, `GET /` is the page.

Nothing is stored or logged of what is sent, the page loads nothing from elsewhere, and only this
machine is answered unless `--host` says otherwise. There is no login and no encryption: for more
than one machine, put a server that has both before it. Files are decoded in processes of their own
(`jaxcxr.deploy.serve.decoding_process`); size, declared dimensions, time and number of requests are bounded.
SIGTERM lets what is being worked on end.
"""

import argparse
import contextlib
import importlib.util
import ipaddress
import signal
import socket

from jaxcxr.errors import RunError, UserError

_MEGA = 1_000_000
_GRACE = 10  # seconds that requests have to end after SIGTERM
_CONNECTIONS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
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
    """Serve until SIGTERM or Ctrl+C.

    Raises:
      UserError: the extra is missing, no bundle, a limit that is none, an address that is taken.
    """
    missing = [name for name in ("fastapi", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}; pip install 'jaxcxr[serve]'.")
    for name in ("batch", "upload", "pixels", "frames", "seconds", "waiting"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name} must be more than 0, not {getattr(args, name):g}.")
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port {args.port} is none; give one from 0 to 65535.")
    from jaxcxr.deploy.bundle.bundled_model import Bundle

    bundle = Bundle.load(args.bundle)
    with _listening(args.host, args.port) as listener:
        _serve(args, bundle, listener)


def _serve(args: argparse.Namespace, bundle, listener: socket.socket) -> None:
    import uvicorn

    from jaxcxr.deploy.serve import app as app_lib
    from jaxcxr.deploy.serve.limits import Limits

    address = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{address}:{listener.getsockname()[1]}"
    alone = _is_loopback(args.host)
    print(bundle.description)
    if not alone:
        print("Anyone who reaches this address can use the model: no login, no encryption.")
    print("warming up ...", flush=True)
    limits = Limits(
        int(args.upload * _MEGA), int(args.pixels * _MEGA), args.seconds, args.waiting, args.frames
    )
    app = app_lib.create(
        bundle, limits, batch=args.batch,
        hosts=["127.0.0.1", "localhost", address] if alone else None,
        ready=lambda: print(f"Serving on {url} - for research only. Ctrl+C ends it.", flush=True),
    )
    config = uvicorn.Config(
        app, loop="asyncio",  # uvloop forks, which JAX warns of
        log_level="warning", access_log=False, server_header=False,
        limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_GRACE,
    )
    # uvicorn raises the signal that ended it once more, which is not for us.
    before = {number: signal.signal(number, lambda *_: None)
              for number in (signal.SIGTERM, signal.SIGINT)}
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise RunError("the server could not start; see above.")
    print("ended")


@contextlib.contextmanager
def _listening(host: str, port: int):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); give another "
            "--port or --host."
        ) from error
    with listener:
        yield listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
