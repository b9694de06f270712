"""The report page of radiographs: what is on it, and that it works in a browser."""

import html.parser
import re

import pytest

from jaxcxr import __main__ as command


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
