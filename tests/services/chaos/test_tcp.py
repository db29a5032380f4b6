"""Faults of the way and of connections, between real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.chaos.service import ChaosProxy, chaos_proxy
from services.chaos.settings import Address
from tests.services.waiting import LIVENESS_S, until


class Echo:
    """A server that says back what it hears, and knows how connections ended."""

    def __init__(self) -> None:
        self.endings: list[str] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            self.endings.append("closed")
        except ConnectionResetError:
            self.endings.append("reset")
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def echoing(*faults: str) -> AsyncIterator[tuple[ChaosProxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    address = Address(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(LIVENESS_S), chaos_proxy(address, faults, messages=False) as proxy:
            yield proxy, echo
            await until(lambda: echo.open == 0 or proxy.report.open)
    finally:
        server.close()
        await until(lambda: echo.open == 0)


@asynccontextmanager
async def connected(proxy: ChaosProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*proxy.address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def said_back(leg, data: bytes = b"hello") -> float:
    """How long an echo takes."""
    reader, writer = leg
    start_s = asyncio.get_running_loop().time()
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return asyncio.get_running_loop().time() - start_s


async def test_all_bytes_pass_both_ways():
    data = bytes(range(256)) * 20_000
    async with echoing() as (proxy, echo), connected(proxy) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        assert (proxy.to_server, proxy.to_client) == (len(data), len(data))
    assert echo.endings == ["closed"]


async def test_latency_in_both_directions_adds_up():
    async with (
        echoing("latency:ms=60", "latency:ms=40,direction=down") as (proxy, _),
        connected(proxy) as leg,
    ):
        assert await said_back(leg) >= 0.16


async def test_latency_is_no_limit_to_the_rate():
    """What is sent together comes together."""
    async with echoing("latency:ms=50,jitter=20") as (proxy, _), connected(proxy) as leg:
        for _ in range(3):
            leg[1].write(bytes(100_000))
        await leg[0].readexactly(300_000)


async def test_a_thin_link_is_thin_and_moves_all_the_time():
    async with echoing("bandwidth:kbps=400,direction=up") as (proxy, _), connected(proxy) as (reader, writer):
        loop = asyncio.get_running_loop()
        start_s = last_s = loop.time()
        writer.write(bytes(20_000))
        left, chunks = 20_000, 0
        while left:
            left -= len(await reader.read(65536))
            chunks += 1
            last_s = loop.time()
        assert last_s - start_s >= 0.39
        assert chunks > 5


async def test_connections_share_a_thin_link():
    async with (
        echoing("bandwidth:kbps=400,direction=up") as (proxy, _),
        connected(proxy) as one,
        connected(proxy) as other,
    ):
        took_s = await asyncio.gather(said_back(one, bytes(10_000)), said_back(other, bytes(10_000)))
        assert max(took_s) >= 0.39


async def test_a_black_hole_swallows_nothing():
    async with echoing() as (proxy, echo), connected(proxy) as (reader, writer):
        with proxy.fault("blackhole"):
            writer.write(b"hello")
            writer.write_eof()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert not echo.endings
        assert await reader.read(-1) == b"hello"


async def test_a_black_hole_holds_new_connections():
    async with echoing() as (proxy, echo):
        hole = proxy.begin("blackhole")
        async with connected(proxy) as (reader, writer):
            writer.write(b"hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert echo.open == 0
            proxy.end(hole)
            assert await reader.readexactly(5) == b"hello"
        assert hole.record.switched_on == 1


async def test_a_black_hole_hides_a_reset_too():
    async with echoing() as (proxy, echo), connected(proxy) as leg:
        await said_back(leg)
        with proxy.fault("blackhole"):
            leg[1].transport.abort()
            await asyncio.sleep(0.1)
            assert echo.open == 1
        await until(lambda: echo.open == 0)


async def test_reset_strikes_open_connections_once():
    async with echoing() as (proxy, echo), connected(proxy) as old:
        await said_back(old)
        reset = proxy.begin("reset")
        with pytest.raises(ConnectionResetError):
            await old[0].read(1)
        await until(lambda: echo.endings == ["reset"])
        async with connected(proxy) as new:
            await said_back(new)
        assert reset.record.count == 1


async def test_reset_that_lasts_strikes_whoever_comes():
    async with echoing("reset:duration=1000") as (proxy, _), connected(proxy) as leg:
        with pytest.raises(ConnectionResetError):
            await leg[0].read(1)


@pytest.mark.parametrize("side", ["client", "server", "both"])
async def test_half_open(side):
    async with echoing() as (proxy, echo), connected(proxy) as (reader, writer):
        await said_back((reader, writer))
        proxy.begin(f"half-open:side={side}")
        if side == "server":
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        else:
            writer.write(b"nobody hears")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
        if side == "client":
            await until(lambda: echo.endings == ["reset"])
        else:
            assert echo.open == 1
        assert proxy.to_server == len(b"hello")
        async with connected(proxy) as new:
            await said_back(new)
        if side == "client":  # which leaves, and nothing is left
            writer.close()
            await until(lambda: proxy.report.open == 0)
        else:  # a server that is not told holds its end for ever
            await until(lambda: proxy.report.open == 1)


async def test_slow_close():
    async with (
        echoing("slow-close:ms=100,direction=up") as (proxy, _),
        connected(proxy) as (reader, writer),
    ):
        await said_back((reader, writer))
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        writer.write_eof()
        assert await reader.read(1) == b""
        assert loop.time() - start_s >= 0.1


async def test_a_server_that_is_not_there():
    async with chaos_proxy(Address("127.0.0.1", 1)) as proxy, connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert proxy.report.unreachable == 1
        assert proxy.report.open == 0
