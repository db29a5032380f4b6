"""Head and encoder at any split point, with a detector to tell whether it understands them."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
import pytest

from stream.errors import InvalidSize
from stream.session.messages import REJECT_REASONS
from tests.services.waiting import LIVENESS_S
from tests.stream.network import legacy


@pytest.fixture(scope="module")
def deep_weights(tmp_path_factory):
    """A P6 network: four levels, stride 64."""
    network = legacy.Model(legacy.deep_description(4, classes=2))
    return legacy.save(network, tmp_path_factory.mktemp("deep") / "p6.pt")


async def test_the_canvas_follows_the_networks_stride(start_detector, make_camera, deep_weights, tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((480, 640, 3), np.uint8))
    model = str(deep_weights)
    async with start_detector(model=model) as running:
        camera = make_camera(running.url, source=str(tmp_path), model=model, size="320")
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert running.detector.streams.get("door").hello.canvas == (256, 320)
    assert camera.statistics.frame_counts.detected == 1


async def test_a_size_that_the_network_cannot_have_is_refused_before_the_source(make_camera, deep_weights):
    camera = make_camera(
        "ws://127.0.0.1:1", model=str(deep_weights), source="rtsp://127.0.0.1:1/", size="480x640"
    )
    with pytest.raises(InvalidSize, match=r"multiples of 64, .* nearest above is 512x640"):
        await asyncio.wait_for(camera.run(), LIVENESS_S)


@pytest.mark.parametrize("split", ["0", "4.cv2", "6.m.0", "9", "23"])
async def test_any_split_point_works(start_detector, make_camera, split):
    async with start_detector() as running:
        camera = make_camera(running.url, split=split, frames=3)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert running.detector.streams.get("door").hello.reject_reasons == REJECT_REASONS
    assert camera.statistics.frame_counts.detected == 3
