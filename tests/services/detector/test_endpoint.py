"""A camera's session with a detector, over real sockets: whose name it is, how it ends, and what consumers are told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from structlog.testing import capture_logs

from codec.packet import Stamp
from codec.spec import parse_codec
from services.detector import visit
from services.detector.turns import CameraTurns, ReceivedPacket
from stream.rate.window import SHRINK_PAUSE_S
from stream.session.close_codes import CloseCode
from stream.session.detector import REPORT_BURST
from stream.session.messages import FEATURES_PROTOCOL, REJECT_REASONS, Clock, Report, Waiting
from stream.transport.websocket import Link
from tests.services.clips import SIZE
from tests.services.detector.peers import answer, closed, linked
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until

OWNER, OTHER = "ab" * 16, "cd" * 16
ALL = "detections,stream,gap"


def metric(running, name: str, **labels: str) -> float | None:
    return running.detector.statistics.metrics.registry.get_sample_value(f"splitcast_detector_{name}", labels)


@pytest.fixture
def hello(make_hello):
    """The hello of a live camera that knows all of the protocol."""

    def hello(session: str | None = OWNER, **changes) -> str:
        fields = {"session": session, "live": True, "reject_reasons": REJECT_REASONS, **changes}
        return make_hello(**fields).text()

    return hello


async def greet(link: Link, hello: str) -> None:
    await link.send(hello)
    assert (await answer(link))["type"] == "welcome"


async def answers(link: Link, count: int) -> list[tuple]:
    """So many answers to packets, as (type, reason); what else is said comes as (type,)."""
    told: list[tuple] = []
    while sum(len(one) == 2 for one in told) < count:
        message = await answer(link)
        is_answer = message["type"] in ("ack", "reject")
        told.append((message["type"], message.get("reason")) if is_answer else (message["type"],))
    return told


def make_report(**changes) -> Report:
    fields = {
        **dict.fromkeys(("captured", "detected", "in_flight"), 0),
        **{name: {} for name in ("dropped", "reconnects", "keyframes")},
        "source": "0",
        "source_state": "open",
    }
    return Report(**fields | changes)


def states(messages: list[dict]) -> list[tuple[str, int]]:
    return [(told["state"], told["connection"]) for told in messages if told["type"] == "stream"]


# --- whose name it is ---


@pytest.mark.parametrize("waits", [False, True])
async def test_a_camera_and_its_address_name_one_stream(start_detector, hello, waits):
    """A balancer goes by the address: elsewhere nobody would look for the stream."""
    waiting = Waiting(stream="door", session=OWNER, source="0", source_state="opening").text()
    async with start_detector() as running:
        async with linked(running.url, query="?stream=yard") as link:
            await link.send(waiting if waits else hello())
            lost = await closed(link)
        assert (lost.code, "'door'" in lost.reason, "'yard'" in lost.reason) == (4421, True, True)
        assert not list(running.detector.streams)
        assert metric(running, "connections_refused_total", reason="stream_differs") == 1
        for query in ("", "?stream=door", "?site=1&stream=d%6For"):
            async with linked(running.url, query=query) as link:
                await greet(link, hello())


async def test_a_camera_that_comes_back_replaces_its_own_dead_connection(start_detector, hello, encode):
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages, types="stream")
        async with linked(running.url) as old, linked(running.url) as new, linked(running.url) as foreign:
            await greet(old, hello())
            await greet(new, hello())
            assert (await closed(old)).code == CloseCode.REPLACED
            await foreign.send(hello(OTHER))
            assert (await closed(foreign)).code == CloseCode.STREAM_TAKEN
            await new.send(encode(0))
            assert (await answer(new))["type"] == "ack"
        assert metric(running, "reconnects_total", peer="camera", reason="replaced") == 1
        assert metric(running, "connections_refused_total", reason="stream_taken") == 1
        assert metric(running, "sessions_closed_total", code="4430") == 1
        assert metric(running, "streams") in (0, 1)
        async with ClientSession() as session, session.get(f"{running.http}/v1/streams") as listed:
            shown = await listed.text()
    await subscription
    assert states(messages)[:2] == [("connected", 1), ("connected", 2)]
    assert OWNER not in shown + json.dumps(messages)


async def test_a_lost_cameras_name_is_kept_for_it_and_a_goodbye_frees_it(start_detector, hello):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await greet(link, hello())
            link.abort()
        await until(lambda: not running.detector.streams.is_connected("door"))
        async with linked(running.url) as foreign:
            await foreign.send(hello(OTHER))
            lost = await closed(foreign)
            assert (lost.code, "kept for" in lost.reason) == (CloseCode.STREAM_TAKEN, True)
        async with linked(running.url) as link:
            await greet(link, hello())  # and then says goodbye
        await until(lambda: not running.detector.streams.is_connected("door"))
        assert running.detector.streams.get("door").status.state == "ended"
        async with linked(running.url) as foreign:
            await greet(foreign, hello(OTHER))


async def test_no_name_is_kept_for_a_camera_that_will_be_refused_again(start_detector, hello):
    async with start_detector() as running:
        async with linked(running.url) as link:
            await link.send(Waiting(stream="door", session=OWNER, source="0", source_state="opening").text())
            await until(lambda: running.detector.streams.get("door") is not None)
            await link.send(hello(weights="0" * 64))
            assert (await closed(link)).code == CloseCode.WEIGHTS_DIFFER
        async with linked(running.url) as foreign:
            await greet(foreign, hello(OTHER))


# --- how it ends ---


async def test_one_line_a_handshake_and_one_an_end(start_detector, hello):
    async with start_detector() as running:
        with capture_logs() as logs:
            async with linked(running.url) as link, linked(running.url) as foreign:
                await greet(link, hello())
                await foreign.send(hello(OTHER))
                await closed(foreign)
            await until(lambda: not running.detector.streams.is_connected("door"))
        assert [(line["event"], line["stream"]) for line in logs] == [
            ("handshake", "door"),
            ("handshake refused", "door"),
            ("session ended", "door"),
        ]
        assert OWNER not in str(logs)
        assert OTHER not in str(logs)


async def test_why_a_camera_leaves_is_told_in_its_words(start_detector):
    """One that leaves for pictures of another size was not stopped, and one that waited was not refused."""
    async with start_detector() as running:
        with capture_logs() as logs:
            async with linked(running.url) as link:
                waiting = Waiting(stream="door", session=OWNER, source="0", source_state="opening")
                await link.send(waiting.text())
                await until(lambda: running.detector.streams.is_connected("door"))
                await link.close(CloseCode.GOING_AWAY, "the picture's size changed")
            await until(lambda: not running.detector.streams.is_connected("door"))
        status = running.detector.streams.get("door").status
        assert (status.state, status.reason) == ("ended", "the picture's size changed")
        assert [line["event"] for line in logs] == ["camera left"]


@pytest.mark.parametrize(("session", "told"), [(OWNER, True), (None, False)])
async def test_a_detector_that_is_not_ready_says_when_to_come_back(start_detector, hello, session, told):
    async with start_detector() as running, linked(running.url) as link:
        running.detector.ready.clear()
        await link.send(hello(session))
        if told:
            assert await answer(link) == {"type": "retry", "after_s": 0.5}
        assert (await closed(link)).code == CloseCode.TRY_AGAIN_LATER
        assert metric(running, "connections_refused_total", reason="not_ready") == 1


async def test_a_drain_that_runs_out_is_told(start_detector, hello, encode, monkeypatch):
    """A frame that is never done, and a consumer that does not read: both ends are told that the detector goes."""
    messages: list[dict] = []

    over = threading.Event()

    def never(*_):
        over.wait(LIVENESS_S)

    async with start_detector(drain_s=0.2) as running:
        monkeypatch.setattr(running.detector.inference, "detect", never)
        subscription = await subscribed(running, running.url, messages)
        async with linked(running.url) as link:
            await greet(link, hello())
            await link.send(encode(0))
            await until(lambda: running.detector.workers.running)
            running.detector.stop()
            assert await answer(link) == {"type": "retry", "after_s": 1.0}
            assert (await closed(link)).code == CloseCode.GOING_AWAY
        assert await subscription == CloseCode.GOING_AWAY
    over.set()


async def test_a_silent_camera_is_stalled_and_then_left(start_detector, hello, monkeypatch):
    monkeypatch.setattr(visit, "STALLED_S", 1.0)
    monkeypatch.setattr(visit, "SILENCE_S", 4.0)
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages, types="stream")
        async with linked(running.url) as link:
            await greet(link, hello())
            await until(lambda: states(messages)[-1:] == [("stalled", 1)])
            await link.send(make_report().text())
            await until(lambda: states(messages)[-1:] == [("connected", 1)])
            # Nobody reads here, so that no ping is answered.
            await until(lambda: states(messages)[-1:] == [("lost", 1)])
            assert (await closed(link)).code == CloseCode.TIMEOUT
        assert messages[-1]["reason"] == "nothing came for 4 s"
        assert metric(running, "sessions_closed_total", code="4408") == 1
    await subscription
    assert [state for state, _ in states(messages)] == [
        "connected",
        "stalled",
        "connected",
        "stalled",
        "lost",
    ]


async def test_a_camera_whose_frames_turn_out_too_costly_is_left(start_detector, hello, encode, monkeypatch):
    """What was measured since its hello counts, and its next hello is refused by it."""
    async with start_detector(max_tail_ms=3_600_000) as running:
        async with linked(running.url) as link:
            await greet(link, hello())
            monkeypatch.setattr(running.detector.inference.costs, "measured_ms", lambda kind: 3_600_001.0)
            await link.send(encode(0))
            lost = await closed(link)
            assert (lost.code, "too_costly: a frame of 64x96 split at 4.m" in lost.reason) == (
                CloseCode.TOO_COSTLY,
                True,
            )
        async with linked(running.url) as link:
            await link.send(hello())
            assert (await closed(link)).code == CloseCode.TOO_COSTLY
        assert metric(running, "connections_refused_total", reason="too_costly") == 1


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [(WSMsgType.TEXT, b"\xff", 1007), (WSMsgType.BINARY, bytes(9 * 2**20), 1009), (3, b"", 1002)],
)
async def test_what_is_no_websocket_is_counted_and_told(start_detector, hello, kind, data, code):
    async with start_detector() as running, ClientSession() as session:
        async with session.ws_connect(f"{running.url}/v1/features", protocols=(FEATURES_PROTOCOL,)) as ws:
            await ws.send_str(hello())
            await ws.receive_str(timeout=LIVENESS_S)
            await ws._writer.send_frame(data, kind)
            while (message := await ws.receive(timeout=LIVENESS_S)).type is not WSMsgType.CLOSE:
                assert message.type in (WSMsgType.TEXT, WSMsgType.PING)
            assert message.data == code
        await until(lambda: metric(running, "sessions_closed_total", code=str(code)) == 1)
        reason = CloseCode(code).name.lower()
        assert metric(running, "connections_refused_total", reason=reason) == 0
        async with session.ws_connect(f"{running.url}/v1/features", protocols=(FEATURES_PROTOCOL,)) as ws:
            await ws._writer.send_frame(data, kind)  # before any hello
            await until(lambda: metric(running, "connections_refused_total", reason=reason) == 1)


async def test_a_flood_of_pings_is_no_defect_of_ours(start_detector, hello):
    async with start_detector() as running, ClientSession() as session:
        ws = await session.ws_connect(f"{running.url}/v1/features", protocols=(FEATURES_PROTOCOL,))
        await ws.send_str(hello())
        await ws.receive_str(timeout=LIVENESS_S)
        with suppress(ConnectionError):
            for _ in range(20_000):
                await ws.ping(bytes(100))
        ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await until(lambda: not running.detector.streams.is_connected("door"))
        assert metric(running, "sessions_closed_total", code="1011") == 0
        await ws.close()


# --- keyframes ---


@pytest.mark.parametrize("damaged", [1, 2, 5])
async def test_detections_return_with_the_first_whole_keyframe(start_detector, hello, encode, damaged):
    """Each keyframe that is damaged on its way is asked for again."""
    async with start_detector() as running, linked(running.url) as link:
        await greet(link, hello())
        await link.send(encode(0))
        assert await answers(link, 1) == [("ack", None)]
        for sequence in range(1, damaged + 2):
            packet = bytearray(encode(sequence, keyframe=sequence > 1))
            packet[len(packet) // 2] ^= 1
            await link.send(bytes(packet))
            assert [(await answer(link))["type"] for _ in range(2)] == ["reject", "keyframe"]
        await link.send(encode(damaged + 2, keyframe=True))
        assert await answers(link, 1) == [("ack", None)]


# --- frames that are late ---


class Hold:
    """Lets a detector's frames wait before the tail until they may go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.received = 0  # packets


@pytest.fixture
def held(monkeypatch):
    """Holds the frames of a detector from now on."""

    def begin(running) -> Hold:
        hold, detect, put = Hold(), running.detector.inference.detect, CameraTurns.put
        holds.append(hold)

        def wait(*arguments):
            hold.entered.set()
            hold.go.wait(LIVENESS_S)
            return detect(*arguments)

        def count(turns: CameraTurns, packet: ReceivedPacket) -> None:
            put(turns, packet)
            hold.received += 1

        monkeypatch.setattr(running.detector.inference, "detect", wait)
        monkeypatch.setattr(CameraTurns, "put", count)
        return hold

    holds: list[Hold] = []
    yield begin
    for hold in holds:
        hold.go.set()


@pytest.mark.parametrize("live", [True, False])
async def test_of_a_live_camera_only_the_newest_frame_is_detected(start_detector, hello, encode, held, live):
    """One frame is in the works, and of those behind it all but the last have been superseded."""
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages, types="gap,detections")
        hold = held(running)
        async with linked(running.url) as link:
            await greet(link, hello(live=live))
            await link.send(encode(0))
            await until(hold.entered.is_set)
            for sequence in range(1, 5):
                await link.send(encode(sequence))
            await until(lambda: hold.received == 5)
            await asyncio.sleep(
                SHRINK_PAUSE_S
            )  # a window does not change before, however new the connection is
            hold.go.set()
            told = await answers(link, 5)
        stale = [("reject", "stale")] * 3 if live else [("ack", None)] * 3
        assert [one for one in told if len(one) == 2] == [("ack", None), *stale, ("ack", None)]
        assert (("window",) in told) is live
        assert metric(running, "frames_rejected_total", reason="stale") == 3 * live
    await subscription
    gaps = [told for told in messages if told["type"] == "gap"]
    assert [(gap["first"], gap["reasons"]) for gap in gaps] == [
        (number, {"network/stale": 1}) for number in (1, 2, 3) if live
    ]
    assert [told["frame"] for told in messages if told["type"] == "detections"] == (
        [0, 4] if live else [0, 1, 2, 3, 4]
    )


@pytest.mark.parametrize("live", [True, False])
async def test_what_a_lost_connection_leaves_unanswered_is_told_of_a_live_camera(
    start_detector, hello, encode, held, live
):
    """A file's frames are sent again."""
    messages: list[dict] = []
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages, types="gap,stream")
        hold = held(running)
        async with linked(running.url) as link:
            await greet(link, hello(live=live))
            await link.send(encode(0))
            await until(hold.entered.is_set)
            link.abort()
            await until(lambda: states(messages)[-1:] == [("lost", 1)])
    await subscription
    gaps = [told["reasons"] for told in messages if told["type"] == "gap"]
    assert gaps == [{"network/connection_lost": 1}] * live


@pytest.mark.parametrize("live", [True, False])
async def test_a_frame_that_is_too_old_is_not_detected(start_detector, hello, stamped, live):
    async with start_detector(max_age_s=5) as running, linked(running.url) as link:
        await greet(link, hello(live=live))
        told = []
        for sequence, age_s in enumerate((0, 1, 60, 0)):
            await link.send(stamped(sequence, age_s))
            told += [one for one in await answers(link, 1) if len(one) == 2]
        assert told == [("ack", None)] * 2 + [("reject", "stale") if live else ("ack", None), ("ack", None)]


@pytest.fixture
def stamped(agreed):
    """Packets that were captured so many seconds ago."""
    encoder = parse_codec("rle:bits=4,temporal=true").encoder(agreed)
    tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in agreed}

    def encode(sequence: int, age_s: float) -> bytes:
        captured_ns = time.monotonic_ns() - round(age_s * 1e9)
        return encoder.encode(tensors, Stamp(sequence, captured_ns, *SIZE)).data

    return encode


# --- what consumers are told ---


async def test_consumers_are_told_of_streams_gaps_and_clocks(start_detector, hello, encode):
    """From the first word of a camera to its last, and to one who comes later."""
    messages: list[dict] = []
    later: list[dict] = []
    waiting = Waiting(stream="door", session=OWNER, source="rtsp://cam/", source_state="lost", reason="401")
    unix_ns = 1_790_000_000 * 10**9
    async with start_detector() as running:
        subscription = await subscribed(running, running.url, messages, types=ALL)
        async with linked(running.url) as link:
            await link.send(waiting.text())
            await until(lambda: messages)
            await greet(link, hello(frame=10))
            await link.send(encode(0))
            assert await answers(link, 1) == [("ack", None)]
            now_ns = time.monotonic_ns()
            for offset_ns, dropped in ((0, 2), (86400 * 10**9, 5)):
                clock = Clock(monotonic_ns=now_ns, unix_ns=unix_ns + offset_ns)
                report = make_report(detected=11, dropped={"grab/superseded": dropped}, clock=clock)
                await link.send(report.text())
            await link.send(make_report(detected=11, source_state="frozen").text())
            await link.send(encode(1))
            assert await answers(link, 1) == [("ack", None)]
            damaged = bytearray(encode(2))
            damaged[len(damaged) // 2] ^= 1
            await link.send(bytes(damaged))
            assert ("reject", "corrupt") in await answers(link, 1)
            other = await subscribed(running, running.url, later, "door", types="stream")
            await until(lambda: later)
        await until(lambda: states(messages)[-1:] == [("ended", 1)])
        assert metric(running, "clock_steps_total") == 2  # one when the report differs from the hello
        async with ClientSession() as session, session.get(f"{running.http}/v1/streams/door") as described:
            detail = await described.json()
        assert (detail["state"], detail["frame_number"]) == ("ended", messages[-1]["frame"])
    await asyncio.gather(subscription, other)
    assert states(messages) == [("waiting", 1), ("connected", 1), ("frozen", 1), ("ended", 1)]
    assert states(later) == [("frozen", 1), ("ended", 1)]
    assert messages[0]["reason"] == "401"
    first, second = (told for told in messages if told["type"] == "detections")
    assert (first["frame"], first["connection"], "clock_stepped" in first) == (10, 1, False)
    assert second["clock_stepped"] != 0
    assert second["captured_at"] == pytest.approx(unix_ns / 1e9 + 86400, abs=LIVENESS_S)
    numbers = [first["frame"], second["frame"]]
    for gap in (told for told in messages if told["type"] == "gap"):
        assert gap["frames"] == sum(gap["reasons"].values()) == gap["last"] - gap["first"] + 1
        numbers += range(gap["first"], gap["last"] + 1)
    assert sorted(numbers) == list(range(10, messages[-1]["frame"]))
    assert [told["reasons"] for told in messages if told["type"] == "gap"][-1] == {"detector/corrupt": 1}


async def test_a_camera_cannot_flood_consumers_with_its_states(start_detector, hello):
    async with start_detector() as running, linked(running.url) as link:
        await greet(link, hello())
        for number in range(REPORT_BURST + 2):
            await link.send(make_report(source_state="frozen" if number % 2 else "open").text())
        lost = await closed(link)
    assert (lost.code, "reports" in lost.reason) == (CloseCode.BAD_MESSAGE, True)
