"""Which address is watched, and what answers there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from services.commands.settings import WatchSettings
from services.commands.watch import (
    Presence,
    _sources,
    _watch,
    is_no_detector,
    json_line,
    messages,
    run_watch,
)
from services.detections_address import detections_url
from services.errors import BadAddress
from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.backoff import NOT_READY_S
from tests.ports import free_port
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S, until


@pytest.mark.parametrize(
    ("address", "stream", "url"),
    [
        ("host:8765", None, "ws://host:8765/v1/detections"),
        ("https://host/", "door", "wss://host/v1/streams/door/detections"),
        ("ws://proxy/cams", None, "ws://proxy/cams/v1/detections"),
        ("wss://proxy/cams/", "door", "wss://proxy/cams/v1/streams/door/detections"),
        ("ws://proxy/detections", None, "ws://proxy/detections/v1/detections"),
        ("ws://host/v1/detections", None, "ws://host/v1/detections"),
        ("ws://proxy/cams/v1/streams/door/detections/", None, "ws://proxy/cams/v1/streams/door/detections"),
    ],
)
def test_the_path_of_the_detector_follows_that_of_a_proxy(address, stream, url):
    assert detections_url(address, stream) == url


def test_a_path_that_names_what_to_watch_leaves_nothing_to_choose():
    with pytest.raises(BadAddress, match="not both"):
        detections_url("ws://host/cams/v1/detections", "door")


@pytest.mark.parametrize("status", [200, 301, 400, 404, 405, 426])
def test_a_page_is_no_detector(status):
    assert is_no_detector(ConnectionLost("a page", status=status))


@pytest.mark.parametrize("status", [None, 401, 403, 429, 500, 502, 503])
def test_what_may_become_one_is_tried_again(status):
    assert not is_no_detector(ConnectionLost("not there", status=status))


def test_another_protocol_is_no_detector():
    assert is_no_detector(ConnectionLost("it does not speak it", CloseCode.BAD_SUBPROTOCOL))


@pytest.fixture
async def site():
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    async def chat(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        return ws

    app = web.Application()
    app.router.add_get("/cams/v1/detections", page)
    app.router.add_get("/chat/v1/detections", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/cams", "/nothing", "/chat"])
async def test_something_else_that_answers_is_told_and_left(site, path):
    with pytest.raises(BadAddress, match=f"no detector at {site}{path}/v1/detections: the server "):
        await anext(messages(detections_url(f"{site}{path}")))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ('{"stream": "caf\\u00e9 é"}', {"stream": "café é"}),
        ('{\n"a":\n1}', {"a": 1}),
        ('{"delay": NaN}', {"delay": "NaN"}),
        ("no JSON \x1b", "no JSON \x1b"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_message_is_one_line_of_json(text, facts):
    line = json_line(text)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line, parse_constant=pytest.fail) == facts


def test_a_wrong_address_is_told_before_anything_is_tried():
    with pytest.raises(BadAddress):
        run_watch(WatchSettings.load({"url": ("ftp://x",)}))


async def test_several_detectors_are_one_and_it_is_told_which_is_away(start_detector, make_camera, capsys):
    port = free_port()
    out, err = "", ""

    def told(words: str) -> bool:
        nonlocal out, err
        more = capsys.readouterr()
        out, err = out + more.out, err + more.err
        return words in out + err

    async with start_detector() as running:
        settings = WatchSettings.load({"url": (running.url, f"ws://127.0.0.1:{port}")})
        watching = asyncio.ensure_future(_watch(_sources(settings), settings))
        await until(lambda: told(f"no detector at ws://127.0.0.1:{port}/v1/detections: "))
        async with start_detector(port=port) as other:
            await until(lambda: told(f"the detector at ws://127.0.0.1:{port}/v1/detections is there again"))
            cameras = [
                make_camera(where.url, stream=name) for where, name in ((running, "door"), (other, "yard"))
            ]
            await asyncio.wait_for(asyncio.gather(*(camera.run() for camera in cameras)), LIVENESS_S)
            await until(lambda: told("door ended") and told("yard ended"))
        await until(lambda: told("") and err.count("no detector at") == 2)
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert f"door #{FRAMES - 1}" in out
    assert f"yard #{FRAMES - 1}" in out


async def test_one_of_several_that_is_no_detector_ends_the_watch(site, start_detector):
    async with start_detector() as running:
        settings = WatchSettings.load({"url": (running.url, f"{site}/cams")})
        with pytest.raises(BadAddress, match="no detector at"):
            await asyncio.wait_for(_watch(_sources(settings), settings), LIVENESS_S)


@asynccontextmanager
async def passing(texts: Sequence[str]) -> AsyncIterator[str]:
    """What takes everybody for a consumer, says this, and hangs up each time."""

    async def tell(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[DETECTIONS_PROTOCOL])
        await ws.prepare(request)
        for text in texts:
            await ws.send_str(text)
        await ws.close(code=CloseCode.GOING_AWAY)
        return ws

    app = web.Application()
    app.router.add_get("/v1/detections", tell)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Delays(Presence):
    """How long is waited for each next attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def lose(self, reason: str, delay_s: float) -> None:
        self.seconds.append(delay_s)


@pytest.mark.parametrize(("texts", "is_at_once"), [(["{}"], True), ([], False)])
async def test_what_worked_is_tried_again_at_once_and_what_did_not_after_a_while(texts, is_at_once):
    delays = Delays()

    async def watch(url: str) -> None:
        async for _ in messages(detections_url(url), None, delays):
            pass

    async with passing(texts) as url:
        watching = asyncio.ensure_future(watch(url))
        await until(lambda: len(delays.seconds) >= 2)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    first, second = delays.seconds[:2]
    assert (first == 0) is is_at_once
    assert second >= NOT_READY_S[0]


async def test_an_address_that_is_dead_from_the_start_keeps_nothing_of_the_others_back(capsys):
    dead = f"ws://127.0.0.1:{free_port()}"
    async with passing(["one", "two", "three"]) as url:
        settings = WatchSettings.load({"url": (dead, url), "count": 9})
        await asyncio.wait_for(_watch(_sources(settings), settings), LIVENESS_S)
    told = capsys.readouterr()
    assert told.out.split() == ["one", "two", "three"] * 3
    assert told.err.count(f"no detector at {dead}") == 1


def test_of_one_among_several_only_what_has_changed_is_told(capsys):
    presence = Presence("ws://attic")
    presence.return_()
    for _ in range(3):
        presence.lose("nobody answers", 1.0)
    presence.return_()
    assert capsys.readouterr().err.splitlines() == [
        "no detector at ws://attic: nobody answers; it is tried again",
        "the detector at ws://attic is there again",
    ]


async def test_what_is_left_out_is_not_counted(capsys):
    settings = WatchSettings.load({"url": ("ws://attic", "ws://cellar"), "count": 2})
    begun, over = asyncio.Event(), asyncio.Event()

    def state(word: str) -> str:
        return json.dumps({"type": "stream", "stream": "door", "state": word, "reason": ""})

    async def attic() -> AsyncIterator[str]:
        yield state("connected")
        begun.set()
        await over.wait()
        yield "the last"

    async def cellar() -> AsyncIterator[str]:
        await begun.wait()
        yield state("lost")
        over.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(LIVENESS_S):
        await _watch({"ws://attic": attic(), "ws://cellar": cellar()}, settings)
    out = capsys.readouterr().out
    assert (len(out.splitlines()), "lost" in out, out.splitlines()[-1]) == (2, False, "the last")
