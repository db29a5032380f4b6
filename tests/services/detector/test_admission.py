"""Who gets a place where there are few: in bursts, by kind and by address, and who makes way for whom."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from weakref import ref

import pytest
from aiohttp import ClientSession, WSMsgType

from services.access.tokens import new_token, token_hash
from services.detector import admission
from services.detector.admission import EXTRA_SESSIONS, Admission
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Streams
from stream.leaky_bucket import LeakyBucket
from stream.session.close_codes import CloseCode
from stream.transport.websocket import ServerWebSocket
from tests.services.clips import FRAMES
from tests.services.detector.peers import answer, closed, linked
from tests.services.waiting import LIVENESS_S, until

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: nas\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: splitcast.features.v1, splitcast.detections.v1\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LIVEZ = "GET /livez HTTP/1.1\r\nHost: nas\r\n\r\n"
OTHER = "127.0.0.2"  # loopback's, too


@asynccontextmanager
async def peers(running, count: int, text: str = "", address: str = "127.0.0.1"):
    """So many TCP connections from one address, which have said `text` and read nothing."""
    opened = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", running.port, local_addr=(address, 0)) for _ in range(count))
    )
    try:
        for _, writer in opened:
            writer.write(text.encode())
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


def refused(running, reason: str) -> float:
    sample = running.detector.statistics.metrics.registry.get_sample_value
    return sample("splitcast_detector_connections_refused_total", {"reason": reason})


def closed_consumers(running, code: CloseCode) -> float:
    sample = running.detector.statistics.metrics.registry.get_sample_value
    return sample("splitcast_detector_subscribers_closed_total", {"code": str(code.value)})


async def still_serves(running, make_camera) -> bool:
    camera = make_camera(running.url, stream="honest")
    await asyncio.wait_for(camera.run(), LIVENESS_S)
    return camera.statistics.frame_counts.detected == FRAMES


@pytest.mark.parametrize(
    ("max_http", "files", "places"),
    [(100, 200, 100), (100, 199, 49), (100, 40, 10), (100, 12, 4), (4, 103, 4)],
)
def test_where_there_are_few_files_keep_alives_have_a_quarter(monkeypatch, max_http, files, places):
    """A file for each of 2 cameras, 16 that say hello, 50 consumers, 32 that are being closed, and those of HTTP."""
    wanted = []
    monkeypatch.setattr(admission, "permitted_connections", lambda count: wanted.append(count) or files)
    settings = DetectorSettings.load(
        {"model": "n.pt", "port": 0, "max_streams": 2, "max_subscribers": 50, "max_http": max_http}
    )
    with Admission(settings, DetectorStatistics(Streams())).listen() as listener:
        assert (wanted, listener._max_open, listener.pool.capacity) == ([100 + max_http], files, places)


async def test_a_burst_makes_no_more_consumers_than_allowed(start_detector):
    async with start_detector(max_subscribers=4) as running:
        most = 0
        subscribe = running.detector.broadcast.subscribe

        def counted(*args):
            nonlocal most
            most = max(most, len(running.detector.broadcast) + 1)
            return subscribe(*args)

        running.detector.broadcast.subscribe = counted
        async with peers(running, 60, UPGRADE.format(path="/v1/detections")):
            await until(
                lambda: len(running.detector.broadcast) + refused(running, "too_many_subscribers") == 60
            )
            assert most == len(running.detector.broadcast) == 4


async def test_a_burst_makes_no_more_sessions_than_allowed(start_detector, make_camera):
    """The newest have places: each of the others has made way, or got none."""
    places = 1 + EXTRA_SESSIONS
    async with start_detector(max_streams=1, max_http=64) as running:
        async with peers(running, 60, UPGRADE.format(path="/v1/features")):
            await until(lambda: refused(running, "made_way") == 60 - places)
        assert await still_serves(running, make_camera)


async def test_silent_connections_make_way(start_detector, make_camera):
    """Those that ask for nothing are closed after a while, and before that make way for any other."""
    async with (
        start_detector(max_streams=1, max_subscribers=1, hello_timeout_s=0.5) as running,
        peers(running, 80, "GET /live") as silent,
    ):
        assert await still_serves(running, make_camera)
        async with asyncio.timeout(LIVENESS_S):
            for reader, _ in silent:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
        await until(lambda: len(running.detector.admission.listener.accepted) == 0)


@pytest.mark.parametrize("address", ["127.0.0.1", OTHER])
async def test_kept_connections_keep_nobody_out(start_detector, make_camera, make_hello, encode, address):
    """More than the detector takes, from the camera's own address or another's: they make way for each other."""
    async with (
        start_detector(max_streams=1, max_subscribers=1, max_http=8) as running,
        linked(running.url) as camera,
    ):
        await camera.send(make_hello().text())
        await answer(camera)
        async with AsyncExitStack() as stack:
            for _ in range(20):
                kept = await stack.enter_async_context(peers(running, 4, LIVEZ, address))
                assert await kept[-1][0].readuntil(b"live\n")
            await until(lambda: refused(running, "made_way") == 72)
            await camera.send(encode(0))
            assert (await answer(camera))["type"] == "ack"
            await camera.close()
            assert await still_serves(running, make_camera)


@pytest.mark.parametrize("path", ["/v1/features", "/v1/detections"])
async def test_what_is_no_websocket_keeps_its_place_of_http(start_detector, path):
    """Who asks for a WebSocket's path without an upgrade holds his connection as any other does."""
    request = f"GET {path} HTTP/1.1\r\nHost: nas\r\n\r\n"
    async with start_detector(max_http=4) as running, AsyncExitStack() as stack:
        for _ in range(3):
            kept = await stack.enter_async_context(peers(running, 4, request))
            for reader, _ in kept:
                assert b" 400 " in await reader.readline()
        await until(lambda: len(running.detector.admission.listener.accepted) == 4)
        assert refused(running, "made_way") == 8


async def test_who_takes_nothing_is_gone_when_his_place_is(start_detector):
    """What was sent to him waits in the detector: his connection stayed open, and so hundreds kept cameras out."""
    upgrade = UPGRADE.format(path="/v1/detections")
    async with (
        start_detector(max_subscribers=1) as running,
        peers(running, 1, upgrade, OTHER) as [(deaf, _)],
        asyncio.timeout(LIVENESS_S),
    ):
        await deaf.readuntil(b"\r\n\r\n")
        deaf._transport.pause_reading()
        [connection] = running.detector.admission.listener.accepted.values()
        sent = -1
        while sent != connection.wire.sent:  # as much as systems on the way take
            sent = connection.wire.sent
            for _ in range(64):
                running.detector.broadcast.publish("door", "detections", "x" * 2**16)
                await asyncio.sleep(0)
        [handler] = running.detector._handlers
        handler.cancel()
        await until(lambda: not running.detector.admission.listener.accepted)


async def test_sessions_that_say_no_hello_make_way(start_detector, make_camera):
    async with (
        start_detector(max_streams=1) as running,
        peers(running, 1 + EXTRA_SESSIONS, UPGRADE.format(path="/v1/features"), OTHER) as silent,
    ):
        for reader, _ in silent:
            await reader.readuntil(b"\r\n\r\n")
        assert await still_serves(running, make_camera)
        assert refused(running, "made_way") >= 1


async def test_a_camera_with_a_name_makes_way_for_nobody(start_detector, make_hello, encode):
    async with start_detector(max_streams=1) as running, linked(running.url) as camera:
        await camera.send(make_hello().text())
        await answer(camera)
        async with peers(running, 40, UPGRADE.format(path="/v1/features"), OTHER):
            await until(lambda: refused(running, "made_way") == 40 - EXTRA_SESSIONS)
            await camera.send(encode(0))
            assert (await answer(camera))["type"] == "ack"


async def test_a_consumer_gets_the_place_of_an_address_that_holds_more(start_detector):
    async with start_detector(max_subscribers=3) as running, ClientSession() as session:
        url = f"{running.url}/v1/detections"
        async with peers(running, 3, UPGRADE.format(path="/v1/detections"), OTHER) as greedy:
            await until(lambda: len(running.detector.broadcast) == 3)
            async with session.ws_connect(url):
                await until(lambda: refused(running, "made_way") == 1)
                await until(lambda: len(running.detector.broadcast) == 3)
                async with session.ws_connect(url) as second:  # it would hold as many as the other
                    message = await second.receive(timeout=LIVENESS_S)
                    assert (message.type, message.data) == (WSMsgType.CLOSE, CloseCode.TRY_AGAIN_LATER)
            said = await greedy[0][0].readuntil(b"newer one")
            assert CloseCode.TRY_AGAIN_LATER.to_bytes(2, "big") + b"there are too many" in said
        assert refused(running, "too_many_subscribers") == 1


async def test_an_address_has_no_more_places_than_it_may(start_detector, make_hello):
    async with start_detector(max_per_address=1) as running, ClientSession() as session:
        async with linked(running.url) as first:
            await first.send(make_hello().text())
            await answer(first)
            async with linked(running.url) as second:
                lost = await closed(second)
        assert (lost.code, "--max-per-address" in lost.reason) == (CloseCode.TRY_AGAIN_LATER, True)
        url = f"{running.url}/v1/detections"
        async with session.ws_connect(url), session.ws_connect(url) as second:
            assert (await second.receive(timeout=LIVENESS_S)).data == CloseCode.TRY_AGAIN_LATER
        assert refused(running, "too_many_from_address") == 2


async def test_an_address_that_asks_too_often_is_refused(start_detector):
    """On one connection; another address is answered meanwhile."""
    async with start_detector(address_rate=1) as running, asyncio.timeout(LIVENESS_S):
        async with peers(running, 1, 20 * LIVEZ) as [(reader, _)]:
            said = await reader.read()
        assert said.count(b"live\n") in (8, 9)  # a second may pass meanwhile
        assert b"429 Too Many Requests" in said
        assert b"Retry-After: 1\r\n" in said
        assert b"--address-rate" in said
        assert refused(running, "too_often") >= 1
        async with peers(running, 1, LIVEZ, OTHER) as [(reader, _)]:
            assert await reader.readuntil(b"live\n")


async def test_an_address_that_connects_too_often_is_refused(start_detector):
    async with start_detector(address_rate=1) as running, AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(peers(running, 1))
        await until(lambda: refused(running, "too_often") >= 8)


async def test_a_hundred_cameras_that_come_back_at_once_are_all_let_in(start_detector, make_hello):
    """From one address, as behind a router, and at the first try: twice, as after an outage."""
    cameras = 100
    async with start_detector(max_streams=cameras) as running, asyncio.timeout(LIVENESS_S):

        async def come(number: int, all_there: asyncio.Barrier) -> None:
            async with linked(running.url) as link:
                await link.send(make_hello(stream=f"camera{number}", session=f"{number:032x}").text())
                assert (await answer(link))["type"] == "welcome"
                await all_there.wait()

        for _ in range(2):
            all_there = asyncio.Barrier(cameras)
            async with asyncio.TaskGroup() as coming:
                for number in range(cameras):
                    coming.create_task(come(number, all_there))
        reasons = ("too_often", "too_many_strangers", "too_many_connections", "too_many_sessions", "made_way")
        assert [refused(running, reason) for reason in reasons] == [0] * len(reasons)


@pytest.fixture
def no_more_strangers(monkeypatch):
    """None is let in once there have been many, however long it takes."""
    monkeypatch.setattr(
        "services.detector.admission.LeakyBucket", lambda _, burst: LeakyBucket(10**15, burst)
    )


@asynccontextmanager
async def strangers(running):
    """More than may come, from as many addresses."""
    async with AsyncExitStack() as stack:
        for host in range(2, 22):
            await stack.enter_async_context(peers(running, 1, LIVEZ, f"127.0.0.{host}"))
        await until(lambda: refused(running, "too_many_strangers") >= 8)
        yield


@pytest.mark.usefixtures("no_more_strangers")
async def test_strangers_keep_no_camera_out_that_was_welcomed(start_detector, make_camera):
    async with start_detector(stranger_rate=1) as running:
        assert await still_serves(running, make_camera)
        async with strangers(running):
            assert await still_serves(running, make_camera)


@pytest.mark.usefixtures("no_more_strangers")
async def test_strangers_keep_nobody_out_who_has_shown_a_good_token(start_detector):
    token = new_token()
    table = f'[[token]]\nname = "door"\nhash = "{token_hash(token)}"\nroles = ["consumer"]\nstreams = ["*"]\n'
    headers = {"Authorization": f"Bearer {token}"}

    async def ask(running) -> int:
        async with (
            ClientSession(running.http, headers=headers) as session,
            session.get("/v1/streams") as reply,
        ):
            return reply.status

    async with start_detector(stranger_rate=1, tokens=table) as running:
        assert await ask(running) == 200
        async with strangers(running):
            assert await ask(running) == 200


async def test_a_consumer_that_talks_is_left(start_detector):
    async with (
        start_detector() as running,
        ClientSession() as session,
        session.ws_connect(f"{running.url}/v1/detections") as ws,
    ):
        for _ in range(100):
            await ws.send_str("and another thing")
        message = await ws.receive(timeout=LIVENESS_S)
        assert (message.type, message.data) == (WSMsgType.CLOSE, CloseCode.POLICY_VIOLATION)
        await until(lambda: closed_consumers(running, CloseCode.POLICY_VIOLATION) == 1)


@pytest.mark.parametrize("path", ["/v1/features", "/v1/detections"])
async def test_frames_that_are_not_masked_are_refused(start_detector, path):
    async with start_detector() as running:
        async with peers(running, 1, UPGRADE.format(path=path) + "\x01\x05hello") as [(reader, _)]:
            await reader.readuntil(b"what came is no WebSocket")
        code = CloseCode.PROTOCOL_ERROR
        await until(lambda: refused(running, "protocol_error") + closed_consumers(running, code) == 1)


async def test_who_has_asked_for_something_is_not_silent(start_detector):
    async with start_detector() as running, asyncio.timeout(LIVENESS_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for _ in range(2):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: nas\r\n\r\n")
            assert b" 200 " in (await reader.readuntil(b"live\n"))
            running.detector.admission.listener.close_silent(time.monotonic_ns())
        writer.close()


@pytest.mark.parametrize(
    ("module", "path", "said"),
    [
        ("endpoint", "/v1/features", ""),
        ("endpoint", "/v1/features", "\x81\x85\0\0\0\0hello"),
        ("endpoint", "/v1/features", "\x01\x05hello"),
        ("subscribers", "/v1/detections", ""),
    ],
    ids=["nothing", "no hello", "no mask", "consumer"],
)
async def test_a_session_that_is_over_is_left_to_no_collection(
    start_detector, monkeypatch, module, path, said
):
    """One of many such would stop all that the detector does for a quarter of a second."""
    made = []

    class Known(ServerWebSocket):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(ref(self))

    monkeypatch.setattr(f"services.detector.{module}.ServerWebSocket", Known)
    async with start_detector() as running:
        gc.disable()
        try:
            async with peers(running, 1, UPGRADE.format(path=path) + said) as [(reader, _)]:
                await reader.readuntil(b"\r\n\r\n")
                if said:
                    await reader.read()
            await until(lambda: not running.detector.admission.listener.accepted)
            await until(lambda: made[0]() is None)
        finally:
            gc.enable()
