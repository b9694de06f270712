"""The page of `jaxcxr render` in a headless Chromium."""

import numpy as np
import pytest

from jaxcxr.pose.player import motions, rendering
from tests.pose.player import takes

NAMES = ("walk/person 0/camera", "walk/person 1/camera")
PREDICTED, TRUE, GIVEN = 0xD55E00, 0x0072B2, 0x009E73


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    truth = takes.write_npz(folder / "walk.npz", NAMES)
    np.savez(folder / "labels.npz", **{NAMES[0]: truth[NAMES[0]], NAMES[1]: truth[NAMES[1]]})
    shown = motions.with_labels(motions.read(folder / "walk.npz"), folder / "labels.npz")
    # The second has no truth and no 2D input, as of another framework.
    shown[1] = motions.Take(NAMES[1], 50.0, 0, shown[1].joints)
    (folder / "a.html").write_text(rendering.page(shown, "walk.npz"), encoding="utf-8")
    return folder / "a.html"


@pytest.fixture
def page(chromium, file):
    """The page as on a laptop; what it reports as an error, or asks of the network, fails."""
    page = chromium.new_page(viewport={"width": 1100, "height": 900})
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert wrong == []
    assert asked == [file.as_uri()]
    page.close()


def frame(page):
    return page.evaluate("player.frame")


def drawn(page, canvas="space"):
    """The drawing as text that differs where the drawing does."""
    return page.evaluate(f"document.getElementById('{canvas}').toDataURL()")


def ink(page, color, canvas="space"):
    """How many pixels of a drawing have a colour such as 0xD55E00."""
    return page.evaluate(
        """([id, r, g, b]) => {
        const c = document.getElementById(id);
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        let count = 0;
        for (let i = 0; i < d.length; i += 4) {
          if (d[i + 3] > 128 && Math.abs(d[i] - r) < 40 && Math.abs(d[i + 1] - g) < 40 &&
              Math.abs(d[i + 2] - b) < 40) count++;
        }
        return count }""",
        [canvas, color >> 16, color >> 8 & 255, color & 255],
    )


def wait(page, condition):
    """Waits until an expression is true; the page lets nothing be evaluated from within."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within 10 s: {condition}")


def test_it_shows_prediction_truth_and_input(page, file):
    assert page.title() == "walk.npz"
    page.keyboard.press("End")
    assert ink(page, PREDICTED) > 500
    assert ink(page, TRUE) > 100
    assert ink(page, GIVEN, "image") > 500
    page.uncheck("#truth")
    assert ink(page, TRUE) == 0
    assert ink(page, PREDICTED) > 500


def test_the_words_say_the_frame_and_its_error(page):
    truth, guess, _ = takes.walk()
    page.keyboard.press("End")
    errors = np.linalg.norm(guess - truth, axis=-1)
    text = page.text_content("#said")
    assert "frame 50 of 50, 0.98 s" in text
    assert f"Mean error {errors[-1].mean():.0f} mm; largest {errors[-1].max():.0f} mm" in text
    page.click("#numbers summary")
    cells = page.locator("#rows tr").nth(13).locator("td").all_text_contents()
    assert cells[0] == "left wrist"
    np.testing.assert_allclose(np.array(cells[1:4], float), guess[-1, 13], atol=0.56)
    assert float(cells[4]) == pytest.approx(errors[-1, 13], abs=0.6)


def test_keys_and_the_slider_move_in_time(page):
    for key, expected in (("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10),
                          ("End", 49), ("ArrowRight", 49), ("Home", 0)):
        page.keyboard.press(key)
        assert frame(page) == expected
    page.focus("#time")
    page.keyboard.press("ArrowRight")
    assert frame(page) == 1
    page.fill("#time", "30")
    assert frame(page) == 30
    assert "0.60 / 0.98 s" in page.text_content("#clock")


def test_space_and_the_button_play_and_pause(page):
    page.select_option("#speed", "0.5")
    page.keyboard.press("Space")
    assert page.text_content("#play") == "Pause"
    wait(page, "player.frame > 3")
    page.keyboard.press("Space")
    assert page.text_content("#play") == "Play"
    stands = frame(page)
    page.wait_for_timeout(150)
    assert frame(page) == stands
    page.click("#play")
    wait(page, f"player.frame !== {stands}")
    page.keyboard.press("Space")  # the button has the focus and is pressed once
    assert page.evaluate("player.playing") is False


def test_the_mouse_turns_and_the_wheel_zooms(page):
    before = drawn(page)
    box = page.locator("#space").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y + 20)
    page.mouse.up()
    page.mouse.move(x + 200, y + 20)  # no button held: nothing turns
    view = page.evaluate("player.view")
    assert view["yaw"] == pytest.approx(-0.6 + 1.0)
    assert view["pitch"] == pytest.approx(0.15 - 0.2)
    page.mouse.wheel(0, -400)
    wait(page, "player.view.zoom > 1.5")
    assert drawn(page) != before
    page.keyboard.press("r")
    assert drawn(page) == before


def test_turning_by_a_quarter_shows_the_side(page):
    """At yaw 90 degrees what lies ahead stands at the right, where x stood before."""
    spot = """() => { player.view = {yaw: %s, pitch: 0, zoom: 1};
        const at = projector(400, 400)([%s, 0, %s]); return at[0] - 200 }"""
    ahead = page.evaluate(spot % (np.pi / 2, 0, 500))
    right = page.evaluate(spot % (0, 500, 0))
    assert ahead == pytest.approx(right)
    assert right > 0


def test_another_sequence_without_truth_and_input(page):
    page.select_option("#take", index=1)
    assert "person 1" in page.text_content("#said")
    assert "error" not in page.text_content("#said")
    for hidden in ("#overlay", "#curve", "#key-true", "#key-given"):
        assert not page.is_visible(hidden)
    assert "Camera view" in page.text_content("#seen")
    assert ink(page, PREDICTED, "image") > 500


def test_on_a_phone_with_fingers(chromium, file):
    context = chromium.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True,
        device_scale_factor=2, color_scheme="dark",
    )
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("#space").bounding_box()
    assert box["width"] > 300
    x, y = box["x"] + 150, box["y"] + 100
    touch = context.new_cdp_session(page)

    def send(kind, *points):
        touch.send("Input.dispatchTouchEvent", {
            "type": kind, "touchPoints": [{"x": px, "y": py, "id": i} for i, (px, py) in
                                          enumerate(points)],
        })

    send("touchStart", (x, y))
    send("touchMove", (x + 50, y))
    send("touchEnd")
    assert page.evaluate("player.view.yaw") == pytest.approx(-0.1, abs=0.02)
    send("touchStart", (x, y), (x + 40, y))
    send("touchMove", (x, y), (x + 80, y))
    send("touchEnd")
    assert page.evaluate("player.view.zoom") == pytest.approx(2, abs=0.1)
    assert ink(page, 0xFF8A3C) > 200  # the colours of the dark scheme
    context.close()
