"""What a detector answers to plain HTTP."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web
from yarl import URL

from services.streams import Streams
from services.web import Web, foreign_origins_refused, load_page
from tests.services.conftest import FRAMES, LIVENESS_S


@pytest.fixture
def folder(tmp_path):
    live = tmp_path / "live"
    live.mkdir()
    (tmp_path / "secret.js").write_text("not of the page")
    (live / "index.html").write_text("<!doctype html><title>Splitcast</title>")
    (live / "live.js").write_text("export {};")
    (live / "favicon.svg").write_text("<svg/>")
    (live / "notes.txt").write_text("of no kind that the page needs")
    return live


async def accept(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.receive()
    return ws


@asynccontextmanager
async def serving(folder, readiness: str = "ready", middlewares=()):
    """The address of a server that answers what `Web` does, and a WebSocket at /socket."""
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/socket", accept)
    Web(load_page(folder), Streams(), lambda: readiness, "demo").add_routes(app.router)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with asyncio.timeout(LIVENESS_S), ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_page_runs_no_foreign_script_and_is_in_no_frame(folder):
    async with serving(folder) as (session, http), session.get(http) as answer:
        assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
        assert "<title>Splitcast</title>" in await answer.text()
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' blob:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/live/live.js", "text/javascript"),
        ("/live/favicon.svg", "image/svg+xml"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
async def test_assets_have_their_types(folder, path, content_type):
    async with serving(folder) as (session, http), session.get(http + path) as answer:
        assert (answer.status, answer.content_type) == (200, content_type)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_page_without_an_icon_answers_for_it(folder):
    (folder / "favicon.svg").unlink()
    async with serving(folder) as (session, http), session.get(http + "/favicon.ico") as answer:
        assert answer.status == 204


@pytest.mark.parametrize(
    "path",
    [
        "/live/",
        "/live/nothing.js",
        "/live/notes.txt",
        "/live/../secret.js",
        "/live/..%2fsecret.js",
        "/live/%2e%2e%2fsecret.js",
        "/live/..%5csecret.js",
        "/live/live.js%00",
        "/live//etc/passwd",
    ],
)
async def test_there_are_no_other_files(folder, path):
    async with serving(folder) as (session, http), session.get(URL(http + path, encoded=True)) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/v1/streams/nobody", "/v1/streams/nobody/preview.jpg"])
async def test_an_unknown_stream_is_told_as_json(folder, path):
    async with serving(folder) as (session, http), session.get(http + path) as answer:
        assert (answer.status, await answer.json()) == (404, {"error": "no such stream"})


async def test_a_detector_without_its_page_says_so(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"the live page is missing: no index\.html in .*install it again"
    ):
        load_page(tmp_path)


async def test_the_package_has_all_that_its_page_names():
    page = load_page()
    text = "".join(asset.body.decode() for asset in page.values() if asset.content_type.startswith("text/"))
    named = set(re.findall(r'(?:(?:src|href)="live|(?:from|import) "\.)/([\w.-]+)"', text))
    assert named, "the page is made of files"
    assert named <= page.keys()


async def test_the_network_is_told_by_its_name(folder):
    async with serving(folder) as (session, http), session.get(http + "/v1/streams") as answer:
        assert await answer.json() == {"model": "demo", "streams": []}


async def test_the_path_of_a_network_is_nobodys_business(start_detector, weights):
    async with (
        start_detector(model=str(weights)) as running,
        ClientSession() as session,
        session.get(running.http + "/v1/streams") as answer,
    ):
        assert (await answer.json())["model"] is None


@pytest.mark.parametrize(("readiness", "status"), [("starting", 503), ("ready", 200), ("stopping", 503)])
async def test_readiness(folder, readiness, status):
    async with serving(folder, readiness) as (session, http), session.get(http + "/readyz") as answer:
        assert (answer.status, await answer.text()) == (status, f"{readiness}\n")


async def test_a_stream_is_told_with_its_history(start_detector, make_camera):
    async with start_detector() as running, ClientSession() as session:
        await asyncio.wait_for(make_camera(running.url).run(), LIVENESS_S)
        url = f"{running.http}/v1/streams/door"
        async with asyncio.timeout(LIVENESS_S):
            while True:
                async with session.get(url) as answer:
                    assert answer.status == 200
                    told = await answer.json()
                if told["history"]["unix_s"]:
                    break
                await asyncio.sleep(0.1)
        async with session.get(f"{running.http}/v1/streams") as answer:
            [listed] = (await answer.json())["streams"]
    history = told.pop("history")
    assert listed.keys() == told.keys()
    assert (told["frames"], told["preview"]) == (FRAMES, False)
    assert history.pop("interval_s") == 1
    assert history.keys() == {
        "unix_s",
        "frames_per_second",
        "kbit_per_second",
        "kb_per_frame",
        "latency_ms",
        "dropped",
        "detections",
    }
    assert len({len(values) for values in history.values()}) == 1


@pytest.mark.parametrize(
    ("allow", "origin", "allowed"),
    [
        ("", None, True),  # no browser
        ("", "{http}", True),
        ("", "https://elsewhere.example", False),
        ("", "null", False),  # a page in a sandbox, or a file
        ("https://dash.example, https://elsewhere.example/", "https://elsewhere.example", True),
        ("https://dash.example", "https://dash.example.evil.example", False),
        ("*", "https://elsewhere.example", True),
    ],
)
async def test_pages_of_other_sites_open_no_websocket(folder, allow, origin, allowed):
    middleware = foreign_origins_refused(allow)
    async with serving(folder, middlewares=[middleware]) as (session, http):
        origin = origin and origin.format(http=http)
        if allowed:
            async with session.ws_connect(http + "/socket", origin=origin) as ws:
                assert not ws.closed
        else:
            with pytest.raises(WSServerHandshakeError) as refused:
                await session.ws_connect(http + "/socket", origin=origin)
            assert refused.value.status == 403


async def test_a_detector_keeps_them_from_all_its_websockets(start_detector):
    async with start_detector() as running, ClientSession() as session:
        for path in ("/v1/detections", "/v1/streams/door/detections", "/v1/features"):
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect(running.http + path, origin="https://elsewhere.example")
            async with session.ws_connect(running.http + path, origin=running.http):
                pass
