"""The page in a headless Chromium."""

import json

import cv2
import numpy as np
import pytest

from jaxcxr.deploy.serve.limits import Limits
from tests.deploy.serve.conftest import serving
from tests.deploy.serve.test_pose_routes import QUERY, walk_json
from tests.xray.images import dicoms

_DROP = """([name, type, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def xrays(xray_bundle):
    with serving(xray_bundle, Limits(upload=50_000)) as address:
        yield address


@pytest.fixture(scope="module")
def poses(pose_bundle):
    with serving(pose_bundle) as address:
        yield address


@pytest.fixture
def opened(chromium):
    """Opens an address; what the page says on its console, or asks of another, fails."""
    pages, wrong, asked, refused = [], [], [], []

    def open_page(address, width=1100, height=1500, expects=()):
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text))
        page.on("request", lambda request: asked.append((address, request.url)))
        page.goto(address)
        wait(page, "state.model !== null")
        pages.append(page)
        refused.extend(expects)
        return page

    yield open_page
    # A browser notes an answer such as 415 on the console itself.
    assert [text for text in wrong if not any(str(code) in text for code in refused)] == []
    for address, url in asked:
        assert url.startswith((address, "data:", "blob:", "about:"))
    for page in pages:
        page.close()


def wait(page, condition):
    """Waits until an expression is true; the page's policy lets no text be run from within."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within 20 s: {condition}")


def drop(page, name, kind, content):
    page.evaluate(_DROP, [name, kind, list(content)])


def test_a_dropped_radiograph_shows_bars_and_a_heat_map_that_fades(
    opened, xrays, xray_bundle, radiograph
):
    page = opened(xrays)
    assert "For research only" in page.text_content("header")
    drop(page, "chest.png", "image/png", radiograph)
    page.wait_for_selector("#heat:not([hidden])")
    rows = page.locator("#rows tr")
    assert rows.count() == len(xray_bundle.classes)
    plain = {one.name: one.method == "identity" for one in xray_bundle.calibration.classes}
    for row in rows.all():
        shown, marked, _ = row.locator("td").nth(1).text_content().partition(" *")
        number = float(shown.removesuffix(" %"))
        assert bool(marked) == plain[row.locator("button").get_attribute("data-finding")]
        bar, back = (row.locator(f"svg .{name}").bounding_box() for name in ("fill", "back"))
        assert bar["width"] / back["width"] == pytest.approx(number / 100, abs=0.01)
    assert page.evaluate("document.getElementById('image').naturalWidth") == 96
    page.fill("#opacity", "25")
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0.25"
    assert page.text_content("#percent") == "25 %"
    assert page.get_attribute("#image", "alt") == "Radiograph chest.png"
    before = page.get_attribute("#heat", "src")
    other = page.locator("#rows button").nth(5)
    other.focus()
    page.keyboard.press("Enter")
    wait(page, f"document.getElementById('heat').src !== '{before}'")
    assert other.get_attribute("aria-pressed") == "true"
    assert page.locator("#rows button[aria-pressed=true]").count() == 1
    name = other.get_attribute("data-finding").replace("_", " ")
    assert name in page.get_attribute("#heat", "alt")


def test_a_chosen_dicom_file_on_a_phone(opened, xrays, radiograph, tmp_path):
    pixels = cv2.imdecode(np.frombuffer(radiograph, np.uint8), cv2.IMREAD_GRAYSCALE)
    path = dicoms.saved(tmp_path, dicoms.radiograph(pixels, ViewPosition="LL"))
    page = opened(xrays, width=360, height=740)
    page.set_input_files("#file", path)
    page.wait_for_selector("#flagged:not([hidden])")
    assert "ViewPosition says lateral" in page.text_content("#flagged")
    assert "no findings are stated" in page.text_content("#said")
    assert page.is_hidden("#heat")
    assert page.locator("#rows tr.found").count() == 0
    assert page.locator("#rows tr.unstated button:disabled").count() == page.locator(
        "#rows tr").count()
    assert page.is_visible("#flagged")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#rows svg").first.bounding_box()["width"] > 50


def test_mistakes_are_shown_and_the_next_file_clears_them(opened, xrays, radiograph):
    page = opened(xrays, expects=(415,))
    drop(page, "notes.txt", "text/plain", b"hello")
    page.wait_for_selector("#wrong:not([hidden])")
    assert "no PNG, JPEG or DICOM" in page.text_content("#wrong")
    drop(page, "huge.png", "image/png", bytes(50_001))
    wait(page, "document.getElementById('wrong').textContent.includes('0.05 MB')")
    drop(page, "chest.png", "image/png", radiograph)
    page.wait_for_selector("#heat:not([hidden])")
    assert not page.is_visible("#wrong")


def test_keypoints_show_a_skeleton_to_turn(opened, poses):
    page = opened(poses)
    for name in ("fps", "width", "height"):
        page.fill(f"#{name}", str(QUERY[name]))
    page.select_option("#joints", QUERY["joints"])
    drop(page, "walk.json", "application/json", walk_json())
    page.wait_for_selector("#player:not([hidden])")
    player = page.frame_locator("#player")
    player.locator("#said").filter(has_text="frame 1 of 20").wait_for()
    drawing = "canvas => canvas.toDataURL()"
    before = player.locator("#space").evaluate(drawing)
    player.locator("#space").focus()
    page.keyboard.press("a")
    assert player.locator("#space").evaluate(drawing) != before
    page.fill("#fps", "25")
    page.click("text=Lift again")
    player.locator("#clock").filter(has_text="0.76 s").wait_for()
    assert len(json.loads(walk_json())) == 20
