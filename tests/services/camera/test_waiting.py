"""Cameras whose source has no picture yet, stands still, or shows another picture than before."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from structlog.testing import capture_logs

from services.camera import pipeline
from services.camera import statistics as statistics_module
from services.camera.preparation import Preparation
from services.errors import Exit, NothingDetected
from stream.session.messages import Clock
from stream.sources.base import (
    DecodeErrors,
    FramesRepeated,
    PictureSizeChanged,
    SourceFrozen,
    SourceLost,
    SourceMoving,
)
from tests.services.camera.detectors import ObedientDetector
from tests.services.camera.sources import END, picture, scripted
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


@pytest.fixture
def make_camera(make_camera):
    """Their only picture may wait as long as a busy machine takes to prepare for it."""
    return partial(make_camera, silence_s=LIVENESS_S)


async def test_a_camera_without_a_picture_says_so_until_it_has_one(make_camera, monkeypatch):
    """And then says hello on the same connection."""
    made, detector = scripted(monkeypatch, live=True), ObedientDetector()
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: len(detector.said("waiting")) >= 2)
        assert not detector.said("hello")
        [source] = made
        source.play(picture())
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    [texts] = detector.texts
    kinds = [text["type"] for text in texts]
    hello = texts[kinds.index("hello")]
    assert "waiting" not in kinds[kinds.index("hello") :]
    assert texts[0]["source_state"] == "opening"
    assert texts[0]["stream"] == hello["stream"] == "door"
    assert texts[0]["session"] == hello["session"]
    assert len(hello["session"]) == 32
    assert (hello["live"], hello["frame"]) == (True, 0)


async def test_a_detector_knows_a_camera_that_waits(start_detector, make_camera, monkeypatch):
    made = scripted(monkeypatch, live=True)
    async with start_detector() as running:
        camera = make_camera(running.url)
        playing = asyncio.ensure_future(camera.run())
        streams = running.detector.streams
        await until(lambda: streams.get("door") is not None and streams.get("door").waiting)
        made[0].play(picture())
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_stop_while_waiting(make_camera, monkeypatch):
    scripted(monkeypatch, live=True)
    detector = ObedientDetector()
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: detector.said("waiting"))
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert camera.statistics.frame_counts.captured == 0


async def test_a_source_without_a_picture_ends_a_camera_without_a_detector(make_camera, monkeypatch):
    made = scripted(monkeypatch, live=True)
    camera = make_camera("ws://127.0.0.1:9")
    playing = asyncio.ensure_future(camera.run())
    await until(lambda: made)
    made[0].play(END)
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_what_ails_the_source_is_told(make_camera, monkeypatch):
    made, detector = scripted(monkeypatch, live=True), ObedientDetector()
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        [source] = made
        source.play(picture(), FramesRepeated(7), SourceFrozen(25), DecodeErrors(3))
        await until(lambda: detector.said("report") and detector.said("report")[-1]["frames_repeated"])
        frozen = detector.said("report")[-1]
        statistics = camera.statistics
        sample = statistics.metrics.registry.get_sample_value
        assert sample("splitcast_camera_source_state", {"state": "frozen"}) == 1
        assert sample("splitcast_camera_source_state", {"state": "open"}) == 0
        source.play(SourceMoving())
        await until(lambda: statistics.source_state == "open")
        source.play(SourceLost("gone"))
        await until(lambda: statistics.source_state == "lost")
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert (frozen["source_state"], frozen["frames_repeated"], frozen["decode_errors"]) == ("frozen", 7, 3)
    assert abs(frozen["clock"]["unix_ns"] - time.time_ns()) < LIVENESS_S * 1e9
    assert sample("splitcast_camera_frames_repeated_total") == 7
    assert sample("splitcast_camera_decode_errors_total") == 3
    assert sample("splitcast_camera_source_state", {"state": "lost"}) == 1


async def test_a_clock_that_was_set_is_told(make_camera, monkeypatch):
    """The time of day may be set while the connection lives; as long as it goes on, nothing is said of it."""
    made, detector = scripted(monkeypatch, live=True), ObedientDetector()
    ahead_ns = [0]

    def clock_now() -> Clock:
        now_ns = time.monotonic_ns()  # a busy machine has milliseconds between two clocks
        return Clock(monotonic_ns=now_ns, unix_ns=now_ns + ahead_ns[0])

    for module in (pipeline, statistics_module):
        monkeypatch.setattr(module, "clock_now", clock_now)
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        made[0].play(picture())
        await until(lambda: detector.said("report"))
        ahead_ns[0] = 3 * 86400 * 10**9
        seen = len(detector.said("report"))
        await until(lambda: len(detector.said("report")) >= seen + 2)
        made[0].play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    clocks = [
        text["clock"] for text in (*detector.said("hello"), *detector.said("report")) if "clock" in text
    ]
    offsets_s = [(clock["unix_ns"] - clock["monotonic_ns"]) / 1e9 for clock in clocks]
    assert offsets_s[-1] - offsets_s[0] == pytest.approx(3 * 86400, abs=1)
    assert len(clocks) == 3


async def test_pictures_of_another_size_get_another_canvas(start_detector, make_camera, monkeypatch):
    """Every frame is detected, in the picture as it is."""
    made = scripted(monkeypatch, live=False)
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(running.url, size="96")
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        upright, wide = [picture(96, 64) for _ in range(6)], [picture(64, 96) for _ in range(6)]
        with capture_logs() as logs:
            made[0].play(*wide, PictureSizeChanged(64, 96), *upright, END)
            await asyncio.wait_for(playing, LIVENESS_S)
        assert running.detector.streams.get("door").hello.canvas == (96, 64)
    await subscription
    counts = camera.statistics.frame_counts
    assert (counts.captured, counts.detected, counts.dropped_total) == (12, 12, 0)
    images = [message["image"] for message in messages if message["type"] == "detections"]
    assert images == [{"width": 96, "height": 64}] * 6 + [{"width": 64, "height": 96}] * 6
    sizes = [
        (line["width"], line["height"])
        for line in logs
        if line["event"] in ("picture size changed", "canvas changed")
    ]
    assert sizes == [(64, 96), (64, 96)]
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_reconnects_total", {"peer": "detector", "reason": "resized"}) == 1


async def test_a_stop_while_another_canvas_is_prepared_leaves_nothing_running(
    start_detector, make_camera, monkeypatch
):
    made, prepared = scripted(monkeypatch, live=True), asyncio.Event()
    running_tasks: list[asyncio.Task] = []

    async def prepare_for_ever(_preparation, _pipeline, _frame):
        running_tasks.append(asyncio.current_task())
        prepared.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Preparation, "_prepare_for", prepare_for_ever)
    async with start_detector() as running, asyncio.timeout(LIVENESS_S):
        camera = make_camera(running.url, size="96")
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        made[0].play(picture(64, 96))
        await until(lambda: camera.statistics.frame_counts.detected)
        made[0].play(PictureSizeChanged(64, 96))
        while not prepared.is_set():
            made[0].play(picture(96, 64))
            await asyncio.sleep(0.05)
        camera.stop()
        await playing
        await asyncio.sleep(0)
        assert running_tasks[0].cancelled()


async def test_a_single_picture_of_another_shape_keeps_the_canvas(make_camera, monkeypatch):
    made, detector = scripted(monkeypatch, live=False), ObedientDetector()
    async with serving(detector.handle) as url:
        camera = make_camera(url, size="96")
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        shapes = [(64, 96), (96, 64)] * 5
        made[0].play(*(picture(*shape) for shape in shapes), END)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert len(detector.texts) == 1
    assert [(header.frame_height, header.frame_width) for header in detector.packets] == shapes


async def test_a_picture_that_waited_for_a_detector_too_long_is_not_sent(make_camera, monkeypatch):
    made, detector = scripted(monkeypatch, live=True), ObedientDetector()
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        made[0].play(picture(age_s=2 * LIVENESS_S))
        await until(lambda: camera.statistics.frame_counts.dropped["grab", "stale"] == 1)
        made[0].play(picture())
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        made[0].play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert len(detector.packets) == 1
    assert balances(camera)


async def test_a_camera_none_of_whose_frames_was_detected_says_so(make_camera):
    detector = ObedientDetector(lambda header: "error")
    async with serving(detector.handle) as url:
        with pytest.raises(
            NothingDetected, match=r"none of 20 frames was detected \(20 detector/error\)"
        ) as error:
            await asyncio.wait_for(make_camera(url).run(), LIVENESS_S)
    assert error.value.exit_code is Exit.NOTHING_DETECTED


@pytest.mark.parametrize("damaged", [1, 2, 5])
async def test_a_damaged_keyframe_is_followed_by_another(make_camera, damaged):
    """Though the detector never asks: detections come with the first whole one."""
    detector = ObedientDetector(
        lambda header: (
            ("corrupt" if header.sequence < damaged else None)
            if header.keyframe
            else ("missing_reference" if len(detector.packets) <= damaged else None)
        )
    )
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    kinds = [header.keyframe for header in detector.packets]
    assert kinds == [True] * (damaged + 1) + [False] * (len(kinds) - damaged - 1)
    assert camera.statistics.frame_counts.dropped == {("detector", "corrupt"): damaged}


@pytest.mark.parametrize(("reason", "keyframes"), [("missing_reference", 2), ("stale", 1), ("error", 1)])
async def test_a_difference_that_could_not_be_used_is_followed_by_a_keyframe(make_camera, reason, keyframes):
    detector = ObedientDetector(lambda header: reason if header.sequence == 4 else None)
    async with serving(detector.handle) as url:
        camera = make_camera(url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert sum(header.keyframe for header in detector.packets) == keyframes
    assert detector.packets[5].keyframe == (keyframes == 2)
