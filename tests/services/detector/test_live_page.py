"""The live page in a real browser, served by a real detector to which real cameras send."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote, urlsplit

import pytest
from aiohttp import ClientSession, web
from playwright.async_api import Page, Route, expect

from services.camera.service import Camera
from services.detector.service import Detector
from stream.latency import STAGES
from stream.network.cut import layout
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.torch_network.model import load_model
from tests.services.browser import CHROMIUM
from tests.services.calibrated import make_profile
from tests.services.clips import SIZE
from tests.services.detector.legibility import FAINT_TEXTS
from tests.services.waiting import LIVENESS_S, until
from tests.stream.network import legacy

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.asyncio(loop_scope="module"),
]

LIVE = {"loop": True, "realtime": True}  # a camera that goes on until it is stopped
GONE = re.compile(r"^ended \d+ s ago(: .+)?$")
CONNECTED = re.compile(r"^connected, \d+\.\d frames/s$")
HEIGHT, WIDTH = SIZE


@asynccontextmanager
async def playing(*cameras: Camera) -> AsyncIterator[None]:
    """Cameras that run meanwhile."""
    tasks = [asyncio.ensure_future(camera.run()) for camera in cameras]
    try:
        yield
    finally:
        for camera in cameras:
            camera.stop()
        async with asyncio.timeout(LIVENESS_S):
            await asyncio.gather(*tasks)


def detections(sequence: int, *boxes: tuple[float, float, float, float], name: str = "thing") -> str:
    """A message of the detector; boxes by center and size."""
    predictions = [
        {"x": x, "y": y, "width": w, "height": h, "confidence": 0.5, "class": name, "class_id": 0}
        for x, y, w, h in boxes
    ]
    message = {"type": "detections", "stream": "door", "sequence": sequence, "captured_ns": sequence * 10**7}
    return json.dumps({**message, "image": {"width": WIDTH, "height": HEIGHT}, "predictions": predictions})


# Pixels of a copy: reading the page's own canvas again and again earns a warning.
COPY_CANVAS = """
function pixels() {
  const canvas = document.querySelector("canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
"""


async def wait_for_colors(page: Page, least: int) -> None:
    """Wait until the canvas shows so many pixels that are neither stage nor grid nor any other gray."""
    await page.wait_for_function(
        f"""least => {{ {COPY_CANVAS}
          const data = pixels().data;
          let count = 0;
          for (let i = 0; i < data.length; i += 4)
            count += Math.max(data[i], data[i + 1], data[i + 2]) > 100 &&
              Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 40;
          return count >= least;
        }}""",
        arg=least,
    )


async def color_at(page: Page, x: float, y: float) -> tuple[int, ...]:
    """Color of the canvas where a point of the frame lies."""
    return tuple(
        await page.evaluate(
            f"""([x, y]) => {{ {COPY_CANVAS}
              const {{ data, width, height }} = pixels();
              const at = 4 * (Math.round(y * height) * width + Math.round(x * width));
              return [...data.slice(at, at + 3)];
            }}""",
            [x / WIDTH, y / HEIGHT],
        )
    )


def stream_link(page: Page, name: str):
    return page.get_by_role("navigation", name="Streams").get_by_role("link", name=name)


async def frames_shown(page: Page) -> int:
    note = await page.locator('[data-series="frames_per_second"] .note').text_content()
    return int(re.match(r"[\d,]+", note or "")[0].replace(",", ""))


# --- a stream ---


async def test_boxes_and_numbers_follow_a_camera(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await expect(page.get_by_role("heading", name="door")).to_be_visible()
        assert page.url.endswith("#door")
        await expect(page).to_have_title("door \N{EN DASH} Splitcast")
        await wait_for_colors(page, 200)
        await expect(
            page.get_by_role("img", name=re.compile(r"Boxes of the latest frame: \d+ thing"))
        ).to_be_visible()
        await expect(page.get_by_text("not one pixel reaches this detector")).to_be_visible()
        before = await frames_shown(page)
        await until_shown(page, before + 20)
        for series in ("frames_per_second", "kbit_per_second", "latency_ms", "detections"):
            tile = page.locator(f'.tile[data-series="{series}"]')
            await expect(tile.locator("b")).to_have_text(re.compile(r"^[\d,]+(\.\d)?$"))
            await expect(
                tile.get_by_role("img", name=re.compile(r"in the last \d+ (s|min): lowest"))
            ).to_be_visible()
            await expect(tile.locator("svg .line")).to_have_attribute("d", re.compile(r"^M.+L"))
        stages = page.get_by_role("region", name="Where the time goes")
        for stage in STAGES:
            await expect(
                stages.get_by_role("listitem").filter(has_text=re.compile(rf"^{stage} [\d.]+$"))
            ).to_have_count(1)
        shares = await page.locator(".bar span").evaluate_all("spans => spans.map(s => s.offsetWidth)")
        assert len(shares) == len(STAGES)
        assert sum(shares) > 0.9 * await page.locator(".bar").evaluate("bar => bar.offsetWidth")
        sizes = page.get_by_role("region", name="A frame on the wire")
        await expect(
            sizes.get_by_text(re.compile(r"[\d.]+ times smaller than the raw tensors"))
        ).to_be_visible()
        await expect(page.get_by_role("region", name="Keyframes").get_by_role("listitem")).to_contain_text(
            ["first"]
        )
        size = f"{WIDTH} \N{MULTIPLICATION SIGN} {HEIGHT}"
        await expect(page.locator('[data-fact="canvas"]')).to_have_text(f"{size}, from {size}")


async def test_the_codec_is_told_with_the_start_of_its_profile(
    start_detector, make_camera, browse, weights, tmp_path
):
    profile = make_profile(layout(load_model(weights).graph, "4.m", SIZE))
    (file := tmp_path / "camera.profile").write_bytes(profile.pack())
    feature = {"codec": "feature:quality=7", "profile": str(file)}
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **feature, **LIVE)),
    ):
        fact = page.locator('[data-fact="codec"]')
        await expect(fact).to_contain_text("feature:quality=7, temporal=true")
        await expect(fact).to_contain_text(f"profile={profile.hash[:8]}\N{HORIZONTAL ELLIPSIS}")
        await expect(fact).not_to_contain_text(profile.hash[:9])
        await until_shown(page, 20)
        await expect(fact).not_to_contain_text("coarser")


async def test_a_step_that_rate_control_chose_is_told(start_detector, make_camera, browse):
    slow = {"codec": "feature:profile=none", "target_kbps": 20.0}
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **slow, **LIVE)),
    ):
        fact = page.locator('[data-fact="codec"]')
        await expect(fact).to_contain_text(
            re.compile(r"; now coarser: step \d+ for the (start|target|link)$")
        )


async def until_shown(page: Page, frames: int) -> None:
    """Wait until the page tells of so many frames."""
    async with asyncio.timeout(LIVENESS_S):
        while await frames_shown(page) < frames:  # noqa: ASYNC110 - the page signals nothing
            await asyncio.sleep(0.05)


async def test_boxes_are_drawn_where_they_are(start_detector, make_camera, browse):
    """A stream that is lost still has subscribers, and nothing else is drawn on it."""
    async with start_detector() as running:
        await asyncio.wait_for(make_camera(running.url).run(), LIVENESS_S)
        async with browse(running.http, device_scale_factor=2) as page:
            await expect(page.get_by_role("heading", name="door")).to_be_visible()
            await until(lambda: len(running.detector.broadcast))
            running.detector.broadcast.publish("door", "detections", detections(1, (24, 32, 24, 32)))
            await wait_for_colors(page, 200)
            stage, box = (0x10, 0x16, 0x1D), (0x77, 0xAA, 0xDD)
            assert [await color_at(page, x, 32) for x in (12, 36)] == [box, box]
            assert [await color_at(page, 24, y) for y in (16, 48)] == [box, box]
            assert await color_at(page, 24, 32) not in (box, stage)  # tinted
            assert await color_at(page, 44, 44) == stage  # between the lines of the grid
            canvas = page.locator("canvas")
            assert await canvas.evaluate("canvas => canvas.width / canvas.clientWidth") == pytest.approx(
                2, abs=0.01
            )
            assert await canvas.evaluate("canvas => canvas.width / canvas.height") == pytest.approx(
                1.5, abs=0.01
            )


async def test_a_box_that_moves_leaves_a_trail_unless_motion_is_unwanted(start_detector, make_camera, browse):
    async with start_detector() as running:
        await asyncio.wait_for(make_camera(running.url).run(), LIVENESS_S)
        for motion, trail in (("no-preference", True), ("reduce", False)):
            async with browse(running.http, reduced_motion=motion) as page:
                await expect(page.get_by_role("heading", name="door")).to_be_visible()
                await until(lambda: len(running.detector.broadcast))
                running.detector.broadcast.publish("door", "detections", detections(1, (21, 53, 8, 8)))
                await expect(page.get_by_role("img", name="1 thing")).to_be_visible()
                running.detector.broadcast.publish(
                    "door", "detections", detections(2, (61, 21, 20, 20), (61, 21, 9, 9))
                )
                await expect(page.get_by_role("img", name="2 thing")).to_be_visible()
                stage = await color_at(page, 21, 37)
                assert (await color_at(page, 21, 53) != stage) == trail
            await until(lambda: not len(running.detector.broadcast))


async def test_a_stream_that_stops_is_lost_and_comes_back(start_detector, make_camera, browse):
    async with start_detector() as running, browse(running.http) as page:
        async with playing(make_camera(running.url, **LIVE)):
            await expect(page.locator("article .state .words")).to_have_text(CONNECTED)
            await expect(page.locator("canvas")).to_have_css("opacity", "1")
        await expect(page.locator("article .state .words")).to_have_text(GONE)
        await expect(stream_link(page, "door")).to_contain_text(re.compile(r"ended \d+ s ago"))
        await expect(
            page.get_by_text(re.compile("^Stream ended: these are its last boxes.$"))
        ).to_be_visible()
        await expect(page.locator("canvas")).to_have_css("opacity", "0.35")
        frames = await frames_shown(page)
        async with playing(make_camera(running.url, **LIVE)):
            await expect(page.locator("article .state .words")).to_have_text(CONNECTED)
            await expect(page.get_by_role("article").get_by_role("status")).to_be_hidden()
            await expect(page.locator("canvas")).to_have_css("opacity", "1")
            await until_shown(page, frames + 5)
            await expect(page.locator('[data-fact="link"]')).to_have_text(
                re.compile(r"^connected since .+, reconnected once$")
            )


async def test_a_second_stream_is_opened_by_keyboard_and_by_its_link(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await expect(page.get_by_role("heading", name="door")).to_be_visible()
        async with playing(make_camera(running.url, stream="porch", **LIVE)):
            await expect(stream_link(page, "porch")).to_contain_text("connected")
            await expect(stream_link(page, "door")).to_have_attribute("aria-current", "true")
            await page.keyboard.press("Tab")
            await expect(stream_link(page, "door")).to_be_focused()
            await page.keyboard.press("Tab")
            await expect(stream_link(page, "porch")).to_be_focused()
            await expect(stream_link(page, "porch")).to_have_css("outline-style", "solid")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", name="porch")).to_be_visible()
            await expect(stream_link(page, "porch")).to_be_focused()
            await expect(stream_link(page, "porch")).to_have_attribute("aria-current", "true")
            await expect(stream_link(page, "door")).not_to_have_attribute("aria-current", "true")
            await wait_for_colors(page, 200)
            await page.reload()
            await expect(page.get_by_role("heading", name="porch")).to_be_visible()
            await page.go_back()
            await expect(page.get_by_role("heading", name="door")).to_be_visible()


# --- no stream ---


async def test_an_empty_detector_tells_how_to_connect_a_camera(start_detector, make_camera, browse):
    permissions = ["clipboard-read", "clipboard-write"]
    async with start_detector() as running, browse(running.http, permissions=permissions) as page:
        await expect(page.get_by_role("heading", name="No camera yet")).to_be_visible()
        await expect(page.get_by_role("navigation")).to_have_count(0)
        for number, source in enumerate(("0", "demo")):
            command = f"splitcast camera --model WEIGHTS --source {source} --detector {running.url}"
            await expect(page.get_by_text(command, exact=True)).to_be_visible()
            button = page.get_by_role("button").nth(number)
            await button.focus()
            await page.keyboard.press("Enter")
            await expect(button).to_have_text("Copied")
            assert await page.evaluate("navigator.clipboard.readText()") == command
        async with playing(make_camera(running.url, **LIVE)):
            await expect(page.get_by_role("heading", name="door")).to_be_visible()
            await expect(page.get_by_role("heading", name="No camera yet")).to_be_hidden()


async def test_a_command_is_copied_without_the_clipboards_interface(start_detector, browse):
    """A page from another machine over plain http has none."""
    async with (
        start_detector() as running,
        browse(running.http, permissions=["clipboard-read", "clipboard-write"]) as page,
    ):
        await expect(page.get_by_role("heading", name="No camera yet")).to_be_visible()
        await page.evaluate(
            "void (navigator.clipboard.writeText = () => Promise.reject(new Error('refused')))"
        )
        await page.get_by_role("button").first.click()
        await expect(page.get_by_role("button").first).to_have_text("Copied")
        assert (
            await page.evaluate("navigator.clipboard.readText()")
            == f"splitcast camera --model WEIGHTS --source 0 --detector {running.url}"
        )


@pytest.mark.parametrize(("model", "given"), [("demo", "demo"), (None, "WEIGHTS")])
async def test_the_commands_name_the_detectors_network(start_detector, browse, model, given):
    async with start_detector() as running, browse(running.http) as page:
        await page.route("**/v1/streams", lambda route: route.fulfill(json={"model": model, "streams": []}))
        await expect(page.locator(".command code").first).to_contain_text(f"--model {given} --source 0")
        await expect(page.get_by_text("weights from a file")).to_be_visible(visible=model is None)


async def test_a_name_of_yesterday_does_not_hide_how_to_connect(start_detector, browse):
    async with start_detector() as running, browse(f"{running.http}/#street") as page:
        await expect(page.get_by_role("heading", name="No stream named street")).to_be_visible()
        await expect(page.locator("code", has_text="--source demo")).to_be_visible()
        await expect(page.get_by_text("never the picture")).to_be_visible()


async def test_a_stream_that_is_not_there_yet_opens_when_it_comes(start_detector, make_camera, browse):
    async with start_detector() as running, browse(f"{running.http}/#porch") as page:
        await expect(page.get_by_role("heading", name="No stream named porch")).to_be_visible()
        async with playing(make_camera(running.url, stream="door", **LIVE)):
            await expect(stream_link(page, "door")).to_contain_text("connected")
            await expect(page.get_by_role("heading", name="No stream named porch")).to_be_visible()
            async with playing(make_camera(running.url, stream="porch", **LIVE)):
                await expect(page.get_by_role("heading", name="porch", exact=True)).to_be_visible()


# --- looks ---


async def test_light_and_dark_follow_the_system_and_are_legible(start_detector, make_camera, browse):
    grounds = {}
    async with start_detector() as running, playing(make_camera(running.url, preview=True, **LIVE)):
        for scheme in ("light", "dark"):
            async with browse(running.http, color_scheme=scheme) as page:
                await expect(page.get_by_text("Preview on")).to_be_visible()
                await expect(page.locator(".places li").first).to_be_visible()
                grounds[scheme] = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                texts = await page.evaluate(FAINT_TEXTS)
                assert texts["seen"] > 50
                assert texts["faint"] == []
    red = {scheme: int(re.search(r"\d+", ground)[0]) for scheme, ground in grounds.items()}
    assert red["light"] > 200
    assert red["dark"] < 50


@pytest.mark.parametrize("stream", ["door", "d" * 64])
async def test_a_phone_shows_all_without_sideways_scrolling(start_detector, make_camera, browse, stream):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    too_small = """() => [...document.querySelectorAll("a, button")].filter(e => e.checkVisibility())
        .map(e => e.getBoundingClientRect().height).filter(height => height < 44)"""
    async with start_detector() as running, browse(running.http, **phone) as page:
        await expect(page.get_by_role("heading", name="No camera yet")).to_be_visible()
        assert await page.evaluate(overflow) == 0
        assert await page.evaluate(too_small) == []
        async with playing(make_camera(running.url, stream=stream, **LIVE)):
            await expect(page.get_by_role("heading", name=stream)).to_be_visible()
            await expect(
                page.get_by_role("region", name="Where the time goes").get_by_text("tail")
            ).to_be_visible()
            assert await page.evaluate("window.innerWidth") == 360
            assert await page.evaluate(overflow) == 0
            assert await page.evaluate(too_small) == []


async def test_a_screen_reader_finds_names_and_roles(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await expect(
            page.get_by_role("region", name="Where the time goes").get_by_text("tail")
        ).to_be_visible()
        await expect(page.locator("body")).to_match_aria_snapshot(r"""
                - banner:
                  - heading "Splitcast" [level=1]
                  - status: following the detector
                - navigation "Streams":
                  - heading "Streams" [level=2]
                  - list:
                    - listitem:
                      - link /door connected, .* frames/
                - main:
                  - article "door":
                    - heading "door" [level=2]
                    - figure:
                      - img /Boxes of the latest frame/
                      - list "Objects in the latest frame"
                    - heading "Frame rate" [level=3]
                    - img /Frame rate in the last/
                    - heading "Bandwidth" [level=3]
                    - img /Bandwidth in the last/
                    - heading "Latency" [level=3]
                    - img /Latency in the last/
                    - heading "Detections" [level=3]
                    - img /Detections in the last/
                    - region "Where the time goes":
                      - list
                    - region "A frame on the wire":
                      - list
                    - region "Frames dropped"
                    - region "Keyframes"
                    - region "Camera":
                      - term: Source
                      - definition: /.+/
            """)


# --- pixels ---


async def test_a_preview_is_marked_and_its_absence_asks_for_no_picture(start_detector, make_camera, browse):
    paths: list[str] = []
    async with start_detector() as running, browse(running.http) as page:
        page.on("request", lambda request: paths.append(urlsplit(request.url).path))
        async with playing(make_camera(running.url, **LIVE)):
            await until_any_shown(page)
            await expect(page.get_by_text("Preview on")).to_be_hidden()
            await expect(page.get_by_text("not one pixel reaches this detector")).to_be_visible()
            await expect(page.get_by_text("No pixels here")).to_be_visible()
            polled = paths.count("/v1/streams/door")
            await until(lambda: paths.count("/v1/streams/door") > polled + 1)
            assert "/v1/streams/door/preview.jpg" not in paths
        async with playing(make_camera(running.url, stream="porch", preview=True, **LIVE)):
            await stream_link(page, "porch").click()
            await expect(page.get_by_text("Preview on: this camera sends pixels")).to_be_visible()
            await expect(page.get_by_text("not one pixel")).to_be_hidden()
            await expect(page.get_by_text("No pixels here")).to_be_hidden()
            # The scene is noise of all colors; boxes alone are lines on an even stage.
            await page.wait_for_function(
                f"""() => {{ {COPY_CANVAS}
                  const data = pixels().data;
                  const seen = new Set();
                  for (let i = 0; i < data.length; i += 4) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
                  return seen.size > 5000;
                }}"""
            )
        await expect(page.locator("article .state .words")).to_have_text(GONE)
        await expect(page.get_by_text("Preview on")).to_be_hidden()


async def until_any_shown(page: Page) -> None:
    await expect(page.locator("article .state .words")).to_have_text(CONNECTED)
    await until_shown(page, 1)


# --- what must not break ---


async def test_a_blocked_page_slows_neither_detector_nor_camera(start_detector, make_camera, browse):
    """The page's only thread waits; its socket fills, its messages are dropped, and frames go on being detected."""
    released = asyncio.Event()

    async def hold(route: Route) -> None:
        await released.wait()
        await route.fulfill(body="")

    async with (
        start_detector(subscriber_queue=2) as running,
        browse(running.http, tolerate="Synchronous XMLHttpRequest") as page,
    ):
        await page.route("**/hold", hold)
        camera = make_camera(running.url, loop=True)
        async with playing(camera):
            await until_any_shown(page)
            blocked = asyncio.ensure_future(
                page.evaluate(
                    """() => {
                      const request = new XMLHttpRequest();
                      request.open("GET", "hold", false);
                      request.send();
                    }"""
                )
            )
            try:
                await flood(running.detector)
                before = camera.statistics.frame_counts.detected
                await until(lambda: camera.statistics.frame_counts.detected >= before + 20)
                assert not blocked.done()
            finally:
                released.set()  # whatever happened: nobody can close a page that is blocked
            async with asyncio.timeout(LIVENESS_S):
                await blocked
                frames = await frames_shown(page)
            await until_shown(page, max(frames, before) + 1)


async def flood(detector: Detector) -> None:
    """Publish to the page until nothing goes out any more: every further message costs an older one."""
    text = detections(1, *[(48, 32, 10, 10)] * 3000)
    sample = detector.statistics.metrics.registry.get_sample_value

    def dropped() -> float:
        return sample("splitcast_detector_subscriber_dropped_messages_total")

    in_a_row = 0
    async with asyncio.timeout(LIVENESS_S):
        while in_a_row < 50:
            before = dropped()
            detector.broadcast.publish("door", "detections", text)
            in_a_row = in_a_row + 1 if dropped() > before else 0
            await asyncio.sleep(0.001)


async def test_many_boxes_faster_than_the_display_end_with_the_newest(start_detector, make_camera, browse):
    async with start_detector(subscriber_queue=2000) as running:
        await asyncio.wait_for(make_camera(running.url).run(), LIVENESS_S)
        async with browse(running.http) as page:
            await expect(page.get_by_role("heading", name="door")).to_be_visible()
            await until(lambda: len(running.detector.broadcast))
            crowd = [(4 + 88 * (i % 20) / 20, 4 + 56 * (i // 20) / 15, 4, 4) for i in range(300)]
            for sequence in range(1, 500):
                running.detector.broadcast.publish("door", "detections", detections(sequence, *crowd))
            running.detector.broadcast.publish("door", "detections", detections(500, *crowd[:7], name="last"))
            await expect(page.get_by_role("img", name="Boxes of the latest frame: 7 last")).to_be_visible()


async def test_names_from_peers_are_text(start_detector, make_camera, browse, tmp_path, video):
    evil = "<img src=x onerror=alert(1)>"
    model = legacy.Model(legacy.description("n", 2))
    model.names = [evil, "<script>alert(2)</script>"]
    weights = legacy.save(model, tmp_path / f"{evil}.pt")
    source = tmp_path / f"{evil}.avi"
    source.write_bytes(video.read_bytes())
    peer = {"model": str(weights), "source": str(source), **LIVE}
    async with (
        start_detector(model=str(weights)) as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **peer)),
    ):
        await expect(page.locator('[data-fact="source"]')).to_contain_text(f"{evil}.avi")
        await expect(page.locator('[data-fact="model"]')).to_contain_text(evil)
        await expect(page.locator(".classes")).to_contain_text(re.compile("<img src=x onerror|<script>alert"))
        await page.goto(f"{running.http}/#{quote(evil)}")
        await expect(page.get_by_role("heading", name=f"No stream named {evil}")).to_be_visible()
        await page.goto(f"{running.http}/#%E0%A4%A")
        await expect(page.get_by_role("heading", name="No stream named %E0%A4%A")).to_be_visible()
        assert await page.locator("img, body script, b img").count() == 0


async def test_the_page_finds_a_detector_that_comes_back(start_detector, make_camera, browse):
    opened = AsyncExitStack()  # the page outlives the first detector, not the second
    async with start_detector() as running:
        page = await opened.enter_async_context(browse(running.http, tolerate="ERR_CONNECTION_REFUSED"))
        async with playing(make_camera(running.url, **LIVE)):
            await until_any_shown(page)
    status = page.get_by_role("status").first
    async with opened:
        await expect(status).to_have_text("the detector does not answer, trying again")
        await expect(page.locator("canvas")).to_have_css("opacity", "0.35")
        await expect(stream_link(page, "door")).to_contain_text("unknown while the detector is away")
        async with start_detector(port=running.port) as again:
            await expect(status).to_have_text("following the detector")
            await expect(page.get_by_role("heading", name="No stream named door")).to_be_visible()
            async with playing(make_camera(again.url, **LIVE)):
                await until_any_shown(page)
                await until(lambda: len(again.detector.broadcast))
                await wait_for_colors(page, 200)
            await opened.aclose()


@asynccontextmanager
async def reverse_proxy(upstream: str, prefix: str) -> AsyncIterator[str]:
    """Address of a server that passes all below a path on, sockets too."""

    async def passes(request: web.Request) -> web.StreamResponse:
        url = f"{upstream}/{request.match_info['path']}"
        if request.headers.get("Upgrade") != "websocket":
            async with session.get(url) as answer:
                return web.Response(
                    body=await answer.read(), status=answer.status, content_type=answer.content_type
                )
        ws = web.WebSocketResponse(protocols=[DETECTIONS_PROTOCOL])
        await ws.prepare(request)
        async with session.ws_connect(url, protocols=[DETECTIONS_PROTOCOL]) as detector:
            async for message in detector:
                if ws.closed:
                    break
                await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get(f"/{prefix}/{{path:.*}}", passes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with ClientSession() as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/{prefix}/"
        finally:
            await runner.cleanup()


async def test_a_proxy_may_put_a_path_before_the_page(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        reverse_proxy(running.http, "cams/north") as url,
        browse(url) as page,
    ):
        command = f"--detector {url.replace('http', 'ws', 1).rstrip('/')}"
        await expect(page.locator("code", has_text=command).first).to_be_visible()
        async with playing(make_camera(running.url, **LIVE)):
            await until_any_shown(page)
            await wait_for_colors(page, 200)


async def test_a_page_too_many_says_so_and_waits(start_detector, make_camera, browse):
    async with (
        start_detector(max_subscribers=1) as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        refused = page.get_by_text("The detector has as many viewers as it allows.")
        await until_any_shown(page)
        await expect(refused).to_be_hidden()
        async with browse(running.http) as second:
            await expect(second.get_by_text("The detector has as many viewers as it allows.")).to_be_visible()
            await page.goto("about:blank")
            await expect(second.get_by_text("The detector has as many viewers as it allows.")).to_be_hidden()
            await wait_for_colors(second, 200)


async def test_what_is_no_detection_is_ignored(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await until_any_shown(page)
        for text in (
            "null",
            "{}",
            '{"predictions": 3}',
            "not json",
            detections(1, (48, 32, 20, 20), name="late"),
        ):
            running.detector.broadcast.publish("door", "detections", text)
        await wait_for_colors(page, 200)


async def test_a_socket_that_has_gone_mute_is_opened_again(start_detector, make_camera, browse):
    """As after a sleep or a change of network: it stays open, and nothing comes any more."""
    opened: list[object] = []

    def pass_on(ours) -> None:
        theirs = ours.connect_to_server()
        opened.append(ours)
        if len(opened) == 1:
            theirs.on_message(lambda message: None)

    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await page.route_web_socket(re.compile(r"/detections\?"), pass_on)
        await page.reload()
        await until(lambda: len(opened) == 2)
        await wait_for_colors(page, 200)


async def test_a_socket_that_is_refused_is_told(start_detector, make_camera, browse):
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await page.add_init_script(
            "WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 })); } close() {} };"
        )
        await page.reload()
        await expect(page.get_by_text("Behind a proxy the detector needs --allow-origin")).to_be_visible()


async def test_a_page_that_nobody_sees_asks_for_nothing(start_detector, make_camera, browse):
    requests: list[str] = []
    async with (
        start_detector() as running,
        browse(running.http) as page,
        playing(make_camera(running.url, **LIVE)),
    ):
        await until_any_shown(page)
        await until(lambda: len(running.detector.broadcast) == 1)
        page.on("request", lambda request: requests.append(request.url))
        hide = """hidden => {
                Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        await page.evaluate(hide, True)
        await until(lambda: len(running.detector.broadcast) == 0)
        requests.clear()
        await asyncio.sleep(2.5)  # more than two polls: silence has no event to wait for
        assert requests == []
        frames = await frames_shown(page)
        await page.evaluate(hide, False)
        await until_shown(page, frames + 1)
        await until(lambda: len(running.detector.broadcast) == 1)
