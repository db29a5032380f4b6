"""Real weights on real video, through both services."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from stream.canvas import canvas_for
from stream.letterbox import Letterbox
from stream.sources.files import read_video
from stream.torch_network.model import load_model
from stream.torch_network.nms import detect
from stream.torch_network.split import Unsplit
from tests.services.counts import balances
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until

FRAMES = 120  # the first person enters around frame 60

pytestmark = [pytest.mark.shared, pytest.mark.slow]


async def test_people_are_found_where_the_unsplit_network_finds_them(
    start_detector, make_camera, yolov5n_weights, shared_data
):
    clip = shared_data / "clips" / "one-by-one-person-detection.mp4"
    messages: list[dict] = []
    async with start_detector(model=str(yolov5n_weights), confidence=0.25) as running:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(
            running.url,
            model=str(yolov5n_weights),
            source=str(clip),
            size="640",
            codec="rle:bits=4,temporal=true",
            frames=FRAMES,
        )
        await asyncio.wait_for(camera.run(), 4 * LIVENESS_S)
        await until(lambda: len(messages) == FRAMES)
    await subscription
    assert balances(camera)
    assert camera.statistics.frame_counts.detected == FRAMES
    raw_ratio = camera.statistics.totals.raw_bytes / camera.statistics.totals.encoded_bytes
    assert raw_ratio > 7  # intra frames alone reach that; a fixed camera's differences far more

    model = load_model(yolov5n_weights)
    unsplit = Unsplit(model)
    agree = 0
    people = 0
    for message, image in zip(messages, islice(read_video(clip), FRAMES), strict=True):
        height, width, _ = image.shape
        letterbox = Letterbox((height, width), canvas_for(640, height, width, model.stride))
        expected = detect(unsplit(letterbox.apply(image)), letterbox)
        found = [prediction for prediction in message["predictions"] if prediction["class"] == "person"]
        people += bool(found)
        agree += bool(found) == bool((expected.class_id == 0).any())
    assert people > FRAMES / 5
    assert agree >= 0.95 * FRAMES
