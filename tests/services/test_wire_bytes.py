"""A scene in which nothing happens costs next to nothing, both ways."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.services.clips import SIZE
from tests.services.waiting import LIVENESS_S
from tests.services.wire import measure_wire, write_still

FPS = 15
FRAMES = 120
MOST_BYTES = 60  # a frame, each way
SLOW_BYTES = 400  # a second, for pings and reports of a machine that is too slow for 15 frames


@pytest.mark.parametrize("quality", [3, 6])
async def test_an_empty_scene_costs_few_bytes_each_way(start_detector, make_camera, tmp_path, quality):
    """As a live camera at 15 frames a second: packets and answers, reports, pings and pongs, all above TCP."""
    height, width = SIZE
    picture = np.full((height, width, 3), 114, np.uint8)
    picture[10:30, 20:60] = (0, 0, 255)
    source = write_still(tmp_path / "still.avi", picture, FPS, 20 * FPS)
    async with start_detector() as running:
        camera = make_camera(
            running.url, source=str(source), codec=f"feature:quality={quality}", realtime=True, loop=True
        )
        playing = asyncio.ensure_future(camera.run())
        cost = await asyncio.wait_for(measure_wire(camera, FRAMES), LIVENESS_S)
        camera.stop()
        await playing
    slow = SLOW_BYTES * max(0.0, cost.seconds - cost.frames / FPS)
    assert camera.statistics.keyframes.total() == 1
    assert cost.packets >= FRAMES
    assert cost.sent < MOST_BYTES * cost.packets + slow
    assert cost.received < MOST_BYTES * cost.frames + slow
