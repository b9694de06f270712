"""Serves a bundle over HTTP: routes, error responses, headers, start and shutdown."""

import base64
import contextlib
import hashlib
import importlib.resources
import ipaddress
import math
import signal
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Literal, Protocol

import fastapi
import pydantic
import uvicorn
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxcxr import __version__
from jaxcxr.deploy.bundle.bundled_model import Bundle
from jaxcxr.deploy.serve import limits as limits_lib
from jaxcxr.deploy.serve.limits import Limits
from jaxcxr.deploy.serve.resources import NOTICE, ServerResources
from jaxcxr.errors import RunError, UserError
from jaxcxr.report import page

_GRACE = 10  # seconds for requests to finish after SIGTERM
_CONNECTIONS = 1000


def serve(
    bundle: Bundle, host: str, port: int, limits: Limits, batch: int, say: Callable[[str], None]
) -> None:
    """Serves until SIGTERM or Ctrl+C.

    Arguments:
      bundle: the model.
      host, port: to listen on; port 0: any free one.
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
    app = create(
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


_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Model(pydantic.BaseModel):
    """The model that answers."""

    notice: str = NOTICE
    task: Literal["cxr", "pose"]
    description: str
    model: str = pydantic.Field(description="SHA-256 of the bundle")
    licence: str
    training: dict[str, Any]
    test: dict[str, float | None] = pydantic.Field(description="metrics of the test split")
    service: dict[str, Any] = pydantic.Field(description="facts particular to the task")
    upload: int = pydantic.Field(description="most bytes of a file")


class Health(pydantic.BaseModel):
    """State of the server."""

    status: Literal["ok"] = "ok"
    requests: int = pydantic.Field(description="being processed", ge=0)


class Service(Protocol):
    """The part of the server particular to a task."""

    def warm(self) -> None:
        """Compiles everything."""

    def facts(self) -> dict[str, Any]:
        """Returns facts for the page and for clients beside the bundle."""
        ...

    def add_routes(self, app: fastapi.FastAPI) -> None:
        """Adds the routes of the task."""


def create(
    bundle: Bundle, limits: Limits, *, batch: int = 8, hosts: list[str] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> fastapi.FastAPI:
    """Makes the application of a bundle; nothing is compiled before it starts.

    Arguments:
      bundle: of radiographs or of poses.
      limits: of requests.
      batch: radiographs at once in the model.
      hosts: names it answers to; None: any.
      ready: called once it can answer.
    """
    resources = ServerResources(limits)
    service = _service(bundle, resources, batch)

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI):
        await resources.decoders.start()
        await resources.worker.run(service.warm)
        ready()
        try:
            yield
        finally:
            resources.worker.close()
            await resources.decoders.stop()

    app = fastapi.FastAPI(
        title="jaxcxr", version=__version__, description=f"{bundle.description}. {NOTICE}",
        docs_url=None, redoc_url=None, lifespan=lifespan,  # those pages load remote scripts
    )
    _add_errors(app)
    _add_common(app, bundle, resources, service)
    service.add_routes(app)
    _add_page(app)
    if hosts is not None:  # against DNS rebinding
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_middleware(_Headers)
    return app


def _service(bundle: Bundle, resources: ServerResources, batch: int) -> Service:
    if bundle.task == "pose":
        from jaxcxr.deploy.serve.pose_routes import Lifting

        return Lifting(bundle, resources)
    from jaxcxr.deploy.serve.xray_routes import Radiographs

    return Radiographs(bundle, resources, batch)


def _add_common(
    app: fastapi.FastAPI, bundle: Bundle, resources: ServerResources, service: Service
) -> None:
    @app.get("/api/model", response_model=Model)
    async def model():
        """The model, its training data and its licence."""
        numbers = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in bundle.metrics["scalars"].items()
            if bundle.metrics["split"] == "test"
            if value is None or isinstance(value, int | float)
        }
        return Model(
            task=bundle.task, description=bundle.description, model=bundle.digest,
            licence=bundle.licence, training=bundle.facts["training"],
            test=numbers, service=service.facts(), upload=resources.limits.upload,
        )

    @app.get("/api/health", response_model=Health)
    async def health():
        """State of the server."""
        return Health(requests=resources.gate.inside)


def _add_page(app: fastapi.FastAPI) -> None:
    files = importlib.resources.files("jaxcxr.deploy.serve")
    text = page.render_template("deploy/serve/page.html", notice=NOTICE)
    policy = _policy()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index():
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    def add(name: str, media_type: str) -> None:
        content = files.joinpath(name).read_bytes()

        @app.get(f"/{name}", include_in_schema=False)
        async def asset():
            return fastapi.Response(content, media_type=media_type)

    for name, media_type in _ASSETS.items():
        add(name, media_type)


def _policy() -> str:
    """Allows only the scripts and styles of this server and those inlined in the player."""

    def digest(name: str) -> str:
        content = page.render_template(f"pose/player/{name}").encode()
        return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"

    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"connect-src 'self'; img-src data: blob:; script-src 'self' {digest('player.js')}; "
        f"style-src 'self' {digest('player.css')}"
    )


class _Headers:
    """Adds default headers to every response."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)


def _add_errors(app: fastapi.FastAPI) -> None:
    @app.exception_handler(limits_lib.Refusal)
    async def problem(_, error: limits_lib.Refusal):
        return _problem(error.status, error.title, error.detail, error.retry)

    @app.exception_handler(RequestValidationError)
    async def parameters(_, error: RequestValidationError):
        wrong = [f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()]
        return _problem(422, "cannot be used", "; ".join(wrong))

    @app.exception_handler(HTTPException)
    async def of_http(_, error: HTTPException):
        answer = _problem(error.status_code, error.detail, f"{error.detail}; see /openapi.json.")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(*_):
        return _problem(500, "failed", "internal error; see the output of the server.")


def _problem(status: int, title: str, detail: str, retry: int = 0) -> JSONResponse:
    return JSONResponse(
        {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status,
         "detail": detail},
        status, {"Retry-After": str(retry)} if retry else None, "application/problem+json",
    )
