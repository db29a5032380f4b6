"""Which address is watched, and what answers there."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from services.commands.settings import WatchSettings
from services.commands.watch import detections_url, is_no_detector, json_line, messages, run_watch
from services.errors import BadAddress
from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode


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
        run_watch(WatchSettings.load({"url": "ftp://x"}))
