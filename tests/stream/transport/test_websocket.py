from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import time
from base64 import b64encode
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import CloseCode
from stream.transport import websocket
from stream.transport.listener import Listener
from stream.transport.places import Places
from stream.transport.websocket import VIOLATIONS, CountingSocket, Link, ServerWebSocket, connect
from tests.services.waiting import LIVENESS_S

PROTOCOL = "splitcast.test"
MAX_MESSAGE_BYTES = 4 * 2**20


@asynccontextmanager
async def serving(answer):
    """URL of a server whose WebSocket handler is `answer(link)`."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = ServerWebSocket(PROTOCOL, MAX_MESSAGE_BYTES)
        await ws.prepare(request)
        await answer(Link(ws, listener.accepted[request.transport.get_extra_info("peername")].wire))
        return ws

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    with Listener.bound("127.0.0.1", 0, Places(4)) as listener:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            await runner.cleanup()


async def echo(link: Link) -> None:
    try:
        async for message in link:
            await link.send(message)
    except ConnectionLost:
        pass


def test_texts_and_packets_keep_their_order_and_their_kind():
    async def talk() -> None:
        async with serving(echo) as url, connect(url, PROTOCOL) as link:
            for message in ("text", b"\x00packet", "text again"):
                await link.send(message)
            assert [await link.receive() for _ in range(3)] == ["text", b"\x00packet", "text again"]
            sent = link.wire.sent
            await link.send(bytes(1000))
            await link.receive()
            assert 1000 < link.wire.sent - sent < 1020
            assert link.wire.received > 1000

    asyncio.run(talk())


def test_the_peers_code_and_reason_come_with_the_loss():
    async def refuse(link: Link) -> None:
        await link.close(CloseCode.WEIGHTS_DIFFER, "other weights")

    async def talk() -> ConnectionLost:
        async with serving(refuse) as url, connect(url, PROTOCOL) as link:
            with pytest.raises(ConnectionLost) as lost:
                await link.receive()
        return lost.value

    lost = asyncio.run(talk())
    assert (lost.code, lost.reason) == (CloseCode.WEIGHTS_DIFFER, "other weights")


def test_iteration_ends_when_this_end_closes():
    async def talk() -> list[bytes | str]:
        async with serving(echo) as url, connect(url, PROTOCOL) as link:
            await link.send("last")
            messages = []
            async for message in link:
                messages.append(message)
                closing = asyncio.create_task(link.close())
            await closing
            return messages

    assert asyncio.run(talk()) == ["last"]


def test_refuses_a_server_of_another_protocol():
    async def talk() -> None:
        async with serving(echo) as url:
            with pytest.raises(ConnectionLost, match="does not speak other") as lost:
                async with connect(url, "other"):
                    pass
        assert lost.value.code == CloseCode.BAD_SUBPROTOCOL

    asyncio.run(talk())


def test_nobody_there_is_a_loss():
    async def talk() -> None:
        with Listener.bound("127.0.0.1", 0, Places(1)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionLost):
            async with connect(f"ws://127.0.0.1:{port}/", PROTOCOL):
                pass

    asyncio.run(talk())


# --- peers that break the WebSocket protocol ---


# A peer's bytes, and the code that both ends should learn. A client's frames are masked: here by zeros.
BROKEN = {
    "reserved opcode": (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),
    "text that is not UTF-8": (b"\x81\x81\0\0\0\0\xff", CloseCode.INVALID_TEXT),
    "message too large": (
        b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + b"\0\0\0\0" + bytes(MAX_MESSAGE_BYTES + 1),
        CloseCode.MESSAGE_TOO_LARGE,
    ),
}


@asynccontextmanager
async def web_server(handle):
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_a_client_that_breaks_the_protocol_is_told_so(data, code):
    """The server knows why it was left without a camera, and the client can read the code behind all that it sent."""
    told: list[ConnectionLost] = []

    async def listen(link: Link) -> None:
        with pytest.raises(ConnectionLost) as lost:
            await link.receive()
        told.append(lost.value)

    async def talk() -> int | None:
        async with (
            serving(listen) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=(PROTOCOL,)) as ws,
            asyncio.timeout(LIVENESS_S),
        ):
            with ws.get_extra_info("socket").dup() as raw:
                raw.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(raw, data)
            message = await ws.receive()
            assert message.type is WSMsgType.CLOSE
            return message.data

    assert asyncio.run(talk()) == code
    assert [lost.code for lost in told] == [code]


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_a_server_that_breaks_the_protocol_is_told_so(data, code):
    heard: list[int | None] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(PROTOCOL,))
        await ws.prepare(request)
        # A server's frames are not masked.
        unmasked = bytes([data[0], data[1] & 0x7F]) + data[2:].replace(b"\0\0\0\0", b"", 1)
        request.transport.write(unmasked)
        heard.append((await ws.receive()).data)
        return ws

    async def talk() -> ConnectionLost:
        async with web_server(handle) as runner:
            url = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
            async with asyncio.timeout(LIVENESS_S), connect(url, PROTOCOL) as link:
                with pytest.raises(ConnectionLost) as lost:
                    await link.receive()
        return lost.value

    assert asyncio.run(talk()).code == code
    assert heard == [code]


MASK, EMPTY_FRAGMENT, EMPTY_PING = bytes(4), b"\x00\x80", b"\x89\x80"
FLOODS = {
    "empty fragments": (b"\x02\x80" + MASK + (EMPTY_FRAGMENT + MASK) * 100_000, CloseCode.POLICY_VIOLATION),
    "pings": ((EMPTY_PING + MASK) * 100_000, CloseCode.POLICY_VIOLATION),
    "empty messages": ((b"\x82\x80" + MASK) * 100_000, CloseCode.POLICY_VIOLATION),
    "a frame that is not masked": (b"\x81\x05hello", CloseCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_what_no_client_sends_ends_the_connection(flood):
    """The peer is told why, even where all of it comes with the request."""
    data, code = FLOODS[flood]
    lost: list[ConnectionLost] = []

    async def listen(link: Link) -> None:
        try:
            while True:
                await link.receive()
        except ConnectionLost as error:
            lost.append(error)

    async def talk() -> None:
        async with serving(listen) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + data
            )
            async with asyncio.timeout(LIVENESS_S):
                await reader.readuntil(code.to_bytes(2, "big") + VIOLATIONS[code].encode())
                writer.close()
                while not lost:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(talk())
    assert lost[0].code == code


def test_a_ping_is_answered_with_its_own_data():
    async def talk() -> bytes:
        async with (
            serving(echo) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=(PROTOCOL,), autoping=False) as ws,
            asyncio.timeout(LIVENESS_S),
        ):
            await ws.ping(b"here?")
            message = await ws.receive()
            assert message.type is WSMsgType.PONG
            return message.data

    assert asyncio.run(talk()) == b"here?"


# --- peers that are dead, or slow ---


async def _silences(link: Link, enough) -> list[float]:
    """What `watch` says until it has said enough."""
    said: list[float] = []
    async with asyncio.timeout(LIVENESS_S):
        async for silence_s in link.watch():
            said.append(silence_s)
            if enough(said):
                return said
    raise AssertionError


async def _tick(link: Link) -> None:
    """Live as a peer does that has nothing to say."""
    listening = asyncio.create_task(link.receive())
    try:
        async for _ in link.watch():
            if listening.done():
                return
    except ConnectionLost:
        pass
    finally:
        listening.cancel()
        await asyncio.wait([listening])


def test_a_peer_that_pings_is_never_silent_for_long():
    async def talk() -> list[float]:
        async with serving(_tick) as url, connect(url, PROTOCOL) as link:
            return await _silences(link, lambda said: len(said) == 10)

    assert min(asyncio.run(talk())[3:]) < 1  # a look in two, or nearly, hears the ping of the second before


def test_silence_is_counted_until_a_byte_comes():
    """The peer reads nothing, so it does not even answer pings; then it says something."""
    speak = asyncio.Event()

    async def stall(link: Link) -> None:
        await speak.wait()
        await link.send("here")
        await asyncio.sleep(2)

    async def talk() -> tuple[float, float]:
        async with serving(stall) as url, connect(url, PROTOCOL) as link:
            silent = (await _silences(link, lambda said: said[-1] > 2))[-1]
            speak.set()
            return silent, (await _silences(link, lambda said: said[-1] < 1))[-1]

    silent, heard = asyncio.run(talk())
    assert heard < 1
    assert silent > 2


def test_a_peer_that_takes_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(websocket, "SEND_TIMEOUT_S", 1.0)
    over = asyncio.Event()

    async def stall(link: Link) -> None:
        await over.wait()

    async def talk() -> None:
        async with serving(stall) as url, connect(url, PROTOCOL) as link:
            sending = asyncio.create_task(_send_for_ever(link))
            with pytest.raises(ConnectionLost, match="took nothing for 1 s"):
                await _silences(link, lambda said: False)
            sending.cancel()
            link.abort()
            over.set()

    asyncio.run(talk())


async def _send_for_ever(link: Link) -> None:
    while True:
        await link.send(bytes(MAX_MESSAGE_BYTES // 2))


def test_a_peer_that_takes_its_time_is_not_lost(monkeypatch):
    """One message takes longer than the timeout, but bytes of it pass all the time."""
    monkeypatch.setattr(websocket, "SEND_TIMEOUT_S", 1.0)

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", upstream)

        async def answers() -> None:
            while data := await server_reader.read(65536):
                writer.write(data)

        answering = asyncio.create_task(answers())
        while data := await reader.read(2**18):
            server_writer.write(data)
            await asyncio.sleep(0.2)
        answering.cancel()
        server_writer.close()
        writer.close()

    async def take(link: Link) -> None:
        taken.append(len(await link.receive()))

    async def talk() -> None:
        nonlocal upstream
        async with serving(take) as url:
            upstream = int(url.rsplit(":", 1)[1].rstrip("/"))
            slow = await asyncio.start_server(sip, "127.0.0.1", 0, limit=2**16)
            port = slow.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/", PROTOCOL) as link:
                watching = asyncio.create_task(_silences(link, lambda said: False))
                await link.send(bytes(MAX_MESSAGE_BYTES - 100))
                while not taken:
                    await asyncio.sleep(0.05)
                    assert not watching.done()
                watching.cancel()
                link.abort()
            slow.close()

    upstream, taken = 0, []
    asyncio.run(talk())
    assert taken == [MAX_MESSAGE_BYTES - 100]


def test_a_silent_peer_is_left_by_whoever_only_receives():
    over = asyncio.Event()

    async def stall(link: Link) -> None:
        await over.wait()

    async def talk() -> ConnectionLost:
        async with serving(stall) as url, asyncio.timeout(LIVENESS_S), connect(url, PROTOCOL) as link:
            watching = asyncio.create_task(link.abort_when_silent(1.0))
            with pytest.raises(ConnectionLost, match="nothing came from the peer for 1 s") as lost:
                async for _ in link:
                    pass
            await watching
            over.set()
            return lost.value

    assert not asyncio.run(talk()).answered


# --- connecting ---


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def test_an_attempt_that_was_swallowed_is_joined_by_another(monkeypatch):
    """A server that never answers its first two connections."""
    monkeypatch.setattr(websocket, "JOIN_S", 0.1)
    swallowed: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(swallowed) < 2:
            swallowed.append(writer)
            await reader.read()  # the request
            await reader.read()
        else:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", upstream)
            await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def talk() -> None:
        nonlocal upstream
        async with serving(echo) as url:
            upstream = int(url.rsplit(":", 1)[1].rstrip("/"))
            front = await asyncio.start_server(swallow, "127.0.0.1", 0)
            port = front.sockets[0].getsockname()[1]
            async with (
                asyncio.timeout(LIVENESS_S),
                connect(f"ws://127.0.0.1:{port}/", PROTOCOL) as link,
            ):
                await link.send("there")
                assert await link.receive() == "there"
            for writer in swallowed:
                writer.close()
            front.close()

    upstream = 0
    asyncio.run(talk())
    assert len(swallowed) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "--token-file"), (404, "--stream"), (503, "Service Unavailable"), (599, "599"), (200, "200")],
)
def test_an_http_answer_is_told_by_its_status(status, words):
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    async def talk() -> ConnectionLost:
        application = web.Application()
        application.router.add_get("/", handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            with pytest.raises(ConnectionLost) as lost:
                async with connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/", PROTOCOL):
                    pass
        finally:
            await runner.cleanup()
        return lost.value

    lost = asyncio.run(talk())
    assert lost.status == status
    assert lost.answered
    assert words in lost.reason


def test_a_refusal_is_an_answer_and_silence_is_none():
    async def lose(url: str, **options: float) -> ConnectionLost:
        with pytest.raises(ConnectionLost) as lost:
            async with connect(url, PROTOCOL, **options):
                pass
        return lost.value

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        assert not asyncio.run(lose(url, connect_timeout_s=0.2)).answered
    assert asyncio.run(lose(url)).answered


@pytest.mark.parametrize("reads", [False, True], ids=["at once", "after the request"])
@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
def test_a_proxy_that_hangs_up_before_the_handshake_has_answered(resets, reads):
    """It is there, and its server is not: to be tried again as soon as one that refuses."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads:
            await reader.readuntil(b"\r\n\r\n")
        if resets:
            reset_on_close(writer)
        writer.close()

    async def talk() -> ConnectionLost:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            with pytest.raises(ConnectionLost) as lost:
                async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", PROTOCOL):
                    pass
        return lost.value

    assert asyncio.run(talk()).answered


@pytest.mark.parametrize("resets", [False, True])
def test_a_server_that_leaves_right_after_the_handshake_is_a_loss(resets):
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        digest = hashlib.sha1((key.split(": ")[1] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()  # noqa: S324
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {b64encode(digest).decode()}\r\n".encode()
            + f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n".encode()
        )
        if resets:
            reset_on_close(writer)
        writer.close()

    async def talk() -> ConnectionLost:
        async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(ConnectionLost) as lost:
                async with connect(url, PROTOCOL) as link:
                    await link.receive()
        return lost.value

    assert asyncio.run(talk()).answered


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (asyncio.CancelledError, CloseCode.GOING_AWAY),
        (RuntimeError, CloseCode.INTERNAL_ERROR),
        (GeneratorExit, CloseCode.NORMAL),  # who iterates has enough
    ],
)
def test_why_this_end_leaves_is_told(failure, code):
    heard: list[int] = []

    async def listen(link: Link) -> None:
        with pytest.raises(ConnectionLost) as lost:
            await link.receive()
        heard.append(lost.value.code)

    async def talk() -> None:
        async with serving(listen) as url:
            with pytest.raises(failure):
                async with connect(url, PROTOCOL):
                    raise failure

    asyncio.run(talk())
    assert heard == [code]


def test_a_pong_tells_what_has_come_through(monkeypatch):
    monkeypatch.setattr(websocket, "LOOK_S", 0.05)
    monkeypatch.setattr(websocket, "PING_S", 0.05)

    async def talk() -> None:
        async with serving(echo) as url, connect(url, PROTOCOL) as link:
            reading = asyncio.create_task(link.receive())
            sent_ns = time.monotonic_ns()
            async for _ in link.watch():
                assert link.delivered_ns <= time.monotonic_ns()
                if link.delivered_ns > sent_ns:
                    break
            reading.cancel()

    asyncio.run(asyncio.wait_for(talk(), LIVENESS_S))


def test_a_peer_that_is_not_known_yet_is_held_to_small_messages():
    """What comes beyond is thrown away as it comes, and the peer is told; a small message is taken as ever."""
    told: list[object] = []

    async def answer(link: Link) -> None:
        told.append(await link.receive_small(1000))
        await link.send("go on")
        told.append(await link.receive())
        await link.send("go on")
        try:
            await link.receive_small(1000)
        except SessionError as error:
            told.append(error.code)
            await link.close(error.code, error.reason)

    async def talk() -> int:
        async with serving(answer) as url, connect(url, PROTOCOL) as link:
            await link.send("small")
            await link.receive()
            await link.send(bytes(100_000))
            await link.receive()
            try:
                await link.send(bytes(MAX_MESSAGE_BYTES - 1))
                await link.receive()
            except ConnectionLost as lost:
                return lost.code
        return 0

    assert asyncio.run(talk()) in {CloseCode.MESSAGE_TOO_LARGE, 1006}
    assert told == ["small", bytes(100_000), CloseCode.MESSAGE_TOO_LARGE]


@pytest.mark.parametrize("receive", ["recv", "recv_into"])
def test_what_comes_beyond_the_allowed_is_thrown_away_as_it_comes(receive):
    here, there = socket.socketpair()
    with CountingSocket(fileno=here.detach()) as ours, there:
        told: list[int] = []
        ours.wire.allowed, ours.wire.on_excess = 8, lambda: told.append(ours.wire.received)
        read = {"recv": lambda: ours.recv(64), "recv_into": lambda: ours.recv_into(bytearray(64))}[receive]
        there.send(bytes(8))
        read()
        assert told == []
        for _ in range(2):
            there.send(b"beyond")
            with pytest.raises(BlockingIOError):
                read()
        assert told == [14, 20]
        ours.wire.allowed = None
        there.send(b"after")
        assert ours.recv(64) == b"after"


async def test_a_token_goes_nowhere_else():
    """Another server, to which the one that was asked turns us over, gets none: aiohttp takes care of that."""
    seen = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=404)

    async def turn_over(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{second.addresses[0][1]}/")

    async with web_server(elsewhere) as second, web_server(turn_over) as first:
        url = f"ws://127.0.0.1:{first.addresses[0][1]}/"
        with pytest.raises(ConnectionLost) as lost:
            async with connect(url, PROTOCOL, headers={"Authorization": "Bearer hunter2"}):
                pass
    assert seen == ["Bearer hunter2", None]
    assert "hunter2" not in str(lost.value)
