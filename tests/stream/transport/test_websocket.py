from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode
from stream.transport.listener import Listener
from stream.transport.websocket import Link, connect
from tests.services.waiting import LIVENESS_S

PROTOCOL = "splitcast.test"


@asynccontextmanager
async def serving(answer):
    """URL of a server whose WebSocket handler is `answer(link)`."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(PROTOCOL,))
        await ws.prepare(request)
        await answer(
            Link(ws, listener.accepted[request.transport.get_extra_info("peername")].wire, LIVENESS_S)
        )
        return ws

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application)
    with Listener.bound("127.0.0.1", 0, max_connections=4) as listener:
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
        with Listener.bound("127.0.0.1", 0, max_connections=1) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionLost):
            async with connect(f"ws://127.0.0.1:{port}/", PROTOCOL):
                pass

    asyncio.run(talk())
