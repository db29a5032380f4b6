"""What the live page tells of a stream that is not well: its state, and the frames that gave no detections."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from playwright.async_api import Page, Route, expect

from stream.session.messages import Waiting
from tests.services.browser import CHROMIUM
from tests.services.detector.legibility import FAINT_TEXTS
from tests.services.detector.peers import linked
from tests.services.waiting import LIVENESS_S, until

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.asyncio(loop_scope="module"),
]

TROUBLE = {
    "source": "rtsp://10.0.0.20/stream1",
    "source_state": "lost",
    "reason": "rtsp://10.0.0.20/stream1: Connection refused",
}
# What a detector knows of a camera that has never said hello.
UNKNOWN = dict.fromkeys(
    (
        "model",
        "split",
        "codec",
        "canvas",
        "frame",
        "tensors",
        "raw_kb_per_frame",
        "camera",
        "last_frame_age_s",
    )
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(start_detector, make_camera):
    """A detector that has seen a camera whose video has ended."""
    async with start_detector() as running:
        await asyncio.wait_for(make_camera(running.url).run(), LIVENESS_S)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stream(running) -> dict[str, Any]:
    """What the detector tells of that camera."""
    async with ClientSession() as session, session.get(f"{running.http}/v1/streams/door") as answer:
        return await answer.json()


async def tell(page: Page, stream: dict[str, Any], **changes: Any) -> None:
    """Let the page hear these changes of what the detector tells of its only stream."""
    told = {**stream, **changes}
    await page.route("**/v1/streams/door", lambda route: route.fulfill(json=told))
    listed = {"model": "demo", "streams": [{key: told[key] for key in told if key != "history"}]}
    await page.route("**/v1/streams", lambda route: route.fulfill(json=listed))


SOME = r"([6-9]\d|1[01]\d) s"  # since a minute ago, as a busy machine may come to show it
STATES = [
    ("stalled", "nothing came for 5 s", rf"stalled for {SOME}", "The camera is silent"),
    ("frozen", "50 pictures alike", rf"frozen for {SOME}", "The picture stands still"),
    ("lost", "nothing came for 10 s", rf"lost {SOME} ago", "Stream lost: its boxes are gone."),
    ("ended", "the source has ended", rf"ended {SOME} ago", "Stream ended: its boxes are gone."),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_state_is_told_with_its_reason_and_since_when(running, stream, browse, scheme):
    async with browse(running.http, color_scheme=scheme, timezone_id="UTC") as page:
        for state, reason, words, notice in STATES:
            since = time.time() - 60
            await tell(page, stream, state=state, reason=reason, state_since=since)
            article = page.get_by_role("article", name="door")
            await expect(article.locator(".state")).to_have_text(re.compile(f"^{words}: {reason}$"))
            await expect(page.get_by_role("link", name="door")).to_have_text(re.compile(f"^door{words}$"))
            await expect(page.locator(f'nav .dot[data-state="{state}"]')).to_be_visible()
            await expect(article.get_by_role("status")).to_contain_text(notice)
            clock = time.strftime("%H:%M:%S", time.gmtime(since))
            await expect(page.locator('[data-fact="link"]')).to_have_text(f"{state} since {clock}")
            await expect(page.locator("canvas")).to_have_css("opacity", "0.35")
            assert (await page.evaluate(FAINT_TEXTS))["faint"] == []


async def test_a_state_of_another_day_is_told_with_its_date(running, stream, browse):
    async with browse(running.http, timezone_id="UTC") as page:
        await tell(page, stream, state="lost", reason="", state_since=1795479221.259)
        await expect(page.locator('[data-fact="link"]')).to_have_text(
            re.compile(r"^lost since 2\d \w+ 2026, \d\d:\d\d:41$")
        )


@pytest.mark.parametrize("width", [1280, 360])
async def test_a_camera_without_a_picture_is_shown_with_its_trouble(running, stream, browse, width):
    stream = {**stream, **UNKNOWN, "frames": 0, "detections": 0, "stages_ms": {}}
    empty = {key: 1 if key == "interval_s" else [] for key in stream["history"]}
    async with browse(running.http, viewport={"width": width, "height": 800}) as page:
        await tell(
            page,
            stream,
            state="waiting",
            reason="",
            state_since=time.time() - 60,
            waiting=TROUBLE,
            history=empty,
        )
        article = page.get_by_role("article", name="door")
        await expect(article.locator(".state")).to_have_text(
            re.compile(rf"^waiting for {SOME}: {re.escape(TROUBLE['reason'])}$")
        )
        await expect(article.get_by_role("status")).to_contain_text("its source gives no picture")
        await expect(page.locator('[data-fact="source"]')).to_have_text(TROUBLE["source"])
        await expect(page.locator('[data-fact="state"]')).to_have_text("lost")
        await expect(page.locator('[data-fact="model"]')).to_have_text("\N{EN DASH}")
        await expect(page.get_by_text("No pixels here")).to_be_hidden()
        await expect(page.get_by_role("region", name="Where the time goes")).to_be_hidden()
        await expect(page.get_by_role("heading", name="Frame rate")).to_be_hidden()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(overflow) == 0


async def test_a_camera_that_says_it_waits_is_on_the_page(start_detector, browse):
    waiting = Waiting(stream="door", session="0" * 32, **TROUBLE)
    async with start_detector() as running, linked(running.url) as link:
        await link.send(waiting.text())
        async with browse(running.http) as page:
            article = page.get_by_role("article", name="door")
            await expect(article.locator(".state")).to_have_text(
                re.compile(rf"^waiting for \d+ s: {re.escape(TROUBLE['reason'])}$")
            )
            await expect(page.locator('[data-fact="source"]')).to_have_text(TROUBLE["source"])
            await expect(article.get_by_role("status")).to_contain_text("its source gives no picture")


async def test_frames_that_were_dropped_are_marked_in_the_curve_and_counted(running, stream, browse):
    samples = 60
    history = {key: [1.0] * samples for key in stream["history"] if key != "interval_s"}
    history |= {"interval_s": 1, "unix_s": [1795479221.0 + i for i in range(samples)]}
    history["dropped"] = [None, *[0] * 56, 3, 0, 1]
    async with browse(running.http) as page:
        await tell(page, stream, history=history)
        await expect(page.get_by_text("4 dropped in 60 s")).to_be_visible()
        marks = page.locator('[data-series="frames_per_second"] .lost')
        await expect(marks).to_have_attribute("d", re.compile(r"^M58\.0,32v-[\d.]+M60\.0,32v-[\d.]+$"))
        await expect(page.locator('[data-series="latency_ms"] .lost')).to_have_attribute("d", "")
        await tell(page, stream, history={**history, "dropped": [0] * samples})
        await expect(page.get_by_text("dropped in")).to_be_hidden()


def gap(**changes: Any) -> str:
    message = {"type": "gap", "stream": "door", "first": 4711, "last": 4713, "frames": 3}
    message |= {"reasons": {"grab/superseded": 3}, "at": time.time(), "connection": 1}
    return json.dumps(message | changes)


async def test_the_latest_gap_and_what_this_browser_missed_are_told(running, stream, browse):
    await until(lambda: not len(running.detector.broadcast))  # pages of tests before have left
    async with browse(running.http) as page:
        drops = page.get_by_role("region", name="Frames dropped")
        await until(lambda: len(running.detector.broadcast))
        await expect(drops.get_by_text("Latest")).to_be_hidden()
        await expect(drops.get_by_text("too slow")).to_be_hidden()

        def publish(text: str) -> None:
            running.detector.broadcast.publish("door", "gap", text)

        publish(gap(first=17, last=17, frames=1))
        publish(gap())
        await expect(
            drops.get_by_text(re.compile(r"^Latest: 3 frames from 4,711 on, \d+ s ago\.$"))
        ).to_be_visible()
        publish(gap(dropped=12))
        # What comes faster than the display shows is still counted.
        for sequence in range(50):
            publish(json.dumps({"type": "detections", "sequence": sequence, "dropped": 1}))
        await expect(drops.get_by_text("62 messages lost on the way here")).to_be_visible()
        publish(gap(reasons={"grab/superseded": 1, "local": 2}))
        await expect(
            drops.get_by_text(re.compile(r"^Latest: 3 frames .+ ago, 2 of them detected on the camera\.$"))
        ).to_be_visible()
        publish(gap(dropped="many", reasons=None))
        publish('{"type":"gap"')
        publish(gap(first=20000))
        await expect(drops.get_by_text("from 20,000 on")).to_be_visible()
        await expect(drops.get_by_text("62 messages lost")).to_be_visible()


async def test_what_comes_late_is_told_so_and_is_not_what_the_page_opens_with(running, stream, browse):
    """The camera's own stream is, though the late one stands before it."""
    live = {**stream, "state": "connected", "reason": "", "last_frame_age_s": 0.1, "frames_per_second": 10.0}
    late = {**live, "name": "door.late", "late": True, "frames_per_second": 2.5}

    by_name = {told["name"]: told for told in (late, live)}
    listed = [{key: told[key] for key in told if key != "history"} for told in by_name.values()]

    async def tell_one(route: Route) -> None:
        await route.fulfill(json=by_name[route.request.url.rpartition("/")[2]])

    async with browse(running.http) as page:
        await page.route("**/v1/streams/*", tell_one)
        await page.route(
            "**/v1/streams", lambda route: route.fulfill(json={"model": "demo", "streams": listed})
        )
        await page.goto(running.http)
        words = page.get_by_role("article", name="door", exact=True).locator(".state")
        await expect(words).to_have_text("connected, 10.0 frames/s")
        link = page.get_by_role("link", name="door.late")
        await expect(link).to_have_text("door.latelate, frames of an outage, 2.5 frames/s")
        await link.click()
        words = page.get_by_role("article", name="door.late").locator(".state")
        await expect(words).to_have_text("late, frames of an outage, 2.5 frames/s")
        assert (await page.evaluate(FAINT_TEXTS))["faint"] == []
