"""A simulated camera keeps the protocol, and knows what came of each frame."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from aiohttp import WSMsgType, web

from codec.layout import TensorSpec
from codec.packet import Stamp
from codec.spec import parse_codec
from services.bench.recording import RecordedPackets
from services.bench.simulated_camera import DETECTED, IN_FLIGHT, SUPERSEDED, SimulatedCamera
from services.errors import NotMeasurable
from stream.session.ack import Ack
from stream.session.messages import FEATURES_PROTOCOL
from tests.services.fake_detector import serving
from tests.services.packet_headers import PacketHeaders
from tests.services.waiting import LIVENESS_S, until

LAYOUT = (TensorSpec("4.m", (2, 4, 4)),)


@pytest.fixture(scope="module")
def recorded():
    codec = parse_codec("rle:bits=4,temporal=true")
    encoder = codec.encoder(LAYOUT)
    tensors = {"4.m": np.arange(32, dtype=np.float32).reshape(2, 4, 4)}
    packets = tuple(encoder.encode(tensors, Stamp(number, 0)).data for number in range(3))
    return RecordedPackets("random", "0" * 64, "4.m", (32, 32), LAYOUT, codec, (32, 32), packets)


class FakeDetector:
    """Answers packets as a test tells it to."""

    def __init__(self, answer, window=1):
        self.hello = None
        self.headers = []
        self.reports = []
        self._answer, self._window = answer, window
        self._reader = None

    async def handle(self, request):
        self.query = request.query_string
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.BINARY:
                header = self._reader.read(message.data)
                self.headers.append(header)
                for answer in self._answer(header):
                    await (
                        ws.send_bytes(answer)
                        if isinstance(answer, bytes)
                        else ws.send_str(json.dumps(answer))
                    )
            elif (text := json.loads(message.data))["type"] == "hello":
                self.hello, self._reader = text, PacketHeaders(text)
                await ws.send_str(
                    json.dumps({"type": "welcome", "window": self._window, "max_packet_bytes": 9999})
                )
            else:
                self.reports.append(text)
        return ws


def ack(header):
    return Ack(header.sequence, detections=0, stages_ns={}).pack()


async def streamed(recorded, detector, condition, interval_s=0.005):
    """A camera that streamed until the condition held."""
    camera = SimulatedCamera(recorded, "load0", "0" * 32, window=3, interval_s=interval_s)
    stopping = asyncio.Event()
    async with serving(detector.handle) as url, asyncio.timeout(LIVENESS_S):
        running = asyncio.ensure_future(camera.run(url, 0.0, stopping))
        waiting = asyncio.ensure_future(until(lambda: condition(camera)))
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.set()
        await running
    return camera


async def test_every_frame_has_an_outcome_and_detected_ones_a_latency(recorded):
    detector = FakeDetector(lambda header: [ack(header)])
    camera = await streamed(recorded, detector, lambda camera: len(detector.headers) >= 5)
    assert [header.sequence for header in detector.headers] == list(range(len(detector.headers)))
    detected = [frame for frame in camera.frames if frame.outcome == DETECTED]
    assert len(detected) == len(detector.headers)
    assert all(frame.latency_ns > 0 for frame in detected)
    assert [frame.captured_ns for frame in detected] == [header.captured_ns for header in detector.headers]
    assert camera.over.is_set()
    assert detector.query == "stream=load0"


async def test_packets_go_in_a_circle(recorded):
    detector = FakeDetector(lambda header: [ack(header)])
    await streamed(recorded, detector, lambda camera: len(detector.headers) >= 5)
    assert [header.keyframe for header in detector.headers[:5]] == [True, False, False, True, False]


async def test_a_full_window_lets_the_newest_frame_wait(recorded, monkeypatch):
    monkeypatch.setattr("services.bench.simulated_camera.LAST_ANSWERS_S", 0.01)
    detector = FakeDetector(lambda header: [], window=2)
    camera = await streamed(recorded, detector, lambda camera: len(camera.frames) >= 5)
    assert len(detector.headers) == 2
    outcomes = [frame.outcome for frame in camera.frames]
    assert outcomes[:2] == [IN_FLIGHT] * 2
    assert set(outcomes[2:-1]) == {SUPERSEDED}
    assert outcomes[-1] == IN_FLIGHT


async def test_what_is_rejected_has_the_detectors_reason_and_a_keyframe_follows(recorded):
    def answer(header):
        if header.sequence == 1:
            # The request comes first: the reject opens the window, by which a difference may go.
            return [{"type": "keyframe"}, {"type": "reject", "reason": "corrupt", "detail": ""}]
        return [ack(header)]

    detector = FakeDetector(answer)
    camera = await streamed(recorded, detector, lambda camera: len(detector.headers) >= 3)
    assert [frame.outcome for frame in camera.frames if frame.outcome != SUPERSEDED][:3] == [
        DETECTED,
        "corrupt",
        DETECTED,
    ]
    assert [header.keyframe for header in detector.headers[:3]] == [True, False, True]


async def test_reports_as_a_camera_does(recorded, monkeypatch):
    """One frame detected, one rejected, one that has no answer, and behind it the newest in place of those before."""
    monkeypatch.setattr("services.bench.simulated_camera.REPORT_INTERVAL_S", 0.01)
    monkeypatch.setattr("services.bench.simulated_camera.LAST_ANSWERS_S", 0.01)

    def answer(header):
        if header.sequence == 1:
            return [{"type": "reject", "reason": "corrupt", "detail": ""}]
        if header.sequence == 0:
            return [ack(header)]
        detector.reports.clear()  # those before it was sent
        return []

    def has_captured_more(_camera):
        captured = [report["captured"] for report in detector.reports]
        return len(detector.headers) == 3 and captured and captured[-1] >= captured[0] + 2

    detector = FakeDetector(answer)
    await streamed(recorded, detector, has_captured_more)
    report = detector.reports[-1]
    assert (report["detected"], report["in_flight"]) == (1, 2)
    assert report["dropped"] == {"detector/corrupt": 1, "grab/superseded": report["captured"] - 4}


async def test_a_detector_that_leaves_cannot_be_measured(recorded):
    async def handle(request):
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.close(code=4003, message=b"weights differ")
        return ws

    camera = SimulatedCamera(recorded, "load7", "0" * 32, window=3, interval_s=1)
    async with serving(handle) as url:
        with pytest.raises(NotMeasurable, match=r"load7: the detector left.*weights differ"):
            await camera.run(url, 0.0, asyncio.Event())
