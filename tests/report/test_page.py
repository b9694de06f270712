"""The parts of a page, and the charts on it."""

import re

import numpy as np
import pytest

from jaxcxr.report import page
from jaxcxr.report.page import Cell, Section
from jaxcxr.statistics.ranking import Curve


def test_what_comes_from_data_is_escaped_and_absent_sections_are_left_out():
    evil = "<script>alert(1)</script>"
    chart = page.CurveChart(evil, (evil, evil), "M0 0", "M0 0Z", "M0 0")
    blocks = [
        page.Paragraph(evil, warning=True), page.Subtitle(evil), page.Headline([(evil, evil)]),
        page.SortableTable([evil], [[evil], [Cell(evil, 1.0)]], evil),
        page.Picture(b"x", evil, evil), page.Charts([chart], evil),
        page.BeforeAfter(b"x", b"y", evil, evil), page.Preformatted(evil),
        page.EmbeddedPage(evil, evil),
    ]
    assert {*map(type, blocks), page.SideBySide, page.Details} == {*page.Block.__subclasses__()}
    text = page.render(evil, blocks, [
        Section("a", evil, [page.Details(evil, [page.SideBySide(blocks)])]),
        Section("b", "nothing", []),
    ])
    assert "<script>alert" not in text
    # Nothing is lost: five of the page and the section, and twenty-five of the blocks, twice.
    assert text.count("&lt;script&gt;alert(1)") == 5 + 2 * 25
    assert "nothing" not in text
    assert text.count("<script>") == 1  # the page's own


def test_a_cell_sorts_by_its_number_and_shows_the_interval_below():
    table = page.SortableTable(["x"], [
        [Cell("0.500 [0.400, 0.600]", 0.5)], [Cell("n/a", None)], [Cell("1", 1.0, shade=1.0)],
    ])
    text = page.render("t", [table], [])
    assert '<td data-value="0.5">0.500<small>[0.400, 0.600]</small></td>' in text
    assert '<td data-value="">n/a</td>' in text
    assert "rgb(0,114,178);color:#fff" in text


def test_a_chart_draws_the_curve_in_its_band():
    x = np.array([0.0, 0.5, 1.0])
    curve = Curve(x, x**2, x**2 - 0.1, x**2 + 0.1)
    chart = page.unit_chart("Mass", curve, ("recall", "precision"), (0.2, 0.2))
    text = page.render("t", [page.Charts([chart], "Mass")], [])
    assert 'aria-label="Mass: precision over recall"' in text

    def points(name):
        (path,) = re.findall(rf'class="{name}" d="M([^"Z]*)Z?"', text)
        places = np.array([point.split() for point in path.split("L")], float)
        return (places - (chart.left, chart.top)) / (chart.side, -chart.side) + (0, 1)

    np.testing.assert_allclose(points("curve"), np.stack([x, x**2], 1), atol=1e-3)
    np.testing.assert_allclose(points("band")[:3], np.stack([x, x**2 - 0.1], 1), atol=1e-3)
    np.testing.assert_allclose(points("band")[:2:-1], np.stack([x, x**2 + 0.1], 1), atol=1e-3)
    np.testing.assert_allclose(points("chance"), [(0, 0.2), (1, 0.2)], atol=1e-3)


def test_a_name_that_a_template_does_not_get_is_an_error():
    with pytest.raises(Exception, match="'title' is undefined"):
        page.render_template("report/page.html", top=[], sections=[])
