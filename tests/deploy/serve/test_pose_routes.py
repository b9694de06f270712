"""The server of a bundle of poses, over HTTP."""

import json

import httpx
import numpy as np
import pytest

from jaxcxr.deploy.predict.lifter import Lifter
from jaxcxr.deploy.serve.limits import Limits
from jaxcxr.pose.keypoints import keypoint_files
from tests.commands.test_predict import FRAMES
from tests.deploy.serve.conftest import serving
from tests.deploy.serve.test_xray_routes import healthy, problem
from tests.pose.player import takes

QUERY = {"fps": 50, "width": takes.SIZE[0], "height": takes.SIZE[1], "joints": "human36m"}


def walk_json(seconds=0.4):
    _, _, points = takes.walk(seconds=seconds)
    return json.dumps([
        {"image_id": i, "keypoints": frame.ravel().tolist(), "track_id": 7}
        for i, frame in enumerate(points)
    ]).encode()


@pytest.fixture(scope="module")
def client(pose_bundle):
    with (
        serving(pose_bundle, Limits(upload=300_000, frames=200)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def test_poses_are_those_of_the_lifter(client, pose_bundle):
    found = client.post("/api/poses", params=QUERY, content=walk_json()).json()
    video = keypoint_files.from_json(
        walk_json(), "walk.json", fps=50.0, size=takes.SIZE, joints="human36m"
    )
    (expected,) = Lifter(pose_bundle).lift(video, video.tracks)
    (person,) = found["people"]
    assert (person["person"], person["start"], found["unit"]) == ("7", 0, "mm")
    np.testing.assert_allclose(person["poses"], expected.joints * 1000, atol=0.01)
    assert found["joints"][0] == "hip"
    assert "For research only" in found["notice"]


def test_the_player_is_a_page_that_needs_nothing_else(client):
    answer = client.post("/api/player", params=QUERY, content=walk_json())
    assert answer.headers["content-type"].startswith("text/html")
    assert "person 7" in answer.text
    assert "https:" not in answer.text


@pytest.mark.parametrize(("content", "changed", "status", "message"), [
    (b"", {}, 422, "the body is empty"), (b"\x89PNG", {}, 422, "is no valid JSON"),
    (b"{}", {}, 422, "neither a list"),
    (walk_json(), {"width": None}, 422, "give width and height"),
    (walk_json(), {"fps": None}, 422, "fps"), (walk_json(), {"fps": 0}, 422, "fps"),
    (walk_json(), {"fps": "nan"}, 422, "fps"), (walk_json(), {"joints": "cocoo"}, 422, "joints"),
    (walk_json(), {"fps": 1}, 413, "at most 200"),
    (b"[" * 300_001, {}, 413, "0.3 MB"), (b"[" * 200_000, {}, 422, "no valid JSON"),
    (b'[{"image_id": 1, "keypoints": [' + b"NaN," * 50 + b"1]}]", {}, 422, "no point"),
    (b'[{"image_id": 1, "keypoints": [1e999,1,1]}]', {}, 422, "1 points, but"),
])
def test_mistakes_are_told_in_words(client, content, changed, status, message):
    query = {k: v for k, v in {**QUERY, **changed}.items() if v is not None}
    for path in ("/api/poses", "/api/player"):
        assert message in problem(client.post(path, params=query, content=content), status)
    healthy(client)


def test_only_what_the_bundle_can_do_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/api/poses", "/api/player", "/api/model", "/api/health"}
    assert problem(client.post("/api/findings"), 404)
    facts = client.get("/api/model").json()
    assert facts["task"] == "pose"
    assert facts["service"]["frames"] == FRAMES
