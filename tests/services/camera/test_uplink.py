"""One connection of a camera, over real sockets."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import cv2
import pytest
from aiohttp import WSMsgType, web
from structlog.testing import capture_logs

from services.camera import uplink
from services.chaos.service import chaos_proxy
from services.errors import DetectorRefused
from stream.errors import ConnectionLost
from stream.session.ack import Ack
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    FEATURES_PROTOCOL,
    KeyframeRequest,
    Welcome,
)
from stream.transport.liveness import LOOK_S
from tests.services.camera.detectors import ObedientDetector
from tests.services.camera.sources import picture, scripted
from tests.services.clips import FRAMES, write_video
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.packet_headers import PacketHeaders
from tests.services.waiting import LIVENESS_S, until


async def test_window_bounds_what_is_unanswered(start_detector, make_camera, tmp_path):
    """With a detector that answers nothing, a live camera sends no more than the window and drops the rest."""
    video = write_video(tmp_path / "live.avi", 60, fps=100)
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url, source=str(video), realtime=True, loop=True, window=2)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 3)
        hole = proxy.begin("blackhole")
        await until(lambda: camera.unanswered == 2)
        superseded = camera.statistics.frame_counts.dropped["grab", "superseded"]

        def is_full_for_ten_more() -> bool:
            assert camera.unanswered <= 2
            # Right after the freeze an answer may still have come, and opened the window for one more frame.
            more = camera.statistics.frame_counts.dropped["grab", "superseded"] - superseded
            return more >= 10 and camera.unanswered == 2

        await until(is_full_for_ten_more)
        assert camera.statistics.frame_counts.in_flight <= 4  # two sent, one in the mailbox, one in the head
        proxy.end(hole)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)


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


async def test_a_packet_larger_than_the_detector_takes_is_never_sent(make_camera):
    """It costs its frame: the detector would close for it. The next packet is a keyframe."""
    detector = ObedientDetector(max_packet_bytes=1)
    async with serving(detector.handle) as url, asyncio.timeout(LIVENESS_S):
        camera = make_camera(url, loop=True)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.dropped["encode", "too_large"] >= 3)
        assert detector.packets == []
        camera.stop()
        await playing
    assert set(camera.statistics.frame_counts.dropped) <= {("encode", "too_large"), ("grab", "shutdown")}
    assert balances(camera)


@pytest.mark.parametrize("frames_per_s", [0.001, 5e-324])
async def test_a_camera_that_may_send_one_frame_an_hour_stops_at_once(make_camera, frames_per_s):
    detector = ObedientDetector(frames_per_s=frames_per_s)
    async with serving(detector.handle) as url, asyncio.timeout(LIVENESS_S):
        camera = make_camera(url, loop=True, drain_s=2 * LIVENESS_S)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        await asyncio.sleep(0.2)
        camera.stop()
        await playing
    assert len(detector.packets) == 1
    assert detector.closes == [CloseCode.GOING_AWAY]
    assert set(camera.statistics.frame_counts.dropped) == {("grab", "shutdown")}
    assert balances(camera)


async def test_what_follows_a_packet_that_was_too_large_is_a_keyframe(
    start_detector, make_camera, monkeypatch
):
    from services.camera import pipeline as module

    genuine, sizes = module._encode, []

    def once_too_large(encoder, step, tensors, stamp, max_bytes):
        sizes.append(max_bytes)
        return genuine(encoder, step, tensors, stamp, 1 if len(sizes) == 3 else max_bytes)

    monkeypatch.setattr(module, "_encode", once_too_large)
    async with start_detector() as running:
        camera = make_camera(running.url, codec="rle:bits=4,temporal=true")
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert camera.statistics.frame_counts.dropped == {("encode", "too_large"): 1}
    assert camera.statistics.keyframes == {"first": 2}
    assert camera.statistics.frame_counts.detected == FRAMES - 1


async def test_a_frozen_link_is_noticed_and_replaced(start_detector, make_camera, tmp_path):
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url, loop=True, silence_s=0.5)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 5)
        hole = proxy.begin("blackhole")
        await until(lambda: not camera.statistics.connected["detector"])
        proxy.end(hole)
        resumed = camera.statistics.frame_counts.detected + 5
        await until(lambda: camera.statistics.frame_counts.detected >= resumed)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert camera.statistics.report("").reconnects["detector"] >= 1


async def test_wire_bytes_are_what_a_proxy_counts(start_detector, make_camera):
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
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


async def test_a_camera_that_has_finished_says_no_more(start_detector, make_camera):
    """Where the detector's close takes long to come, a report in between would be an error, and connect again."""
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        proxy.begin("latency:ms=1500,direction=down")
        camera = make_camera(proxy.url, window=32)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert camera.statistics.reconnects.total() == 0
        assert camera.statistics.frame_counts.detected == FRAMES


async def test_a_camera_obeys_a_keyframe_request(make_camera):
    """A detector of the test's own asks for a keyframe in the middle of a stream of differences."""
    keyframes: dict[int, bool] = {}
    asked_after = 8

    async def detector(request):
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        headers = PacketHeaders(json.loads(await ws.receive_str()))
        await ws.send_str(Welcome(window=1, max_packet_bytes=2**20).text())
        async for message in ws:
            if message.type is not WSMsgType.BINARY:
                continue
            header = headers.read(message.data)
            keyframes[header.sequence] = header.keyframe
            if header.sequence == asked_after:
                await ws.send_str(KeyframeRequest().text())
            await ws.send_bytes(Ack(header.sequence, detections=0, stages_ns={}).pack())
        return ws

    async with serving(detector) as url:
        camera = make_camera(url, window=1)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
    assert [sequence for sequence, keyframe in keyframes.items() if keyframe] == [0, asked_after + 1]
    assert camera.statistics.keyframes == {"first": 1, "requested": 1}


async def test_the_address_names_the_stream_behind_what_is_a_proxys(make_camera):
    asked = []

    async def note(request):
        asked.append(str(request.rel_url))
        raise web.HTTPServiceUnavailable

    async with serving(note) as url:
        camera = make_camera(f"{url}?site=1", stream="yard-2")
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: asked)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert asked[0] == "/v1/features?site=1&stream=yard-2"


async def test_a_camera_gives_up_where_the_detector_speaks_an_older_protocol(make_camera):
    async def older(request):
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        spoken = json.loads(await ws.receive_str())["protocol"]
        reason = f"camera speaks protocol {spoken}, detector 1: update the older one"
        await ws.close(code=CloseCode.PROTOCOL_VERSION, message=reason.encode())
        return ws

    async with serving(older) as url:
        with pytest.raises(
            DetectorRefused, match="camera speaks protocol 2, detector 1: update the older one"
        ):
            await asyncio.wait_for(make_camera(url).run(), LIVENESS_S)


async def test_a_camera_leaves_a_detector_that_breaks_the_protocol(make_camera):
    """A server that acknowledges what was never sent is left and tried again, as a lost one is."""
    greeted = 0

    async def nonsense(request):
        nonlocal greeted
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.receive()
        greeted += 1
        await ws.send_bytes(Ack(3, detections=0, stages_ns={}).pack())
        async for _ in ws:
            pass
        return ws

    async with serving(nonsense) as url, asyncio.timeout(LIVENESS_S):
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        while greeted < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        camera.stop()
        await playing
    assert camera.statistics.frame_counts.detected == 0
    assert camera.statistics.frame_counts.captured == camera.statistics.frame_counts.dropped_total


@pytest.mark.parametrize("welcomes", [False, True])
async def test_a_detector_that_lives_but_does_not_answer_is_left(
    start_detector, make_camera, monkeypatch, welcomes
):
    monkeypatch.setattr(uplink, "ANSWER_S", 1.0)
    connections = 0

    async def handle(request: web.Request) -> web.WebSocketResponse:
        nonlocal connections
        connections += 1
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,), heartbeat=0.5)  # which answers pings, too
        await ws.prepare(request)
        async for message in ws:
            if welcomes and message.type is WSMsgType.TEXT and '"hello"' in message.data:
                await ws.send_str(Welcome(window=2, max_packet_bytes=2**20).text())
        return ws

    async with serving(handle) as url:
        camera = make_camera(url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: connections >= 2)
        playing.cancel()
        await asyncio.wait([playing])


async def test_a_detector_that_takes_nothing_though_it_says_something_is_left(make_camera, monkeypatch):
    """Packets and pings may be on their way through a slow link for long, but not for ever."""
    monkeypatch.setattr(uplink, "DEAF_S", 1.0)
    connections = 0

    async def handle(request: web.Request) -> web.WebSocketResponse:
        nonlocal connections
        connections += 1
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.receive()
        await ws.send_str(Welcome(window=2, max_packet_bytes=2**20).text())
        with suppress(ConnectionError):
            while True:  # it reads no more, so it answers no ping either
                await ws.send_str(KeyframeRequest().text())
                await asyncio.sleep(0.1)
        return ws

    async with serving(handle) as url:
        with capture_logs() as logs:
            camera = make_camera(url)
            playing = asyncio.ensure_future(camera.run())
            await until(lambda: connections >= 2)
            playing.cancel()
            await asyncio.wait([playing])
    assert any("has taken nothing" in line.get("reason", "") for line in logs)


class Watched:
    """A link and its session, on a clock of the test's own."""

    owed, accepted, answered, delivered_ns = True, True, 0, 0

    def __init__(self, takes: bool, says: bool = True) -> None:
        self.now_s, self._takes, self._says = 1000.0, takes, says

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    async def watch(self):
        while True:
            self.now_s += LOOK_S
            if self._takes:
                self.delivered_ns = self.monotonic_ns()
            yield 0.0 if self._says else self.now_s - 1000


@pytest.mark.parametrize(
    ("takes", "limit_s", "words"), [(True, 60, "answered"), (False, 300, "taken nothing")]
)
async def test_how_long_a_detector_is_waited_for_that_says_something_but_no_answer(
    takes, limit_s, words, monkeypatch
):
    watched = Watched(takes)
    monkeypatch.setattr(uplink, "time", watched)
    with pytest.raises(ConnectionLost, match=words):
        await uplink._watch(watched, watched, 3.0)
    assert watched.now_s - 1000 == pytest.approx(limit_s, abs=2 * LOOK_S)


@pytest.mark.parametrize(
    ("owed", "accepted", "limit_s"), [(True, True, 3), (False, False, 3), (False, True, 10)]
)
async def test_how_long_a_detector_may_say_nothing(owed, accepted, limit_s, monkeypatch):
    watched = Watched(takes=True, says=False)
    watched.owed, watched.accepted = owed, accepted
    monkeypatch.setattr(uplink, "time", watched)
    with pytest.raises(ConnectionLost, match=f"nothing came from the detector for {limit_s} s"):
        await uplink._watch(watched, watched, 3.0)
    assert watched.now_s - 1000 == pytest.approx(limit_s, abs=LOOK_S)


async def test_a_link_that_died_is_noticed_though_nothing_is_owed(make_camera, start_detector, monkeypatch):
    made = scripted(monkeypatch, live=True)
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: made)
        while (
            not camera.statistics.frame_counts.detected
        ):  # the first may be too old once all is prepared for it
            made[0].play(picture())
            await asyncio.sleep(0.2)
        monkeypatch.setattr(uplink, "DEAD_S", 1.0)  # a busy machine may take longer to detect
        proxy.begin("blackhole")
        await until(lambda: not camera.statistics.connected["detector"])
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
