"""The report page: what is on it, and that it works in a browser."""

import html.parser
import re

import cv2
import numpy as np
import pytest

from jaxcxr import __main__ as command
from jaxcxr.report import page
from jaxcxr.report.page import Cell, Section
from jaxcxr.xray.explain import cases


class Parser(html.parser.HTMLParser):
    """Elements that are open, and everything that an element refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.alts = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.found += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag == "img":
            self.alts.append(attrs.get("alt"))
        if tag not in ("img", "meta", "input", "br", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag


def test_what_comes_from_data_is_escaped_and_absent_sections_are_left_out():
    evil = "<script>alert(1)</script>"
    text = page.whole(evil, [page.paragraph(evil)], [
        Section("a", evil, (page.table([evil], [[evil], [Cell(evil, 1.0)]], evil),
                            page.picture(b"x", evil, evil), page.code(evil),
                            page.before_after(b"x", b"y", evil, evil))),
        Section("b", "nothing", ()),
    ])
    assert "<script>alert" not in text
    assert "nothing" not in text
    assert text.count("<script>") == 1  # the page's own


def test_a_cell_sorts_by_its_number_and_shows_the_interval_below():
    text = page.table(["x"], [[Cell("0.500 [0.400, 0.600]", 0.5)], [Cell("n/a", None)],
                              [Cell("1", 1.0, shade=1.0)]])
    assert '<td data-value="0.5">0.500<small>[0.400, 0.600]</small></td>' in text
    assert '<td data-value="">n/a</td>' in text
    assert "rgb(0,114,178);color:#fff" in text


def test_cases_are_of_different_images_and_classes_first():
    labels = np.array([[1, 0], [1, 1], [0, 1], [-1, 0]])
    scores = np.array([[0.9, 0.8], [0.2, 0.95], [0.1, 0.3], [0.99, 0.1]])
    found = cases.choose(labels, scores, 2)
    pairs = {name: [(c.index, c.finding) for c in group] for name, group in found.items()}
    assert pairs == {"found": [(1, 1), (0, 0)], "missed": [(1, 0), (2, 1)],
                     "false alarms": [(0, 1), (2, 0)]}
    assert all(c.label == labels[c.index, c.finding] for g in found.values() for c in g)
    assert all((3, 0) not in group for group in pairs.values())  # unknown


def test_a_picture_under_a_map_is_unchanged_where_the_map_is_least():
    image = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
    heat = np.zeros((256, 256))
    heat[100:150, 100:150] = 1
    before, after = (
        cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        for png in cases.pictures(image, heat)
    )
    np.testing.assert_array_equal(before[:100], after[:100])
    assert (before[110:140, 110:140] != after[110:140, 110:140]).any(-1).mean() > 0.9


@pytest.fixture(scope="module")
def written(xray_run):
    command.run(["report", "--workdir", str(xray_run)])
    return xray_run / "report" / "index.html"


def test_the_page_of_a_run_is_whole_and_needs_nothing_else(written):
    text = written.read_text()
    parser = Parser()
    parser.feed(text)
    assert parser.open == []
    assert all(link.startswith(("data:", "#")) for link in parser.found)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert None not in parser.alts
    for part in ("Findings", "Calibration and thresholds", "Best and worst cases", "Subgroups",
                 "Model card", "For research only"):
        assert part in text
    assert "jaxcxr stress --workdir=RUN" in text or "Parts of the image" in text


def test_it_is_refused_where_nothing_was_evaluated(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command.run(["report", "--workdir", str(tmp_path)])
    assert stop.value.code == 2
    assert "holds no run" in capsys.readouterr().err


def test_it_sorts_slides_and_fits_a_phone_in_a_browser(written, chromium, tmp_path):
    tab = chromium.new_page(viewport={"width": 390, "height": 844})
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(written.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    column = "#findings tbody tr td:nth-child(4)"
    read = f"[...document.querySelectorAll('{column}')].map(c => c.dataset.value)"
    heading = tab.locator("#findings th button").nth(3)
    heading.click()
    up = [float(x) for x in tab.evaluate(read) if x]
    assert up == sorted(up)
    heading.click()
    down = [float(x) for x in tab.evaluate(read) if x]
    assert down == up[::-1]
    assert tab.evaluate(read)[-1] == "" or "" not in tab.evaluate(read)  # undefined stays last
    slider = tab.locator("input[data-case]").first
    slider.fill("80")
    style = tab.locator(".case .over").first.get_attribute("style")
    assert "80%" in style
    assert tab.pdf(path=str(tmp_path / "a.pdf"))[:4] == b"%PDF"
    assert said == []
    tab.close()
