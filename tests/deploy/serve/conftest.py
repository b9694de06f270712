"""Bundles of runs of a few steps, and servers of them in threads."""

import contextlib
import dataclasses
import socket
import threading
import time

import cv2
import pytest

from tests import toys
from tests.commands import test_predict
from tests.train.runs import toy_run

pytest.importorskip("fastapi", reason="no fastapi (extra `serve`)")
uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn (extra `serve`)")


@pytest.fixture(scope="session")
def xray_bundle(bundle_file):
    """A bundle that flags by tags alone: a run of a few steps knows too few films."""
    from jaxcxr.deploy.bundle import Bundle

    bundle = Bundle.load(bundle_file)
    guard = dataclasses.replace(bundle.guard, threshold=float("inf"))
    return dataclasses.replace(bundle, guard=guard)


@pytest.fixture(scope="session")
def pose_bundle(tmp_path_factory):
    from jaxcxr.deploy.bundle import from_run

    workdir = tmp_path_factory.mktemp("pose_run")
    with toy_run():
        test_predict.write_run(workdir, toys.two_stages())
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "kind": "test", "mpjpe": 5.0}\n')
    return from_run.make(workdir, workdir / "pose.jaxcxr", "CC0", print)


@contextlib.contextmanager
def serving(bundle, limits=None, **options):
    """A server of a bundle on a free port: its address."""
    from jaxcxr.deploy.serve import server
    from jaxcxr.deploy.serve.limits import Limits

    ready = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    application = server.create(
        bundle, limits or Limits(), hosts=["127.0.0.1"], ready=ready.set, **options
    )
    server = uvicorn.Server(uvicorn.Config(application, loop="asyncio", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not ready.wait(0.1):
            assert thread.is_alive()
            assert time.monotonic() < deadline
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def radiograph():
    """A PNG of a phantom, 96 x 80."""
    from jaxcxr.xray import phantom

    image, _ = phantom.render(phantom.visit(0, 3, 0, "enriched"), 96)
    return cv2.imencode(".png", image[:80])[1].tobytes()
