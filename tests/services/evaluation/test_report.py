"""The page of an evaluation: whole, self-contained, and safe whatever names it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from services.evaluation.report import report
from tests.services.browser import CHROMIUM, open_browser
from tests.services.evaluation.records import RECORDS, coded

CLIP = [replace(record, data=None, clip="door.mp4", map=None, map50=None) for record in RECORDS]
SETTINGS = {"model": "yolov5n", "split": "4.m", "size": "640", "versions": {"av": "18", "pillow": "13"}}
VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Checks that every element is closed in its turn, and keeps attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.elements, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_it_holds_every_source_setting_and_conclusion():
    page = Page(report(SETTINGS, [*RECORDS, *CLIP]))
    for text in ("street", "door.mp4", "jpeg quality=98", "rle bits=4", "pillow 13", "needs: jpeg 147 kB"):
        assert text in page.text
    assert page.elements.count("h2") == 4  # two sources, the method and the settings
    assert page.elements.count("figure") == 3  # mAP is drawn where there are labels
    assert page.text.count("At equal agreement") == 2


def test_it_says_what_the_plot_leaves_out():
    told = "Settings below .60 are in the table alone"
    assert told not in report(SETTINGS, RECORDS)
    assert told in report(SETTINGS, [*RECORDS, coded("jpeg:quality=1", 3, 0.2)])


def test_it_warns_of_few_objects():
    told = "With 99 confident detections differences may be chance"
    assert told not in Page(report(SETTINGS, RECORDS)).text
    assert told in Page(report(SETTINGS, [replace(record, objects=99) for record in RECORDS])).text


def test_it_has_no_empty_columns():
    labeled, unlabeled = (Page(report(SETTINGS, records)).text for records in (RECORDS, CLIP))
    assert "mAP lost" in labeled
    assert "mAP lost" not in unlabeled
    assert "agreement" in unlabeled


def test_one_is_not_plural():
    page = Page(report(SETTINGS, [replace(record, frames=1, objects=1) for record in CLIP]))
    assert "1 frame of a clip" in page.text
    assert "1 confident detection of the unsplit network" in page.text


def test_it_loads_nothing():
    text = report(SETTINGS, RECORDS)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "action"} & {name for name, _ in page.attributes}
    assert {value[0] for name, value in page.attributes if name.endswith("href")} == {"#"}
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    assert "http" not in text


def test_names_are_text():
    nasty = '<script>alert("1")</script>&amp;'
    records = [replace(record, data=nasty) for record in RECORDS]
    records += [replace(coded(f"{nasty}:{nasty}={number}", number, 0.9), data=nasty) for number in (1, 2)]
    page = Page(report({"model": nasty, "split": nasty, nasty: nasty}, records))
    assert "script" not in page.elements
    assert page.text.count(nasty) > 8


def test_a_source_without_objects_has_no_plot():
    page = Page(
        report(SETTINGS, [replace(record, agreement=None, map=None, objects=0) for record in RECORDS])
    )
    assert "figure" not in page.elements
    assert "jpeg quality=98" in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("width", [360, 1280])
async def test_it_fits_the_screen_and_says_what_a_point_is(width, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(report(SETTINGS, [*RECORDS, *CLIP]))
    async with open_browser() as browser:
        page = await browser.new_page(viewport={"width": width, "height": 800})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(path.as_uri())
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        drawing = await page.locator("figure > svg").first.bounding_box()
        assert drawing["x"] + drawing["width"] < width  # whole, on a phone too
        letters = await page.locator("figure > svg text").first.bounding_box()
        assert letters["height"] > 9
        assert (
            await page.locator("svg title").first.text_content() == "jpeg quality=50: 40.0 kB, agreement .800"
        )
        assert asked == [path.as_uri()]
        assert not errors
