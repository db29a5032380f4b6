"""Consumers of detections, over real sockets."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, WSMsgType

from stream.session.close_codes import CloseCode
from tests.services.clips import FRAMES, write_video
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


async def test_streams_are_published_apart_and_together(start_detector, make_camera):
    porch: list[dict] = []
    every: list[dict] = []
    async with start_detector() as running:
        subscriptions = [
            await subscribed(running, running.url, porch, "porch"),
            await subscribed(running, running.url, every),
        ]
        cameras = [make_camera(running.url, stream=name) for name in ("door", "porch")]
        await asyncio.wait_for(asyncio.gather(*(camera.run() for camera in cameras)), LIVENESS_S)
        await until(lambda: len(every) == 2 * FRAMES)
        async with ClientSession() as session, session.get(f"{running.http}/v1/streams") as answer:
            listed = (await answer.json())["streams"]
    await asyncio.gather(*subscriptions)
    assert {message["stream"] for message in porch} == {"porch"}
    assert len(porch) == FRAMES
    assert [stream["name"] for stream in listed] == ["door", "porch"]
    assert [stream["frames"] for stream in listed] == [FRAMES, FRAMES]
    assert listed[0]["camera"]["captured"] == FRAMES
    assert listed[0]["kb_per_frame"] == pytest.approx(
        cameras[0].statistics.totals.encoded_bytes / FRAMES / 1e3, abs=1e-3
    )


async def test_a_slow_subscriber_never_slows_the_detector(start_detector, make_camera, tmp_path):
    """One subscriber reads nothing; the other gets everything, and what the slow one lost is counted."""
    prompt: list[dict] = []
    frames = 150
    video = write_video(tmp_path / "long.avi", frames)
    # Every candidate box is kept, for messages large enough to fill what the kernel holds between two sockets.
    async with start_detector(subscriber_queue=4, confidence=0.0, iou=1.0, max_detections=2000) as running:
        slow = await asyncio.open_connection("127.0.0.1", running.port, limit=1)
        slow[1].write(
            b"GET /v1/detections HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await until(lambda: len(running.detector.broadcast) == 1)
        subscription = await subscribed(running, running.url, prompt)
        camera = make_camera(running.url, source=str(video))
        await asyncio.wait_for(camera.run(), 4 * LIVENESS_S)
        await until(lambda: prompt and prompt[-1]["sequence"] == frames - 1)
        assert camera.statistics.frame_counts.detected == len(prompt) == frames
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_subscriber_dropped_messages_total") > 0
        slow[1].transport.abort()
    await subscription


async def test_a_consumer_is_not_heard_and_is_forgotten_when_it_leaves(start_detector):
    async with start_detector() as running, ClientSession() as session:
        async with session.ws_connect(f"{running.url}/v1/detections") as ws:
            await until(lambda: len(running.detector.broadcast) == 1)
            await ws.send_str("hello?")
            running.detector.broadcast.publish("door", "gap", "first")
            assert await ws.receive_str(timeout=LIVENESS_S) == "first"
        await until(lambda: len(running.detector.broadcast) == 0)


async def test_a_consumer_that_says_too_much_at_once_is_left(start_detector):
    async with (
        start_detector() as running,
        ClientSession() as session,
        session.ws_connect(f"{running.url}/v1/detections") as ws,
    ):
        await ws.send_str("x" * 4097)
        message = await ws.receive(timeout=LIVENESS_S)
        assert (message.type, message.data) == (WSMsgType.CLOSE, CloseCode.MESSAGE_TOO_LARGE)
        sample = running.detector.statistics.metrics.registry.get_sample_value
        closed = "splitcast_detector_subscribers_closed_total", {"code": "1009"}
        await until(lambda: sample(*closed) == 1)


async def test_who_loses_messages_is_told_how_many(start_detector):
    async with (
        start_detector(subscriber_queue=1) as running,
        ClientSession() as session,
        session.ws_connect(f"{running.url}/v1/detections") as ws,
    ):
        await until(lambda: len(running.detector.broadcast) == 1)
        for number in range(3):
            running.detector.broadcast.publish("door", "gap", f'{{"number":{number}}}')
        assert await ws.receive_json(timeout=LIVENESS_S) == {"number": 2, "dropped": 2}
        running.detector.broadcast.publish("door", "gap", '{"number":3}')
        assert await ws.receive_json(timeout=LIVENESS_S) == {"number": 3}


@pytest.mark.parametrize("types", ["frames", "", "detections,,gap", "gap&types=x", "x" * 4000])
async def test_a_type_that_is_none_is_refused(start_detector, types):
    async with start_detector() as running, ClientSession() as session:
        async with session.get(f"{running.http}/v1/detections?types={types}") as answer:
            assert answer.status == 400
            error = (await answer.json())["error"]
            assert "choose of detections, gap, stream" in error
            assert len(error) < 200
        assert len(running.detector.broadcast) == 0


async def test_refused_consumers_are_counted(start_detector):
    async with start_detector(max_subscribers=1) as running, ClientSession() as session:
        async with (
            session.ws_connect(f"{running.url}/v1/detections"),
            session.ws_connect(f"{running.url}/v1/detections") as refused,
        ):
            assert (await refused.receive(timeout=LIVENESS_S)).data == 1013
        sample = running.detector.statistics.metrics.registry.get_sample_value
        reasons = {"reason": "too_many_subscribers"}
        assert sample("splitcast_detector_connections_refused_total", reasons) == 1
