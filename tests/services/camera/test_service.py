"""The life of a camera: connections that break, detectors that come back, refusals and stops."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from aiohttp import web

from services.chaos.service import chaos_proxy
from services.errors import DetectorRefused
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL
from tests.services.camera.detectors import ObedientDetector
from tests.services.clips import FRAMES, write_video
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


async def test_a_files_frames_survive_broken_connections(start_detector, make_camera, tmp_path):
    """Frames that a lost connection left unanswered are sent again; the first packet is a keyframe."""
    video = write_video(tmp_path / "long.avi", 120)
    messages: list[dict] = []
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(proxy.url, source=str(video))
        playing = asyncio.ensure_future(camera.run())
        for detected in (10, 40, 70):
            await until(lambda detected=detected: camera.statistics.frame_counts.detected >= detected)
            proxy.begin("reset")
            assert balances(camera)
        await asyncio.wait_for(playing, LIVENESS_S)
    await subscription
    assert proxy.report.accepted == 4
    assert camera.statistics.frame_counts.captured == camera.statistics.frame_counts.detected == 120
    assert not camera.statistics.frame_counts.dropped
    assert camera.statistics.report("").reconnects == {"detector": 3}
    captured = [message["captured_ns"] for message in messages]
    assert len(set(captured)) == 120  # a frame whose answer was lost may be detected twice, none is missing
    starts = [message for message in messages if message["sequence"] == 0]
    assert len(starts) == 4
    assert all(message["keyframe"] for message in starts)


async def test_a_live_sources_frames_are_all_accounted_for(start_detector, make_camera, tmp_path):
    video = write_video(tmp_path / "live.avi", 80, fps=50)
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(
            proxy.url, source=str(video), realtime=True, loop=True, window=2, silence_s=LIVENESS_S
        )
        counts = camera.statistics.frame_counts
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: counts.detected >= 5)
        hole = proxy.begin("blackhole")
        superseded = counts.dropped["grab", "superseded"]
        await until(lambda: counts.dropped["grab", "superseded"] >= superseded + 3 and camera.unanswered == 2)
        assert balances(camera)
        proxy.begin("reset")
        proxy.end(hole)
        resumed = counts.detected + 5
        await until(lambda: counts.detected >= resumed)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert counts.in_flight == 0
    assert counts.dropped["network", "connection_lost"] == 2  # the window
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_frames_captured_total") == camera.statistics.frame_counts.captured
    assert sample("splitcast_camera_frames_detected_total") == camera.statistics.frame_counts.detected
    for (stage, reason), count in camera.statistics.frame_counts.dropped.items():
        labels = {"stage": stage, "reason": reason}
        assert sample("splitcast_camera_frames_dropped_total", labels) == count


async def test_a_restarted_detector_is_found_again(start_detector, make_camera):
    async with start_detector() as running:
        port = running.port
        camera = make_camera(running.url, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 5)
    assert not playing.done()
    before = camera.statistics.frame_counts.detected
    async with start_detector(port=port) as running:
        await until(lambda: camera.statistics.frame_counts.detected >= before + 5)
        assert running.detector.streams.get("door").frames >= 5
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert camera.statistics.report("").reconnects == {"detector": 1}
    assert camera.statistics.keyframes.total() == 2  # one a connection
    assert balances(camera)


@pytest.mark.parametrize("code", [CloseCode.BAD_MESSAGE, CloseCode.WEIGHTS_DIFFER])
async def test_a_first_refusal_is_tried_once_more(make_camera, code):
    """The hello may have been damaged on its way. When it tries again is told meanwhile."""
    detector, refused = ObedientDetector(), []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        if refused:
            assert sample("splitcast_camera_retry_at_timestamp_seconds", labels) > 0
            return await detector.handle(request)
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        refused.append(await ws.receive_str())
        await ws.close(code=code, message=b"not a message of this protocol")
        return ws

    async with serving(handle) as url:
        camera = make_camera(url)
        sample, labels = camera.statistics.metrics.registry.get_sample_value, {"peer": "detector"}
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.captured == camera.statistics.frame_counts.detected == FRAMES
    assert math.isnan(sample("splitcast_camera_retry_at_timestamp_seconds", labels))


async def test_other_weights_are_refused(start_detector, make_camera, other_weights):
    async with start_detector() as running:
        camera = make_camera(running.url, model=str(other_weights))
        with pytest.raises(DetectorRefused, match="weights differ") as refusal:
            await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert refusal.value.code == CloseCode.WEIGHTS_DIFFER
    assert balances(camera)


async def test_a_split_point_the_detector_does_not_allow_is_refused(start_detector, make_camera):
    async with start_detector(split="4.m") as running:
        with pytest.raises(DetectorRefused, match=r"'6'; allowed: 4\.m"):
            await asyncio.wait_for(make_camera(running.url, split="6").run(), LIVENESS_S)


async def test_stop_drains_what_is_in_flight(start_detector, make_camera):
    async with start_detector() as running:
        camera = make_camera(running.url, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 5)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
        await until(lambda: running.detector.streams.connected == 0)
        assert running.detector.streams.get("door").frames == camera.statistics.frame_counts.detected
    assert balances(camera)
    assert camera.statistics.frame_counts.in_flight == 0


async def test_a_stop_waits_for_what_is_unanswered(start_detector, make_camera):
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        hole = proxy.begin("blackhole")
        await until(lambda: camera.unanswered == camera.config.window)
        camera.stop()
        await asyncio.sleep(0.2)
        assert not playing.done()
        proxy.end(hole)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert camera.statistics.frame_counts.dropped["network", "shutdown"] == 0
    assert camera.statistics.frame_counts.detected >= 6


async def test_a_stop_gives_up_after_the_drain(start_detector, make_camera):
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url, loop=True, drain_s=0.2)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        hole = proxy.begin("blackhole")
        await until(lambda: camera.unanswered == camera.config.window)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
        proxy.end(hole)
    assert camera.statistics.frame_counts.dropped["network", "shutdown"] == camera.config.window
    assert balances(camera)


async def test_a_stop_while_the_network_loads(make_camera, monkeypatch):
    loading, held = threading.Event(), threading.Event()

    def load(_: object) -> None:
        loading.set()
        held.wait(2 * LIVENESS_S)

    monkeypatch.setattr("services.camera.service.load_network", load)
    camera = make_camera("ws://127.0.0.1:9")
    playing = asyncio.ensure_future(camera.run())
    await until(loading.is_set)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    assert not held.is_set()
    held.set()


async def test_stop_without_a_detector_ends_at_once(make_camera):
    camera = make_camera("ws://127.0.0.1:9")  # the discard port: nobody listens
    playing = asyncio.ensure_future(camera.run())
    await until(lambda: camera.statistics.frame_counts.captured > 0)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert (
        camera.statistics.frame_counts.dropped["grab", "shutdown"] == camera.statistics.frame_counts.captured
    )
