"""`jaxcxr serve` as a command: mistakes, start and end."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys

import cv2
import pytest

from jaxcxr import __main__ as command

pytest.importorskip("fastapi", reason="no fastapi (extra `serve`)")
pytest.importorskip("uvicorn", reason="no uvicorn (extra `serve`)")
httpx = pytest.importorskip("httpx", reason="no httpx (extra `serve`)")


@pytest.fixture(scope="module")
def radiograph():
    """A PNG of a phantom, 96 x 80."""
    from jaxcxr.xray import phantom

    image, _ = phantom.render(phantom.visit(0, 3, 0, "enriched"), 96)
    return cv2.imencode(".png", image[:80])[1].tobytes()


def stopped(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        command.run(["serve", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else there(name)
    )
    said = stopped(capsys, "x.jaxcxr")
    assert "serving needs fastapi; pip install 'jaxcxr[serve]'" in said


def test_mistakes_in_arguments(bundle_file, tmp_path, capsys):
    path = bundle_file
    assert "cannot be read" in stopped(capsys, tmp_path / "none.jaxcxr")
    assert "--waiting must be more than 0" in stopped(capsys, path, "--waiting=0")
    assert "--seconds must be more than 0" in stopped(capsys, path, "--seconds=nan")
    assert "from 0 to 65535" in stopped(capsys, path, "--port=70000")
    assert "cannot listen" in stopped(capsys, path, "--host=192.0.2.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = stopped(capsys, path, f"--port={port}")
    assert "give another --port" in said


def test_it_answers_on_this_machine_and_sigterm_ends_it(bundle_file, radiograph):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxcxr", "serve", str(bundle_file), "--port=0", "--batch=2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    try:
        lines = iter(process.stdout.readline, "")
        url = next(m[1] for line in lines if (m := re.match(r"Serving on (\S+)", line)))
        assert url.startswith("http://127.0.0.1:")
        assert httpx.post(f"{url}/api/findings", content=radiograph, timeout=60).is_success
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, rest, said) == (0, "ended\n", "")
