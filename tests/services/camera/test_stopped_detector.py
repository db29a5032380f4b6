"""A detector's process that is stopped, as by a machine that swaps or is suspended."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.programs import detector_program
from tests.services.counts import balances
from tests.services.waiting import LIVENESS_S, until


async def test_a_camera_leaves_a_stopped_detector_and_comes_back(make_camera):
    """Its machine still takes connections and bytes: only that it says nothing tells."""
    detector = detector_program()
    await detector.start()
    try:
        await detector.until_logged("ready")
        url = f"ws://127.0.0.1:{detector.metrics_port}"
        camera = make_camera(url, model="demo", loop=True, realtime=True)
        playing = asyncio.ensure_future(camera.run())
        counts = camera.statistics.frame_counts
        await until(lambda: counts.detected >= 5)
        detector.send(signal.SIGSTOP)
        await until(lambda: not camera.statistics.connected["detector"])
        await until(lambda: counts.dropped["grab", "disconnected"])
        assert balances(camera)
        before = counts.detected
        detector.send(signal.SIGCONT)
        await until(lambda: counts.detected >= before + 5)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
        assert balances(camera)
        came_back = camera.statistics.metrics.reconnects.labels("detector", "silent")
        assert next(iter(came_back.collect())).samples[0].value >= 1  # it left because nothing came
    finally:
        await detector.kill()
