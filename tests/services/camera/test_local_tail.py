"""A camera that finishes the network itself while its detector is away."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import pytest

from services.camera import local_detections, local_tail
from services.camera.kept_detections import KeptDetections
from services.camera.local_detections import MAX_CONSUMERS
from services.camera.metrics import serve_metrics
from services.chaos.service import chaos_proxy
from services.clock import clock_now
from services.commands.message_lines import readable
from services.commands.watch import messages
from services.detections_address import detections_url
from services.errors import SettingsError
from stream.session.messages import Clock
from stream.transport.broadcast import Broadcast
from stream.transport.websocket import ServerWebSocket
from tests.ports import free_port
from tests.services.camera.sources import END, picture, scripted
from tests.services.camera.test_outage import Collector
from tests.services.counts import balances
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until

NOWHERE = "ws://127.0.0.1:9"  # the discard port: nobody listens
LOCAL = {"fallback": "local", "fallback_after_s": 0.01, "fallback_confidence": 0.001, "silence_s": LIVENESS_S}


def stepped(by_ns: int) -> Clock:
    now = clock_now()
    return now.model_copy(update={"unix_ns": now.unix_ns + by_ns})


def predictions(message: dict) -> list[dict]:
    return message["predictions"]


async def play_one_by_one(camera, source, frames) -> None:
    for frame in frames:
        done = camera.statistics.frame_counts.done
        source.play(frame)
        await until(lambda done=done: camera.statistics.frame_counts.done > done)


@pytest.fixture
def local_camera(make_camera, monkeypatch):
    """Makes a camera that falls back at once, of a scripted live source; must be called on the event loop."""

    def make(url: str = NOWHERE, **settings):
        made = scripted(monkeypatch, live=True)
        camera = make_camera(url, **{**LOCAL, **settings})
        return camera, made[0], camera.local_tail.detections

    return make


def kept(detections) -> list[dict]:
    return [json.loads(text) for text in detections.kept.since(0)]


async def test_the_camera_finds_what_its_detector_finds(start_detector, local_camera):
    """Of the same picture, with a codec that loses nothing: the same boxes, in the same message but for its path."""
    frames = [picture() for _ in range(2)]
    told: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, told)
        camera, source, detections = local_camera(running.url, codec="raw", fallback_after_s=1000)
        playing = asyncio.ensure_future(camera.run())
        await play_one_by_one(camera, source, frames[:1])
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
        assert not kept(detections)
    await subscription
    [split] = [message for message in told if message["type"] == "detections"]
    camera, source, detections = local_camera(codec="raw")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, frames[:1])
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    [local] = kept(detections)
    assert (split["path"], local["path"]) == ("split", "local")
    assert len(predictions(split)) > 10
    assert predictions(local) == predictions(split)
    assert local["image"] == split["image"]
    assert local["captured_ns"] == split["captured_ns"] == frames[0].captured_ns
    assert local.keys() == split.keys()
    assert camera.statistics.frame_counts.detected_locally == 1
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_frames_detected_locally_total") == 1
    assert balances(camera)


async def test_consumers_read_what_is_kept_and_what_comes(local_camera):
    camera, source, detections = local_camera(metrics_port=free_port())
    url = f"http://127.0.0.1:{camera.config.metrics_port}/v1"
    frames = [picture() for _ in range(6)]
    playing = asyncio.ensure_future(camera.run())
    metrics = camera.statistics.metrics
    async with (
        asyncio.timeout(LIVENESS_S),
        serve_metrics(metrics, camera.config, detections.routes()),
        aiohttp.ClientSession() as session,
    ):
        await play_one_by_one(camera, source, frames[:4])
        captured_at = [message["captured_at"] for message in kept(detections)]
        async with (
            session.ws_connect(f"{url}/detections") as new,
            session.ws_connect(f"{url}/streams/door/detections?since=0&types=detections") as later,
            session.ws_connect(f"{url}/detections?since={captured_at[1]}") as some,
        ):
            for consumer in (new, some):
                state = await consumer.receive_json()
                assert (state["type"], state["state"], state["path"]) == ("stream", "connected", "local")
            await until(lambda: len(detections.broadcast) == 3)
            await play_one_by_one(camera, source, frames[4:])
            for consumer, expected in ((new, frames[4:]), (later, frames), (some, frames[2:])):
                got = [(await consumer.receive_json())["captured_ns"] for _ in expected]
                assert got == [frame.captured_ns for frame in expected]
            assert metrics.registry.get_sample_value("splitcast_camera_fallback_kept_messages") == 6
            assert metrics.registry.get_sample_value("splitcast_camera_fallback_active") == 1
            camera.stop()
            await asyncio.wait_for(playing, LIVENESS_S)
            detections.close()
            assert (await new.receive_json())["state"] == "ended"
            assert (await new.receive()).data == 1001
        assert metrics.registry.get_sample_value("splitcast_camera_fallback_active") == 0


async def test_a_camera_without_a_detector_says_that_it_waits_and_why(start_detector, local_camera):
    """Until it detects itself; while its detector does, that has ended here."""
    port, told = free_port(), []
    camera, source, detections = local_camera(
        f"ws://127.0.0.1:{port}", metrics_port=free_port(), fallback_after_s=1000
    )
    url = f"http://127.0.0.1:{camera.config.metrics_port}/v1/detections?types=stream"
    async with (
        asyncio.timeout(LIVENESS_S),
        serve_metrics(camera.statistics.metrics, camera.config, detections.routes()),
        aiohttp.ClientSession() as session,
        session.ws_connect(url) as consumer,
    ):
        told.append(await consumer.receive_json())
        playing = asyncio.ensure_future(camera.run())
        source.play(picture())
        while str(port) not in told[-1]["reason"]:
            told.append(await consumer.receive_json())
        assert {message["state"] for message in told} == {"waiting"}
        assert "the camera detects after 1000 s without one" in told[-1]["reason"]
        assert len({message["at"] for message in told}) == 1
        assert camera.statistics.metrics.registry.get_sample_value("splitcast_camera_fallback_active") == 0
        async with start_detector(port=port):
            await until(lambda: camera.statistics.connected["detector"])
            await play_one_by_one(camera, source, [picture()])
            while told[-1]["state"] == "waiting":
                told.append(await consumer.receive_json())
            assert told[-1]["state"] == "ended"
        while told[-1]["state"] == "ended":
            told.append(await consumer.receive_json())
        assert told[-1]["state"] == "waiting"
        camera.stop()
        await playing


async def test_reasons_hide_credentials_and_have_an_end(local_camera):
    _, _, detections = local_camera()
    detections.wait("ws://door:secret@nas refused " + "x" * 1000, 5.0)
    assert "secret" not in detections._reason
    assert detections._reason.endswith("; the camera detects after 5 s without one")
    assert len(detections._reason) < 400


async def test_a_camera_that_detects_goes_on_whatever_its_attempts_meet(local_camera):
    camera, source, detections = local_camera()
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture()])
    detections.wait("another reason", 0.01)
    assert detections._state == "connected"
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_messages_are_numbered_timed_and_as_long_as_the_settings_let_them(local_camera):
    camera, source, detections = local_camera(fallback_max_detections=3)
    camera.statistics.connect("detector")
    camera.statistics.disconnect("detector", "broken")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(2)])
    messages = kept(detections)
    assert [len(predictions(message)) for message in messages] == [3, 3]
    assert [(message["frame"], message["sequence"]) for message in messages] == [(0, 0), (1, 1)]
    assert all(message["connection"] == 1 and message["keyframe"] for message in messages)
    assert all(0 < message["time"] < message["published_at"] - message["captured_at"] for message in messages)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_an_error_of_the_layers_after_the_split_costs_one_frame_and_is_counted_there(
    local_camera, monkeypatch
):
    camera, source, detections = local_camera()
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture()])
    with monkeypatch.context() as broken:
        broken.setattr(local_tail, "detect", lambda *_, **__: 1 / 0)
        await play_one_by_one(camera, source, [picture()])
    await play_one_by_one(camera, source, [picture()])
    assert camera.statistics.frame_counts.dropped == {("tail", "error"): 1}
    assert [message["frame"] for message in kept(detections)] == [0, 2]
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_time_of_day_that_is_set_is_told_with_the_next_frame(local_camera, monkeypatch):
    """But for the first, before which nothing was told."""
    steps = iter([3600 * 10**9, 0, -3600 * 10**9, -3600 * 10**9])
    monkeypatch.setattr(local_tail, "clock_now", lambda: stepped(next(steps)))
    camera, source, detections = local_camera()
    playing = asyncio.ensure_future(camera.run())
    frames = [picture() for _ in range(3)]
    await play_one_by_one(camera, source, frames)
    messages = kept(detections)
    assert [message.get("clock_stepped") for message in messages] == [None, -3600.0, None]
    ages = [time.time() - message["captured_at"] for message in messages]
    assert ages == pytest.approx([0, 3600, 3600], abs=LIVENESS_S)
    assert messages[2]["captured_at"] - messages[1]["captured_at"] == pytest.approx(
        (frames[2].captured_ns - frames[1].captured_ns) / 1e9, abs=1e-3
    )
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_consumers_get_the_kinds_that_they_ask_for_and_are_told_what_they_miss(local_camera):
    camera, source, detections = local_camera(metrics_port=free_port())
    detections.broadcast = Broadcast(capacity=2)
    url = f"http://127.0.0.1:{camera.config.metrics_port}/v1/detections?since=0&types="
    playing = asyncio.ensure_future(camera.run())
    async with (
        asyncio.timeout(LIVENESS_S),
        serve_metrics(camera.statistics.metrics, camera.config, detections.routes()),
        aiohttp.ClientSession() as session,
    ):
        await play_one_by_one(camera, source, [picture() for _ in range(2)])
        camera.statistics.connect("detector")
        camera.statistics.disconnect("detector", "broken")
        async with (
            session.ws_connect(url + "stream") as states,
            session.ws_connect(url + "detections") as found,
        ):
            await until(lambda: len(detections.broadcast) == 2)
            state, *first = [
                await states.receive_json(),
                await found.receive_json(),
                await found.receive_json(),
            ]
            assert (state["type"], state["connection"], state["frame"]) == ("stream", 1, 2)
            assert [message["frame"] for message in first] == [0, 1]
            last = kept(detections)[-1]
            for number in range(4):  # at once, so that nobody can read meanwhile
                detections.broadcast.publish("door", "detections", json.dumps(last | {"frame": 2 + number}))
            told = [await found.receive_json() for _ in range(2)]
            assert [(message["frame"], message.get("dropped", 0)) for message in told] == [(4, 2), (5, 0)]
            detections.rest()
            assert (await states.receive_json())["state"] == "ended"
            detections.close()
            assert [message.type async for message in found] == []
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)


async def test_watch_reads_a_camera_as_a_detector(local_camera):
    camera, source, detections = local_camera(metrics_port=free_port())
    playing = asyncio.ensure_future(camera.run())
    async with (
        asyncio.timeout(LIVENESS_S),
        serve_metrics(camera.statistics.metrics, camera.config, detections.routes()),
    ):
        await play_one_by_one(camera, source, [picture() for _ in range(2)])
        address = f"ws://127.0.0.1:{camera.config.metrics_port}?since=0"
        watched = messages(detections_url(address, types="stream,detections"))
        lines = [readable(await anext(watched)) for _ in range(3)]
        await watched.aclose()
        camera.stop()
        await playing
    assert "door connected: without a detector" in lines[0]
    assert all("on the camera" in line for line in lines[1:])


async def test_a_detector_behind_a_broken_link_tells_what_the_camera_found_meanwhile(
    start_detector, local_camera
):
    """In the reasons of its gaps, by which every frame is told once."""
    told: list[dict] = []
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        subscription = await subscribed(running, running.url, told, types="detections,gap")
        camera, source, _ = local_camera(proxy.url)
        counts = camera.statistics.frame_counts
        playing = asyncio.ensure_future(camera.run())
        while not counts.detected:  # before it is welcomed the first may be detected here
            await play_one_by_one(camera, source, [picture()])
        await until(
            lambda: running.detector.streams.get("door").report
        )  # by which drops of before are told apart
        away = proxy.begin("blackhole")
        proxy.begin("reset")
        await until(lambda: camera._outage.takes)
        found = counts.detected_locally
        await play_one_by_one(camera, source, [picture() for _ in range(4)])
        assert counts.detected_locally == found + 4
        proxy.end(away)
        await until(lambda: camera.statistics.connected["detector"] and not camera._outage.lasts)
        await play_one_by_one(camera, source, [picture() for _ in range(3)])
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    await subscription
    gaps = [message for message in told if message["type"] == "gap"]
    assert sum(gap["reasons"].get("local", 0) for gap in gaps) >= 4
    numbers = [message["frame"] for message in told if message["type"] == "detections"]
    numbers += [number for gap in gaps for number in range(gap["first"], gap["last"] + 1)]
    assert sorted(numbers) == list(range(min(numbers), counts.captured))
    assert min(numbers) + len(numbers) == counts.captured
    assert counts.captured == counts.detected + counts.detected_locally + counts.dropped_total


async def test_what_is_no_consumer_is_refused(local_camera):
    camera, _, detections = local_camera(metrics_port=free_port())
    url = f"http://127.0.0.1:{camera.config.metrics_port}/v1"
    page = {"Origin": "http://elsewhere.example"}
    async with (
        serve_metrics(camera.statistics.metrics, camera.config, detections.routes()),
        aiohttp.ClientSession() as session,
    ):
        for path, headers, status in [
            ("detections", page, 403),
            ("streams/window/detections", {}, 404),
            ("detections?since=yesterday", {}, 400),
            ("detections?since=nan", {}, 400),
            ("detections?types=pictures", {}, 400),
        ]:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{url}/{path}", headers=headers)
            assert refused.value.status == status, path
        async with session.ws_connect(f"{url}/detections") as talker:
            for _ in range(100):
                await talker.send_str("listen")
            codes = [message.data async for message in talker if message.type is not aiohttp.WSMsgType.TEXT]
            assert talker.close_code == 1008, codes
    camera.stop()


async def test_a_frame_that_another_taker_still_has_is_in_flight_and_nothing_else(local_camera):
    """Also to who reads /metrics meanwhile."""
    camera, source, detections = local_camera(fallback_after_s=1e-9)
    other = Collector("recorded")
    other.may_finish.clear()
    camera._takers.append(other)
    playing = asyncio.ensure_future(camera.run())
    source.play(picture())
    await until(lambda: other.taken)
    assert len(detections.kept) == camera.statistics.frame_counts.in_flight == 1
    assert balances(camera)
    other.may_finish.set()
    await until(lambda: camera.statistics.frame_counts.detected_locally == 1)
    assert balances(camera)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_so_many_consumers_are_let_in_however_many_come_at_once(local_camera, monkeypatch):
    opening, refused, go = [], [], asyncio.Event()

    class SlowWebSocket(ServerWebSocket):
        async def open(self, request) -> bool:
            opening.append(request)
            await go.wait()
            return await super().open(request)

    monkeypatch.setattr(local_detections, "ServerWebSocket", SlowWebSocket)
    camera, _, detections = local_camera(metrics_port=free_port())
    url = f"http://127.0.0.1:{camera.config.metrics_port}/v1/detections"
    async with (
        serve_metrics(camera.statistics.metrics, camera.config, detections.routes()),
        aiohttp.ClientSession() as session,
    ):

        async def come() -> aiohttp.ClientWebSocketResponse | None:
            try:
                return await session.ws_connect(url)
            except aiohttp.WSServerHandshakeError as error:
                refused.append(error.status)
                return None

        coming = [asyncio.ensure_future(come()) for _ in range(2 * MAX_CONSUMERS)]
        await until(lambda: len(opening) + len(refused) == len(coming))
        go.set()
        let_in = [one for one in await asyncio.gather(*coming) if one]
        assert (len(let_in), refused) == (MAX_CONSUMERS, [503] * MAX_CONSUMERS)
        await let_in[0].close()
        await until(lambda: detections._consumers < MAX_CONSUMERS)
        assert await come()
    camera.stop()


def test_who_goes_on_from_a_message_misses_nothing_though_the_clock_was_set_back():
    keeper = KeptDetections(capacity=10, max_bytes=1000)
    for captured_at in (3601.5, 3602.5, 2.5, 3.5):
        keeper.add(captured_at, f"at {captured_at}")
    assert keeper.since(3602.5) == ["at 2.5", "at 3.5"]
    assert keeper.since(3601.5) == ["at 3602.5", "at 2.5", "at 3.5"]
    assert keeper.since(2.5) == ["at 3.5"]
    assert keeper.since(3602) == ["at 3602.5"]  # a time of day, and not of a message
    assert keeper.since(3) == ["at 3601.5", "at 3602.5", "at 3.5"]
    assert keeper.since(3.5) == []


def test_what_is_kept_is_bounded():
    keeper = KeptDetections(capacity=3, max_bytes=100)
    for second in range(5):
        keeper.add(second, f"message {second}")
    assert keeper.since(0) == ["message 2", "message 3", "message 4"]
    assert keeper.since(3) == ["message 4"]
    keeper.add(5, "x" * 90)
    assert keeper.since(0) == ["message 4", "x" * 90]
    keeper.add(6, "x" * 101)
    assert len(keeper) == 0
    keeper.add(7, "message 7")
    assert keeper.since(0) == ["message 7"]
    keeper.add(8, "x" * 100)
    assert keeper.since(0) == ["x" * 100]


async def test_a_file_needs_no_fallback(make_camera):
    with pytest.raises(SettingsError, match="waits for its detector"):
        make_camera(NOWHERE, **LOCAL)


async def test_it_returns_to_the_split_by_itself(start_detector, local_camera):
    port = free_port()
    camera, source, detections = local_camera(f"ws://127.0.0.1:{port}")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(3)])
    assert detections._state == "connected"
    async with start_detector(port=port):
        await until(lambda: camera.statistics.connected["detector"])
        await until(lambda: not camera._outage.lasts)
        await play_one_by_one(camera, source, [picture() for _ in range(2)])
        assert detections._state == "ended"
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    counts = camera.statistics.frame_counts
    assert (counts.detected_locally, counts.detected, counts.dropped_total) == (3, 2, 0)
