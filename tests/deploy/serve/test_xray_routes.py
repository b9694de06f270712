"""The server of a bundle of radiographs, over HTTP."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import time

import cv2
import httpx
import numpy as np
import pytest

from jaxcxr.deploy.serve import server
from jaxcxr.deploy.serve.limits import Limits
from jaxcxr.xray.images import film_files
from tests.bench import program, serve_bench
from tests.deploy.serve.conftest import serving
from tests.deploy.serve.test_decoding_process import png_header
from tests.xray.images import dicoms

LIMITS = Limits(upload=200_000, pixels=100_000, waiting=6)


@pytest.fixture(scope="module")
def client(xray_bundle):
    with (
        serving(xray_bundle, LIMITS, batch=4) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def problem(answer, status):
    """The words of an error, in its form."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert "Traceback" not in answer.text
    return content["detail"]


def healthy(client):
    assert client.get("/api/health").json() == {"status": "ok", "requests": 0}


def expected(bundle, content):
    pixels = bundle.preprocess(film_files.decode(content)[0])[None]
    logits, features = bundle.outputs(pixels)
    return bundle.probabilities(logits)[0], bundle.guard.score(pixels, features)[0], pixels


def test_findings_are_those_of_the_bundle(client, xray_bundle, radiograph):
    found = client.post("/api/findings", content=radiograph).json()
    probabilities, unusual, _ = expected(xray_bundle, radiograph)
    assert [one["name"] for one in found["findings"]] == list(xray_bundle.classes)
    np.testing.assert_allclose(
        [one["probability"] for one in found["findings"]], probabilities, atol=1e-5
    )
    assert found["unusual"] == pytest.approx(unusual, abs=1e-4)
    for one, threshold in zip(found["findings"], xray_bundle.thresholds, strict=True):
        assert one["threshold"] == threshold
        assert one["found"] == (one["probability"] >= threshold)
    assert [one["calibrated"] for one in found["findings"]] == [
        one.method != "identity" for one in xray_bundle.calibration.classes
    ]
    assert found["model"] == xray_bundle.digest
    assert found["picture"] is None
    assert found["dicom"] is None
    assert "For research only" in found["notice"]


def test_the_picture_is_the_image(client, radiograph):
    found = client.post("/api/findings?picture=true", content=radiograph).json()
    head, _, data = found["picture"].partition(",")
    assert head == "data:image/png;base64"
    back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back, film_files.decode(radiograph)[0].gray8)


def test_dicom_says_what_it_is_and_not_who(client, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (40, 36), dtype=np.uint16)
    path = dicoms.saved(tmp_path, dicoms.radiograph(pixels, ViewPosition="LL"))
    answer = client.post("/api/findings", content=path.read_bytes())
    found = answer.json()
    assert found["dicom"] == {"view": "L", "modality": "DX", "body_part": "CHEST",
                              "photometric": "MONOCHROME2"}
    assert found["status"] == "flagged"
    assert {one["found"] for one in found["findings"]} == {None}
    asked = {"finding": found["findings"][0]["name"]}
    answer = client.post("/api/heatmap", params=asked, content=path.read_bytes())
    assert "flagged (ViewPosition says lateral" in problem(answer, 422)
    blank = cv2.imencode(".png", np.full((40, 36), 100, np.uint8))[1].tobytes()
    assert client.post("/api/findings", content=blank).json()["reason"] == "blank"
    assert "ViewPosition says lateral" in found["reason"]
    assert '"p1"' not in answer.text


def test_a_heat_map_is_that_of_the_bundle(client, xray_bundle, radiograph):
    name = xray_bundle.classes[3]
    answer = client.post("/api/heatmap", params={"finding": name}, content=radiograph)
    assert answer.headers["content-type"] == "image/png"
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    method = client.get("/api/model").json()["service"]["heatmap"]
    _, _, pixels = expected(xray_bundle, radiograph)
    (heat,) = xray_bundle.heatmaps(method, pixels, np.array([3]))
    span = max(heat.max() - heat.min(), 1e-30)
    np.testing.assert_allclose(shown[..., 3], 255 * (heat - heat.min()) / span, atol=1.5)


def test_the_model_is_described(client, xray_bundle):
    found = client.get("/api/model").json()
    assert found["task"] == "cxr"
    assert found["licence"] == "CC0 1.0"
    assert found["upload"] == LIMITS.upload
    assert found["test"]["auroc"] == xray_bundle.metrics["scalars"]["auroc"]
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/api/findings", "/api/heatmap", "/api/model", "/api/health"}


def test_a_figure_that_is_undefined_is_null(xray_bundle):
    metrics = {"split": "test", "scalars": {"auroc": float("nan"), "loss": 0.5}}
    application = server.create(dataclasses.replace(xray_bundle, metrics=metrics), LIMITS)

    async def ask():
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as one:
            return (await one.get("/api/model")).json()

    assert asyncio.run(ask())["test"] == {"auroc": None, "loss": 0.5}


@pytest.mark.parametrize(("content", "status", "message"), [
    (b"", 422, "the body is empty"), (b"hello", 415, "no PNG, JPEG or DICOM"),
    (b"GIF89a" + bytes(50), 415, "no PNG"), (png_header(10**5, 10**5), 413, "100,000 x 100,000"),
    (png_header(60, 60), 422, "image"), (b"\xff\xd8\xff" + bytes(99), 422, "header"),
    (bytes(128) + b"DICM" + bytes(90), 422, "DICOM"), (bytes(200_001), 413, "0.2 MB"),
    (b"[" * 150_000, 415, "no PNG"),
])
def test_what_is_no_radiograph_is_refused_in_words(client, content, status, message):
    for path in ("/api/findings", "/api/heatmap?finding=Mass"):
        assert message in problem(client.post(path, content=content), status)
    healthy(client)


def test_a_cut_png_a_form_and_wrong_parameters(client, radiograph):
    assert "truncated" in problem(client.post("/api/findings", content=radiograph[:-40]), 422)
    form = client.post("/api/findings", files={"file": radiograph})
    assert "not a form" in problem(form, 415)
    wrong = client.post("/api/heatmap?finding=Masss", content=radiograph)
    assert "finding" in problem(wrong, 422)
    assert "picture" in problem(client.post("/api/findings?picture=9", content=radiograph), 422)
    assert problem(client.get("/api/findings"), 405)
    assert problem(client.get("/nothing"), 404)
    healthy(client)


def test_a_body_without_a_length_is_bounded_too(client):
    def parts():
        for _ in range(30):
            yield bytes(10_000)

    assert "0.2 MB" in problem(client.post("/api/findings", content=parts()), 413)
    healthy(client)


def test_other_names_and_headers(client):
    assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 400
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "//" not in answer.text.replace("<!doctype", "")
    for name in ("page.js", "page.css"):
        assert client.get(f"/{name}").headers["x-content-type-options"] == "nosniff"


def test_fifty_clients_are_answered_or_refused_and_the_server_is_well(client, radiograph):
    bodies = [radiograph, radiograph, radiograph[:-40], b"hello", png_header(100_000, 100_000)]

    def ask(number):
        begun = time.monotonic()
        answer = many.post("/api/findings", content=bodies[number % 5])
        return number % 5, answer, time.monotonic() - begun

    with (
        httpx.Client(base_url=client.base_url, timeout=60) as many,
        concurrent.futures.ThreadPoolExecutor(50) as pool,
    ):
        answers = list(pool.map(ask, range(100)))
    seen = {answer.status_code for _, answer, _ in answers}
    assert {200, 503} <= seen <= {200, 413, 415, 422, 503}
    for kind, answer, seconds in answers:
        assert seconds < LIMITS.seconds + 10
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.status_code == {0: 200, 1: 200, 2: 422, 3: 415, 4: 413}[kind]
    healthy(client)
    assert client.post("/api/findings", content=radiograph).status_code == 200


def test_the_load_is_measured_by_the_bench(client, radiograph, tmp_path, capsys):
    path = tmp_path / "chest.png"
    path.write_bytes(radiograph)
    words = [f"--file={path}", f"--url={client.base_url}", "--clients=1,9", "--seconds=0.1"]
    program.main(serve_bench.add_arguments, serve_bench.run, "", words)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "9"]
    assert all(float(row[1]) > 0 and 0 < float(row[2]) <= float(row[3]) for row in rows)
    assert rows[0][4] == "0"
    path.write_bytes(b"hello")
    with pytest.raises(SystemExit):
        program.main(serve_bench.add_arguments, serve_bench.run, "", words)
    assert "/api/findings answers 415" in capsys.readouterr().err


def test_a_client_that_stops_sending_is_not_waited_for(xray_bundle, radiograph):
    with serving(xray_bundle, Limits(seconds=2.0, waiting=1), batch=1) as address:
        def slowly():
            yield radiograph[:100]
            time.sleep(4)
            yield radiograph[100:]

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(httpx.post, f"{address}/api/findings", content=slowly(), timeout=30)
            time.sleep(0.7)
            refused = httpx.post(f"{address}/api/findings", content=radiograph)
            assert "1 requests are being worked on" in problem(refused, 503)
            time.sleep(2)
            assert httpx.get(f"{address}/api/health").json()["requests"] == 0
            assert "not done within 2 s" in problem(slow.result(), 503)


def test_a_fault_of_the_server_says_nothing_of_its_insides(xray_bundle, radiograph, monkeypatch):
    from jaxcxr.deploy.serve import xray_routes

    with serving(xray_bundle, LIMITS) as address:
        monkeypatch.setattr(xray_routes, "_picture", lambda _: 1 / 0)
        answer = httpx.post(f"{address}/api/findings?picture=true", content=radiograph)
        assert "internal error" in problem(answer, 500)
        assert "division" not in answer.text
        assert httpx.get(f"{address}/api/health").json()["requests"] == 0
