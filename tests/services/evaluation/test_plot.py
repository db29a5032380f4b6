"""Figures as SVG: where points lie, what they say, and that a page's colors are theirs."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from services.evaluation.plot import COLORS, MARKS, Series, looks, page_svg, plot, style, svg

SERIES = (Series("one", 1, [(1, 0.7, "a"), (10, 0.8, "b <"), (100, 0.9, "c")]), Series("none", 2, []))


def _points(drawing):
    """Places of the points that say what they are, by what they say."""
    groups = [group for group in ET.fromstring(drawing).iter("g") if group.find("title") is not None]
    marks = {group.find("title").text: group.find(".//use") for group in groups}
    return {text: (float(mark.attrib["x"]), float(mark.attrib["y"])) for text, mark in marks.items()}


def test_rates_are_spaced_by_their_ratio_and_qualities_by_their_difference():
    (x1, y1), (x2, y2), (x3, y3) = _points(plot(SERIES, "agreement", 0.95, "t")).values()
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert x3 > x1
    assert y3 < y1


def test_points_say_what_they_are():
    assert list(_points(plot(SERIES, "agreement", 0.95, "t"))) == ["a", "b <", "c"]


def test_what_is_too_low_is_left_out():
    assert len(_points(plot(SERIES, "agreement", None, "t", least=0.75))) == 2


def test_ticks_are_round():
    texts = [node.text for node in ET.fromstring(plot(SERIES, "agreement", 0.95, "t")).iter("text")]
    assert [text for text in texts if text.isdigit()] == ["1", "2", "5", "10", "20", "50", "100"]
    assert {"0.70", "0.80", "0.90", "agreement", "kB per frame", "one"} < set(texts)
    assert "none" not in texts


def test_one_point_alone_is_in_the_picture():
    drawing = plot([Series("one", 0, [(5, 0.5, "a")])], "mAP", 0.5, "t")
    _, _, width, height = map(float, ET.fromstring(drawing).attrib["viewBox"].split())
    ((x, y),) = _points(drawing).values()
    assert 0 < x < width
    assert 0 < y < height


def test_nothing_is_not_drawn():
    assert plot(SERIES[1:], "agreement", 0.95, "t") is plot([], "mAP", None, "t") is None
    assert plot(SERIES, "agreement", 0.95, "t", least=0.95) is None


def test_a_codec_is_told_from_its_neighbors_by_color_and_by_mark():
    pairs = [(look["color"], look["marker"]) for look in looks("abcdefghij").values()]
    assert pairs == list(zip(COLORS, MARKS, strict=True))
    assert len(set(COLORS)) == len(set(MARKS)) == len(COLORS)


def _drawn():
    with style():
        figure = Figure()
        axis = figure.subplots()
        for number, color in enumerate(COLORS):
            axis.plot([0, 1], [0, number], color=color, marker="o")
    return figure


def test_the_same_figure_is_the_same_file():
    assert svg(_drawn()) == svg(_drawn())


def test_a_page_gives_a_figure_its_colors():
    element = page_svg(_drawn(), 'a "caption"')
    root = ET.fromstring(element)
    assert root.attrib["aria-label"] == 'a "caption"'
    assert not re.findall(r"#[0-9a-f]{6}", element), "all are the page's"
    variables = set(re.findall(r"var\(--(\w+)\)", element))
    assert {f"c{number}" for number in range(10)} - {"c6"} < variables
    assert {"ink", "line"} < variables


def test_ids_are_those_that_are_referred_to():
    """A page holds many figures, and matplotlib calls the parts of all alike."""
    element = page_svg(_drawn(), "t")
    ids = [node.attrib["id"] for node in ET.fromstring(element).iter() if "id" in node.attrib]
    referred = set(
        itertools.chain(re.findall(r'href="#([^"]+)"', element), re.findall(r"url\(#([^)]+)\)", element))
    )
    assert sorted(ids) == sorted(referred)
