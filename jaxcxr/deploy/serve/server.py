"""Runs the web server of a bundle until SIGTERM or Ctrl+C."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.serve import app as app_lib
from jaxcxr.deploy.serve.limits import Limits
from jaxcxr.errors import RunError, UserError

_GRACE = 10  # seconds for requests to finish after SIGTERM
_CONNECTIONS = 1000


def serve(
    bundle: Bundle, host: str, port: int, limits: Limits, batch: int, say: Callable[[str], None]
) -> None:
    """Serves until SIGTERM or Ctrl+C.

    Arguments:
      bundle: the model.
      host: address to listen on.
      port: to listen on; 0: any free one.
      limits: of requests.
      batch: radiographs at once in the model.
      say: gets lines of progress.

    Raises:
      UserError: the address is taken.
      RunError: the server could not start.
    """
    with _listening(host, port) as listener:
        _serve(bundle, host, listener, limits, batch, say)


def _serve(bundle: Bundle, host: str, listener: socket.socket, limits, batch: int, say) -> None:
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listener.getsockname()[1]}"
    alone = _is_loopback(host)
    say(bundle.description)
    if not alone:
        say("Anyone who reaches this address can use the model: no login, no encryption.")
    say("warming up ...")
    app = app_lib.create(
        bundle, limits, batch=batch,
        hosts=["127.0.0.1", "localhost", address] if alone else None,
        ready=lambda: say(f"Serving on {url} - for research only. Ctrl+C ends it."),
    )
    config = uvicorn.Config(
        app, loop="asyncio",  # uvloop forks, which JAX warns of
        log_level="warning", access_log=False, server_header=False,
        limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_GRACE,
    )
    # uvicorn raises the signal that ended it again, which would kill this process.
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
    say("ended")


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
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
