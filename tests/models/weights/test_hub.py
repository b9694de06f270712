"""Weights by name, from a small hub of our own on this machine."""

import hashlib
import http.server
import json
import os
import re
import threading

import numpy as np
import pytest
from safetensors.numpy import save

from jaxcxr.errors import RunError, UserError
from jaxcxr.models.weights import hub, inputs, networks
from tests.models.weights.test_pretrained import timm_names, vit

constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "1" * 40
COLOR = np.zeros((1, 32, 32, 3), np.float32)


class Hub:
    """Repositories of files; counts what is asked for."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.lie: bytes | None = None
        hub_ = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                """Says nothing."""

            def _answer(self, status, body=b"", **headers):
                self.send_response(status)
                for key, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(key.replace("_", "-"), str(value))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self):
                hub_.asked.append(f"{self.command} {self.path}")
                if found := re.match(r"/api/models/([^/?]+/[^/?]+)", self.path):
                    return self._info(found[1])
                found = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+?)(\?|$)", self.path)
                content = hub_.files[found[1]][found[2]]
                digest = hashlib.sha256(content).hexdigest()
                return self._answer(
                    200, hub_.lie or content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT,
                    X_Linked_Etag=f'"{digest}"', X_Linked_Size=len(content),
                )

            do_HEAD = do_GET

            def _info(self, repo):
                if repo not in hub_.files:
                    return self._answer(404, b"{}", X_Error_Code="RepoNotFound")
                siblings = [
                    {"rfilename": name, "size": len(content), "blobId": "0" * 40,
                     "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
                             "pointerSize": 1}}
                    for name, content in hub_.files[repo].items()
                ]
                body = json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()
                return self._answer(200, body, Content_Type="application/json")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield made
    made.close()


@pytest.fixture
def weights(draw):
    return save(timm_names(draw(vit(), COLOR)))


CONFIG = json.dumps({"pretrained_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3}}).encode()


def test_a_name_of_timm_is_fetched_once_with_its_config(server, weights, monkeypatch):
    server.files["timm/vit_some.tag"] = {
        "model.safetensors": weights, "config.json": CONFIG, "README.md": b"",
        "pytorch_model.bin": b"x",
    }
    network = networks.open_file("timm/vit_some.tag", "vit_tiny")
    assert network.path.read_bytes() == weights
    input_ = inputs.find(network)
    assert (input_.mean, input_.std) == ((0.4,), (0.3,))
    assert not any("README" in path or ".bin" in path for path in server.asked)
    server.asked.clear()
    assert hub.local("timm/vit_some.tag") == network.path
    assert not any(path.startswith("GET /timm") for path in server.asked)
    server.close()
    assert hub.local("hf://timm/vit_some.tag") == network.path  # the cache alone


def test_a_file_of_a_repository_and_what_is_known_by_its_name(server, weights):
    server.files["org/vit_small_patch16_224"] = {"a/b.ckpt": weights, "c.ckpt": b"x"}
    network = networks.open_file("hf://org/vit_small_patch16_224/a/b.ckpt", "vit_tiny")
    assert inputs.find(network).unit == ((0.5, 0.5),)
    assert hub.local("hf://org/vit_small_patch16_224@main/a/b.ckpt") == network.path
    with pytest.raises(UserError, match=r"2 files of weights: a/b\.ckpt, c\.ckpt; name one"):
        hub.local("hf://org/vit_small_patch16_224")
    with pytest.raises(UserError, match=r"has no d\.ckpt; its weights: a/b\.ckpt"):
        hub.local("hf://org/vit_small_patch16_224/d.ckpt")


def test_what_the_hub_does_not_have(server):
    with pytest.raises(UserError, match=r"the hub answers 404 for org/none; check the name"):
        hub.local("hf://org/none")
    server.files["org/empty"] = {"README.md": b"x"}
    with pytest.raises(UserError, match="has no files of weights"):
        hub.local("hf://org/empty")
    with pytest.raises(UserError, match="no name of the hub: write hf://ORG/REPO"):
        hub.local("hf://alone")


def test_offline_says_the_command(server):
    server.close()
    with pytest.raises(UserError, match=r"run `hf download timm/some\.tag`"):
        hub.local("timm/some.tag")
    with pytest.raises(UserError, match=r"run `hf download org/repo --revision v1`"):
        hub.local("hf://org/repo@v1/file.bin")


def test_damage_is_found_by_size_and_hash(server, weights, tmp_path):
    server.files["org/repo"] = {"model.safetensors": weights}
    path = hub.local("hf://org/repo")
    blob = path.resolve()
    os.chmod(blob, 0o644)
    blob.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(RunError, match="its hash is not that of the hub; delete"):
        hub.local("hf://org/repo")
    blob.write_bytes(weights[:-5])
    with pytest.raises(RunError, match=f"bytes, not {len(weights):,}"):
        hub.local("hf://org/repo")
    server.close()
    with pytest.raises(RunError, match="its hash is not that of the hub"):
        hub.local("hf://org/repo")
    blob.write_bytes(weights)
    assert hub.local("hf://org/repo") == path


def test_a_path_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "w.pth").touch()
    assert str(hub.local("timm/w.pth")) == "timm/w.pth"
    assert str(hub.local("some/other.pth")) == "some/other.pth"
