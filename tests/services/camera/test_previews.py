"""Pictures of a camera: measured always, sent only where both ends allow it and the link has room."""

from __future__ import annotations

import asyncio
import math

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession

from services.camera.service import Camera
from services.chaos.service import chaos_proxy
from services.errors import DetectorRefused
from stream.session.close_codes import CloseCode
from tests.services.clips import FRAMES, SIZE, write_video
from tests.services.waiting import LIVENESS_S, until


def previews_sent(camera: Camera) -> float:
    return camera.statistics.metrics.registry.get_sample_value("splitcast_camera_preview_bytes_total")


@pytest.fixture
def live(make_camera, tmp_path, monkeypatch):
    """Makes a camera that plays a video at its own pace, for ever, and makes ten pictures a second."""
    monkeypatch.setattr("services.camera.picture_sender.PICTURE_INTERVAL_S", 0.1)
    monkeypatch.setattr("services.camera.uplink.REPORT_INTERVAL_S", 0.1)
    monkeypatch.setattr("stream.session.detector.PREVIEW_INTERVAL_NS", 1)
    video = write_video(tmp_path / "live.avi", 40, fps=10)

    def make(url: str, **settings) -> Camera:
        return make_camera(url, source=str(video), realtime=True, loop=True, **settings)

    return make


async def test_a_preview_travels(start_detector, live):
    async with start_detector() as running, ClientSession() as session:
        camera = live(running.url, preview=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: (stream := running.detector.streams.get("door")) and stream.preview)
        async with session.get(f"{running.http}/v1/streams/door/preview.jpg") as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert (
                answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            )  # for no other site to show
            jpeg = await answer.read()
        async with session.get(f"{running.http}/v1/streams/door") as answer:
            told = await answer.json()
            assert (told["previews"], told["preview"]) == (True, True)
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (*SIZE, 3)
        await until(lambda: previews_sent(camera) >= 2 * len(jpeg))  # and goes on
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)


async def test_no_picture_leaves_a_camera_unasked(start_detector, live):
    """Without the flag there is no preview, though pictures are made, and measured."""
    async with start_detector() as running, ClientSession() as session:
        camera = live(running.url)
        playing = asyncio.ensure_future(camera.run())
        report = None

        def told() -> bool:
            nonlocal report
            stream = running.detector.streams.get("door")
            report = stream and stream.report
            return bool(report and report.jpeg_bytes)

        await until(told)
        assert previews_sent(camera) == 0
        assert running.detector.streams.get("door").hello.preview is False
        async with session.get(f"{running.http}/v1/streams/door/preview.jpg") as answer:
            assert answer.status == 404
            assert "--preview" in (await answer.json())["error"]
        async with session.get(f"{running.http}/v1/streams/door") as answer:
            told_of = await answer.json()
            assert (told_of["previews"], told_of["preview"]) == (False, False)
            assert told_of["jpeg_kb_per_frame"] == told_of["camera"]["jpeg_bytes"] / 1e3
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)


async def test_the_reference_is_of_the_frames_that_were_sent(start_detector, live, tmp_path):
    """The video's pictures fill the canvas: each as a JPEG is what the camera may report."""
    async with start_detector() as running:
        camera = live(running.url)
        sample = camera.statistics.metrics.registry.get_sample_value
        assert math.isnan(sample("splitcast_camera_jpeg_frame_bytes"))
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.jpeg_bytes)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    capture = cv2.VideoCapture(str(tmp_path / "live.avi"))
    sizes = set()
    while (read := capture.read())[0]:
        sizes.add(len(cv2.imencode(".jpg", read[1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]))
    assert camera.statistics.jpeg_bytes in sizes
    assert sample("splitcast_camera_jpeg_frame_bytes") == camera.statistics.jpeg_bytes


async def test_a_detector_without_previews_refuses_the_camera(start_detector, make_camera):
    async with start_detector(preview=False) as running:
        with pytest.raises(DetectorRefused, match="--no-preview") as refusal:
            await asyncio.wait_for(make_camera(running.url, preview=True).run(), LIVENESS_S)
        assert refusal.value.code == CloseCode.PREVIEW_REFUSED == 4403
        camera = make_camera(running.url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert camera.statistics.frame_counts.detected == FRAMES


async def test_a_frozen_link_gets_one_preview_at_most(start_detector, live):
    """The window would let frames through for minutes; previews wait until the last one has arrived."""
    sent: list[int] = []
    async with start_detector(window=200) as running, chaos_proxy(running.address) as proxy:
        camera = live(proxy.url, preview=True, window=200)
        camera.statistics.send_preview = sent.append
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: len(sent) >= 2)
        hole = proxy.begin("blackhole")
        before = len(sent)
        await until(lambda: camera.unanswered >= 20)  # two seconds, ten chances a second
        assert len(sent) <= before + 1
        proxy.end(hole)
        await until(lambda: len(sent) >= before + 2)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_picture_that_fails_costs_no_frame(start_detector, make_camera, monkeypatch):
    def fails(*_):
        raise cv2.error("a picture of a kind never seen")

    monkeypatch.setattr("services.camera.picture_sender.jpeg_bytes", fails)
    monkeypatch.setattr("services.camera.picture_sender.PICTURE_INTERVAL_S", 0.01)
    async with start_detector() as running:
        camera = make_camera(running.url, preview=True)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.detected == FRAMES
    assert camera.statistics.jpeg_bytes is None
    assert previews_sent(camera) == 0
