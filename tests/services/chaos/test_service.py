"""The proxy between a WebSocket client and server that know nothing of it, and the command around it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from services.chaos import service
from services.chaos.service import ChaosProxy, chaos_proxy
from services.chaos.settings import Address
from services.errors import Exit
from tests.services.waiting import LIVENESS_S, until


@asynccontextmanager
async def echoing(*faults: str, seed: int = 0) -> AsyncIterator[ChaosProxy]:
    """A proxy to a WebSocket server that says back what it hears, and closes with 4321 where it hears "close"."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("second", "first"), max_msg_size=2**20)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "close":
                await ws.close(code=4321, message=f"of {request.headers['X-Who']}".encode())
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="a page")

    app = web.Application()
    app.router.add_get("/echo", echo)
    app.router.add_get("/page", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with (
            asyncio.timeout(LIVENESS_S),
            chaos_proxy(Address(*runner.addresses[0]), faults, seed=seed) as proxy,
        ):
            yield proxy
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(proxy: ChaosProxy) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{proxy.url}/echo", protocols=("first", "second"), headers={"X-Who": "me"}, max_msg_size=2**24
        ) as ws,
    ):
        yield ws


async def test_subprotocol_headers_pings_and_closes_are_the_ends_own():
    async with echoing() as proxy, connected(proxy) as ws:
        assert ws.protocol == "first"
        await ws.ping()
        await ws.send_str("close")
        message = await ws.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4321, "of me")


async def test_pages_pass():
    async with (
        echoing() as proxy,
        aiohttp.ClientSession() as session,
        session.get(f"http://{proxy.address}/page") as answer,
    ):
        assert await answer.text() == "a page"


async def test_what_passed_is_counted():
    async with echoing() as proxy, connected(proxy) as ws:
        await ws.send_str("one")
        await ws.send_bytes(b"two")
        await ws.receive()
        await ws.receive()
        described = proxy.report.describe(proxy.now_s())
        assert described["passed"]["up"]["messages"] == {"text": 1, "binary": 1}
        assert described["passed"]["down"]["messages"] == {"text": 1, "binary": 1}
        assert described["connections"] == {"accepted": 1, "open": 1, "unreachable": 0}


async def test_faults_are_switched_while_it_runs():
    async with echoing() as proxy, connected(proxy) as ws:
        with proxy.fault("truncate:kind=text,direction=up") as truncate:
            await ws.send_str("1234")
            assert await ws.receive_str() == "12"
            await ws.send_bytes(b"1234")
            assert await ws.receive_bytes() == b"1234"
        await ws.send_str("1234")
        assert await ws.receive_str() == "1234"
        assert truncate.record.count == 1
        proxy.begin("truncate:kind=text,direction=up")
        assert len(proxy.report.faults) == 1


async def test_others_overtake_a_message_that_is_reordered():
    async with echoing("reorder:ms=500,direction=up,count=1") as proxy, connected(proxy) as ws:
        for text in "abc":
            await ws.send_str(text)
        assert [await ws.receive_str() for _ in range(3)] == ["b", "c", "a"]


async def test_an_oversize_message_is_the_servers_to_refuse():
    async with echoing("oversize:mib=1.5,direction=up") as proxy, connected(proxy) as ws:
        await ws.send_bytes(b"small")
        message = await ws.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.MESSAGE_TOO_BIG)


async def test_the_same_seed_loses_the_same_messages():
    async def kept(seed: int) -> list[int]:
        async with (
            echoing("lose:probability=.5,kind=text,direction=up", seed=seed) as proxy,
            connected(proxy) as ws,
        ):
            for number in range(40):
                await ws.send_str(str(number))
            await ws.send_bytes(b"end")
            numbers = []
            while (message := await ws.receive()).type is WSMsgType.TEXT:
                numbers.append(int(message.data))
            return numbers

    assert await kept(0) == await kept(0)
    assert await kept(0) != await kept(1)


async def test_a_fault_has_its_times():
    async with echoing("lose:direction=up,start=.2,duration=.2") as proxy, connected(proxy) as ws:
        await ws.send_str("before")
        assert await ws.receive_str() == "before"
        record = proxy.report.faults[0]
        await until(lambda: record.on_since_s is not None)
        await ws.send_str("lost")
        await until(lambda: record.on_since_s is None)
        await ws.send_str("after")
        assert await ws.receive_str() in {
            "after",
            "lost",
        }  # on a busy machine it may be over before the message
        assert record.first_s is None or record.first_s >= 0.2


async def test_a_fault_comes_again():
    async with echoing("reset:start=.05,period=.05") as proxy:
        await until(lambda: proxy.report.faults[0].switched_on >= 3)


async def test_messages_are_not_damaged_where_they_are_not_seen():
    async with chaos_proxy(Address("127.0.0.1", 1), messages=False) as proxy:
        with pytest.raises(ValueError, match="sees no messages"):
            proxy.begin("lose")


async def test_only_so_many_connections(monkeypatch):
    monkeypatch.setattr(service, "MOST_CONNECTIONS", 1)
    async with echoing() as proxy, connected(proxy) as ws:
        with pytest.raises(aiohttp.ClientError):
            async with connected(proxy):
                pass
        await ws.send_str("still here")
        assert await ws.receive_str() == "still here"
        assert proxy.report.accepted == 1


# --- the command ---

COMMAND = [sys.executable, "-m", "services.cli", "chaos", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"]


def test_the_command_writes_its_report(tmp_path):
    file = tmp_path / "report.json"
    faults = ["--fault", "latency:ms=5", "--fault", "lose:kind=binary"]
    done = subprocess.run(
        [*COMMAND, *faults, "--seconds", ".1", "--seed", "3", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
    )
    assert done.returncode == Exit.OK, done.stderr
    report = json.loads(file.read_text())
    assert (report["to"], report["seed"]) == ("127.0.0.1:1", 3)
    assert [fault["fault"] for fault in report["faults"]] == ["latency:ms=5", "lose:kind=binary"]
    assert report["seconds"] >= 0.1


def test_a_signal_stops_the_command_and_the_report_is_printed():
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        assert any("listening" in line for line in process.stderr)
        process.terminate()
        out, _ = process.communicate(timeout=LIVENESS_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == Exit.OK
    assert json.loads(out)["connections"]["accepted"] == 0
