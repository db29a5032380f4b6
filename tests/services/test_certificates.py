from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, suppress
from itertools import pairwise

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from services import certificates
from services.certificates import check_files, keep_renewed, renew, serve, server_context
from services.errors import SettingsError
from stream.transport.listener import AT_ONCE, BACKLOG, Listener
from stream.transport.places import Places
from stream.transport.tls import ServerTls
from tests.certificates import Authority
from tests.services.waiting import LIVENESS_S, until


@pytest.fixture
def server(tmp_path) -> ServerTls:
    return ServerTls(Authority(tmp_path).sign())


async def test_no_certificate_is_no_tls(server):
    check_files(None)
    assert await server_context(None, print) is None
    await renew(None)
    await keep_renewed(None)


async def test_a_file_that_cannot_be_used_is_a_wrong_setting(server):
    server.cert.unlink()
    with pytest.raises(SettingsError, match="--tls-cert: cannot read"):
        check_files(server)
    with pytest.raises(SettingsError, match="--tls-cert: cannot read"):
        await server_context(server, print)


async def test_files_are_looked_at_again_and_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "LOOK_S", 0.01)
    context = await server_context(server, print)
    with capture_logs() as logs:
        looking = asyncio.ensure_future(keep_renewed(context))
        try:
            server.cert.write_text("half")
            await until(lambda: [entry["event"] for entry in logs] == ["certificate not renewed"])
            Authority(tmp_path).sign()
            await until(lambda: [entry["event"] for entry in logs][1:] == ["certificate renewed"])
        finally:
            looking.cancel()
    assert "no certificate and key" in logs[0]["reason"]


async def test_files_that_are_as_they_were_are_no_news(server):
    context = await server_context(server, print)
    with capture_logs() as logs:
        await renew(context)
    assert logs == []


async def test_between_two_looks_there_is_a_while(server, monkeypatch):
    context, waits = await server_context(server, print), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await keep_renewed(context)
    assert waits == [certificates.LOOK_S]


async def test_a_peer_that_ends_no_handshake_is_left(server, monkeypatch):
    monkeypatch.setattr(asyncio.constants, "SSL_HANDSHAKE_TIMEOUT", 3600.0)  # as far as asyncio has a say
    monkeypatch.setattr(certificates, "HANDSHAKE_S", 0.1)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    listener = Listener.bound("127.0.0.1", 0, Places(1))
    listening = await serve(runner, listener, await server_context(server, print))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    async with asyncio.timeout(LIVENESS_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    listening.close()
    await runner.cleanup()


async def test_a_burst_of_connections_leaves_turns_to_others():
    """All of them wait before the server runs; a handshake takes milliseconds, and nothing else goes on meanwhile."""
    count = 5 * AT_ONCE
    runner = web.AppRunner(web.Application())
    await runner.setup()
    listener = Listener.bound("127.0.0.1", 0, Places(2 * count))
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        server = await serve(runner, listener, None)
        accepted = [0]
        while accepted[-1] < count:
            await asyncio.sleep(0)
            accepted.append(len(listener.accepted))
        assert max(later - earlier for earlier, later in pairwise(accepted)) == AT_ONCE
    await until(lambda: not listener.accepted)
    server.close()
    await runner.cleanup()


async def test_a_burst_may_wait_in_the_system():
    runner = web.AppRunner(web.Application())
    await runner.setup()
    listener = Listener.bound("127.0.0.1", 0, Places(BACKLOG))
    server = await serve(runner, listener, None)
    with ExitStack() as stack:
        for _ in range(BACKLOG // 2):  # while the loop does something else
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=LIVENESS_S))
        server.close()
    await runner.cleanup()
