"""A camera on a real RTSP stream, end to end."""

from __future__ import annotations

import asyncio

import pytest

from tests.services.counts import balances
from tests.services.waiting import LIVENESS_S, until
from tests.stream.sources.rtsp import RtspServer, require_gstreamer


@pytest.fixture
async def rtsp():
    require_gstreamer()
    server = RtspServer()
    yield server
    await server.kill()


async def test_a_lost_rtsp_server_is_found_again_and_every_frame_accounted_for(
    rtsp, start_detector, make_camera
):
    await rtsp.start()
    async with start_detector() as running:
        camera = make_camera(running.url, source=rtsp.url(), read_timeout_s=1.5, open_timeout_s=4.0)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 10)
        await rtsp.kill()
        await until(lambda: camera.statistics.report("").source_state == "lost")
        await rtsp.start()
        resumed = camera.statistics.frame_counts.detected + 10
        await until(lambda: camera.statistics.frame_counts.detected >= resumed)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
        stream = running.detector.streams.get("door")
    assert camera.statistics.report("").reconnects == {"source": 1}
    assert balances(camera)
    assert camera.statistics.frame_counts.in_flight == 0
    assert stream.frames == camera.statistics.frame_counts.detected
    assert stream.frame_size == (240, 320)
