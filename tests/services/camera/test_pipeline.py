"""Head and encoder at any split point, with a detector to tell whether it understands them."""

from __future__ import annotations

import asyncio

import pytest

from stream.session.messages import REJECT_REASONS
from tests.services.waiting import LIVENESS_S


@pytest.mark.parametrize("split", ["0", "4.cv2", "6.m.0", "9", "23"])
async def test_any_split_point_works(start_detector, make_camera, split):
    async with start_detector() as running:
        camera = make_camera(running.url, split=split, frames=3)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert running.detector.streams.get("door").hello.reject_reasons == REJECT_REASONS
    assert camera.statistics.frame_counts.detected == 3
