"""Camera and detector together, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession

from services.camera.service import Camera
from services.commands.watch import detections_url
from services.errors import DetectorRefused
from stream.errors import ConnectionLost
from stream.letterbox import Letterbox
from stream.network.model import load_model
from stream.network.nms import detect
from stream.network.split import Unsplit
from stream.session.close_codes import CloseCode
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.transport.websocket import connect
from tests.services.conftest import FRAMES, SIZE, write_video
from tests.services.proxy import proxy_to
from tests.services.waiting import LIVENESS_S, until


def balances(camera: Camera) -> bool:
    counts = camera.statistics.frame_counts
    return counts.captured == counts.detected + counts.dropped_total + counts.in_flight


async def subscribe(url: str, messages: list[dict], stream: str | None = None) -> int:
    """Collect messages until the detector closes; the close code."""
    try:
        async with connect(detections_url(url, stream), DETECTIONS_PROTOCOL) as link:
            async for text in link:
                messages.append(json.loads(text))  # noqa: PERF401 - readers look while it grows
    except ConnectionLost as lost:
        return lost.code
    raise AssertionError("the link ended without a close")


async def subscribed(running, url: str, messages: list[dict], stream: str | None = None) -> asyncio.Future:
    before = len(running.detector.broadcast)
    task = asyncio.ensure_future(subscribe(url, messages, stream))
    await until(lambda: len(running.detector.broadcast) > before)
    return task


async def test_every_frame_of_a_file_is_detected_once_and_in_order(start_detector, make_camera):
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(running.url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        await until(lambda: len(messages) == FRAMES)
    assert await subscription == CloseCode.GOING_AWAY
    assert [message["sequence"] for message in messages] == list(range(FRAMES))
    assert camera.statistics.frame_counts.captured == camera.statistics.frame_counts.detected == FRAMES
    assert camera.statistics.frame_counts.in_flight == 0
    assert not camera.statistics.frame_counts.dropped
    assert camera.statistics.keyframes["first"] == 1
    assert camera.statistics.totals.detections == sum(len(message["predictions"]) for message in messages) > 0


async def test_detections_are_those_of_the_unsplit_network(start_detector, make_camera, weights, video):
    """With the raw codec nothing is lost on the way: head, wire and tail give what one network gives."""
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        await asyncio.wait_for(make_camera(running.url, codec="raw").run(), LIVENESS_S)
        await until(lambda: len(messages) == FRAMES)
    await subscription
    model = load_model(weights)
    unsplit = Unsplit(model)
    capture = cv2.VideoCapture(str(video))
    for message in messages:
        good, image = capture.read()
        assert good
        expected = detect(unsplit(image), Letterbox(SIZE, SIZE), conf=0.001)
        assert message["image"] == {"width": SIZE[1], "height": SIZE[0]}
        assert len(message["predictions"]) == len(expected) > 0
        for prediction, box, confidence, class_id in zip(
            message["predictions"], expected.boxes, expected.confidence, expected.class_id, strict=True
        ):
            left, top, right, bottom = box
            assert prediction["x"] == pytest.approx((left + right) / 2, abs=0.01)
            assert prediction["y"] == pytest.approx((top + bottom) / 2, abs=0.01)
            assert prediction["width"] == pytest.approx(right - left, abs=0.01)
            assert prediction["height"] == pytest.approx(bottom - top, abs=0.01)
            assert prediction["confidence"] == pytest.approx(confidence, abs=1e-4)
            assert prediction["class_id"] == class_id
            assert prediction["class"] == model.names[class_id]


async def test_boxes_are_in_pixels_of_the_original_picture(start_detector, make_camera, tmp_path):
    """A picture of another shape than the canvas is letterboxed, and its boxes are brought back."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.random.default_rng(1).integers(0, 255, (200, 150, 3), np.uint8))
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages)
        await asyncio.wait_for(make_camera(running.url, source=str(folder)).run(), LIVENESS_S)
        await until(lambda: messages)
    await subscription
    assert messages[0]["image"] == {"width": 150, "height": 200}
    assert messages[0]["predictions"]
    for box in messages[0]["predictions"]:
        assert box["width"] / 2 - 0.1 <= box["x"] <= 150 - box["width"] / 2 + 0.1
        assert box["height"] / 2 - 0.1 <= box["y"] <= 200 - box["height"] / 2 + 0.1


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


async def test_wire_bytes_are_what_a_proxy_counts(start_detector, make_camera):
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        stream = running.detector.streams.get("door")
        await until(lambda: stream.wire.received == camera.statistics.wire.sent)
        assert camera.statistics.wire.sent == proxy.to_server
        assert camera.statistics.wire.received == proxy.to_client
        assert (stream.wire.received, stream.wire.sent) == (proxy.to_server, proxy.to_client)
        assert proxy.to_server > camera.statistics.totals.encoded_bytes > 0
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_detector_wire_received_bytes_total") == proxy.to_server
        assert sample("splitcast_detector_encoded_bytes_total") == camera.statistics.totals.encoded_bytes
        sample = camera.statistics.metrics.registry.get_sample_value
        assert sample("splitcast_camera_wire_sent_bytes_total") == proxy.to_server
        assert sample("splitcast_camera_wire_received_bytes_total") == proxy.to_client


async def test_a_files_frames_survive_broken_connections(start_detector, make_camera, tmp_path):
    """Frames that a lost connection left unanswered are sent again; the first packet is a keyframe."""
    video = write_video(tmp_path / "long.avi", 120)
    messages: list[dict] = []
    async with start_detector() as running, proxy_to(running.port) as proxy:
        subscription = await subscribed(running, running.url, messages)
        camera = make_camera(proxy.url, source=str(video))
        playing = asyncio.ensure_future(camera.run())
        for detected in (10, 40, 70):
            await until(lambda detected=detected: camera.statistics.frame_counts.detected >= detected)
            proxy.break_connections()
            assert balances(camera)
        await asyncio.wait_for(playing, LIVENESS_S)
    await subscription
    assert proxy.connections == 4
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
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url, source=str(video), realtime=True, frames=80, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 5)
        proxy.freeze()
        await until(lambda: camera.statistics.frame_counts.dropped["grab", "superseded"] >= 3)
        assert balances(camera)
        proxy.break_connections()
        proxy.thaw()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert camera.statistics.frame_counts.in_flight == 0
    assert camera.statistics.frame_counts.captured >= 80
    assert camera.statistics.frame_counts.dropped["network", "connection_lost"] >= 1
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_frames_captured_total") == camera.statistics.frame_counts.captured
    assert sample("splitcast_camera_frames_detected_total") == camera.statistics.frame_counts.detected
    for (stage, reason), count in camera.statistics.frame_counts.dropped.items():
        labels = {"stage": stage, "reason": reason}
        assert sample("splitcast_camera_frames_dropped_total", labels) == count


async def test_a_frozen_link_is_noticed_and_replaced(start_detector, make_camera, tmp_path):
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url, loop=True, heartbeat_s=0.4)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 5)
        proxy.freeze()
        await until(lambda: not camera.statistics.connected["detector"])
        proxy.thaw()
        resumed = camera.statistics.frame_counts.detected + 5
        await until(lambda: camera.statistics.frame_counts.detected >= resumed)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert camera.statistics.report("").reconnects["detector"] >= 1


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


async def test_window_bounds_what_is_unanswered(start_detector, make_camera, tmp_path):
    """With a detector that answers nothing, a live camera sends no more than the window and drops the rest."""
    video = write_video(tmp_path / "live.avi", 60, fps=100)
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url, source=str(video), realtime=True, loop=True, window=2)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        proxy.freeze()
        await until(lambda: camera.unanswered == 2)
        full_since = camera.statistics.frame_counts.dropped["grab", "superseded"]
        await until(lambda: camera.statistics.frame_counts.dropped["grab", "superseded"] >= full_since + 10)
        assert camera.unanswered == 2
        assert camera.statistics.frame_counts.in_flight <= 4  # two sent, one in the mailbox, one in the head
        proxy.thaw()
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)


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
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        proxy.freeze()
        await until(lambda: camera.unanswered == camera.config.window)
        camera.stop()
        await asyncio.sleep(0.2)
        assert not playing.done()
        proxy.thaw()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert camera.statistics.frame_counts.dropped["network", "shutdown"] == 0
    assert camera.statistics.frame_counts.detected >= 6


async def test_a_stop_gives_up_after_the_drain(start_detector, make_camera):
    async with start_detector() as running, proxy_to(running.port) as proxy:
        camera = make_camera(proxy.url, loop=True, drain_s=0.2)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        proxy.freeze()
        await until(lambda: camera.unanswered == camera.config.window)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
        proxy.thaw()
    assert camera.statistics.frame_counts.dropped["network", "shutdown"] == camera.config.window
    assert balances(camera)


async def test_a_stop_while_the_network_loads(make_camera, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr("services.camera.service.load_network", lambda _: held.wait(LIVENESS_S))
    camera = make_camera("ws://127.0.0.1:9")
    playing = asyncio.ensure_future(camera.run())
    await asyncio.sleep(0.1)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    assert not held.is_set()
    held.set()


async def test_a_frame_that_fails_costs_one_frame(start_detector, make_camera, monkeypatch):
    """Whatever a frame makes of the head or the encoder, the next one goes on."""
    from services.camera import pipeline as module

    genuine = module._run_head
    calls = 0

    def fails_at_times(head, frame):
        nonlocal calls
        calls += 1
        if calls in (4, 5):
            raise cv2.error("a picture of a kind never seen")
        return genuine(head, frame)

    monkeypatch.setattr(module, "_run_head", fails_at_times)
    async with start_detector() as running:
        camera = make_camera(running.url)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.dropped == {("head", "error"): 2}
    assert camera.statistics.frame_counts.detected == FRAMES - 2


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


@pytest.mark.parametrize("split", ["0", "4.cv2", "6.m.0", "9", "23"])
async def test_any_split_point_works(start_detector, make_camera, split):
    async with start_detector() as running:
        camera = make_camera(running.url, split=split, frames=3)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.detected == 3


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


async def test_readiness_follows_the_network(weights, start_detector):
    async with start_detector() as running, ClientSession() as session:
        for path, status in (("/livez", 200), ("/readyz", 200), ("/v1/nothing", 404)):
            async with session.get(running.http + path) as answer:
                assert answer.status == status
        running.detector.ready.clear()
        async with session.get(running.http + "/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")


async def test_a_camera_that_has_finished_says_no_more(start_detector, make_camera):
    """Where the detector's close takes long to come, a report in between would be an error, and connect again."""
    async with start_detector() as running, proxy_to(running.port) as proxy:
        proxy.answers_late_s = 1.5
        camera = make_camera(proxy.url, window=32)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert proxy.connections == 1
        assert camera.statistics.frame_counts.detected == FRAMES
