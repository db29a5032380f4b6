"""What a detector answers to plain HTTP."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web
from yarl import URL

from services.access.tokens import EVERYBODY
from services.detector.gate import GRANT
from services.detector.streams import Streams
from services.detector.web import Web, errors_as_json, foreign_pages_refused, load_page
from tests.services.browser import CHROMIUM, open_browser
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S


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


@web.middleware
async def granted(request: web.Request, handler) -> web.StreamResponse:
    request[GRANT] = EVERYBODY
    return await handler(request)


@asynccontextmanager
async def serving(folder, readiness: str = "ready", middlewares=()):
    """The address of a server that answers what `Web` does, and a WebSocket at /socket."""
    app = web.Application(middlewares=[errors_as_json, *middlewares, granted])
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


@pytest.mark.parametrize("name", ["index.html", "login.html"])
async def test_both_pages_draw_the_mark(name):
    body = load_page()[name].body
    assert body.count(b'<use href="#_mark">') == body.count(b'<symbol id="_mark"') == 1


async def test_the_network_is_told_by_its_name(folder):
    async with serving(folder) as (session, http), session.get(http + "/v1/streams") as answer:
        assert await answer.json() == {"model": "demo", "streams": []}


async def test_answers_are_compressed_for_those_who_take_it(folder):
    async with serving(folder) as (session, http):
        for accepted, given in (("gzip", "gzip"), ("identity", None)):
            async with session.get(http + "/v1/streams", headers={"Accept-Encoding": accepted}) as answer:
                assert answer.headers.get("Content-Encoding") == given
                assert (await answer.json())["streams"] == []


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
                    described = await answer.json()
                if described["history"]["unix_s"]:
                    break
                await asyncio.sleep(0.1)
        async with session.get(f"{running.http}/v1/streams") as answer:
            [listed] = (await answer.json())["streams"]
    history = described.pop("history")
    assert listed.keys() == described.keys()
    assert (described["frames"], described["preview"]) == (FRAMES, False)
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
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/nothing", 404, "Not Found"),
        ("GET", "/live/nothing.js", 404, "no such file"),
        ("GET", "/v1/streams/%0anobody", 404, "no such stream"),
        ("POST", "/v1/streams", 405, "Method Not Allowed"),
        ("GET", "/socket", 400, "WebSocket"),
    ],
)
async def test_errors_are_json_that_no_browser_takes_for_a_page(folder, method, path, status, words):
    url = URL(path, encoded=True)
    async with serving(folder) as (session, http), session.request(method, f"{http}{url}") as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        assert words in (await answer.json())["error"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert ("Allow" in answer.headers) == (status == 405)


# --- pages of other sites ---


async def open_socket(session: ClientSession, http: str, host: str | None, origin: str | None) -> int:
    """The status of an opened WebSocket, 101, or of a refusal."""
    headers = {"Host": host} if host else {}
    try:
        async with session.ws_connect(http + "/socket", origin=origin, headers=headers):
            return 101
    except WSServerHandshakeError as refused:
        return refused.status


@pytest.mark.parametrize(
    ("allow", "origin", "status"),
    [
        ("", None, 101),  # no browser
        ("", "{http}", 101),
        ("", "https://elsewhere.example", 403),
        ("", "null", 403),  # a page in a sandbox, or a file
        ("https://dash.example, https://elsewhere.example/", "https://elsewhere.example", 101),
        ("https://dash.example", "https://dash.example.evil.example", 403),
        ("https://dash.example", "https://dash.example:8080", 403),
        ("*", "https://elsewhere.example", 101),
    ],
)
async def test_pages_of_other_sites_open_no_websocket(folder, allow, origin, status):
    async with serving(folder, middlewares=[foreign_pages_refused(allow)]) as (session, http):
        assert await open_socket(session, http, None, origin and origin.format(http=http)) == status


async def test_a_detector_keeps_them_from_all_its_websockets(start_detector):
    async with start_detector() as running, ClientSession() as session:
        for path in ("/v1/detections", "/v1/streams/door/detections", "/v1/features"):
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect(running.http + path, origin="https://elsewhere.example")
            async with session.ws_connect(running.http + path, origin=running.http):
                pass
        async with session.get(running.http + "/v1/detections?types=boxes") as answer:
            assert answer.status == 400
        sample = running.detector.statistics.metrics.registry.get_sample_value
        for reason, count in (("foreign_page", 3), ("bad_request", 1)):
            assert sample("splitcast_detector_connections_refused_total", {"reason": reason}) == count


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8765",
        "[::1]:8765",
        "[fe80::1]",
        "192.168.1.5",
        "localhost:8765",
        "splitcast.localhost:8765",
        "nas:8765",
        "NAS.local:8765",
        "nas.local.:8765",
        "nas.lan",
        "nas.home.arpa:8765",
        "gpu.eu.internal:8765",
    ],
)
async def test_names_that_nobody_can_have_registered_are_good(folder, host):
    async with serving(folder, middlewares=[foreign_pages_refused("")]) as (session, http):
        assert await open_socket(session, http, host, f"http://{host}") == 101
        async with session.get(http + "/v1/streams", headers={"Host": host}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "evil.example.:8765",
        "local.evil.example",
        "evillocal.example",
    ],
)
async def test_a_name_that_was_made_to_lead_here_reads_nothing(folder, host):
    """DNS rebinding: to the browser the foreign page is of this very site."""
    async with serving(folder, middlewares=[foreign_pages_refused("", "127.0.0.1")]) as (session, http):
        assert await open_socket(session, http, host, f"http://{host}") == 403
        for path in ("/", "/live/live.js", "/v1/streams", "/v1/streams/door", "/v1/streams/door/preview.jpg"):
            async with session.get(http + path, headers={"Host": host}) as answer:
                assert (answer.status, answer.content_type) == (403, "application/json")
                assert f"--allow-origin http://{host}" in (await answer.json())["error"]


async def test_cameras_consumers_and_probes_come_by_any_name(start_detector):
    host = {"Host": "detector.example:8765"}
    async with start_detector() as running, ClientSession(headers=host) as session:
        for path in ("/v1/detections", "/v1/streams/door/detections", "/v1/features"):
            async with session.ws_connect(running.http + path):
                pass
        for path in ("/metrics", "/livez", "/readyz"):
            async with session.get(running.http + path) as answer:
                assert answer.status == 200
        async with session.get(running.http + "/v1/streams") as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    ("allow", "listens", "machine"),
    [
        ("https://dash.example, http://detector.example", "", ""),
        ("HTTPS://Detector.example:443/", "", ""),
        ("*", "", ""),
        ("", "Detector.Example", ""),
        ("", "", "Detector.Example"),
    ],
)
async def test_a_detectors_own_names_are_good(folder, monkeypatch, allow, listens, machine):
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    middleware = foreign_pages_refused(allow, listens)
    async with serving(folder, middlewares=[middleware]) as (session, http):
        host = "detector.example:8765"
        assert await open_socket(session, http, host, f"http://{host}") == 101
        async with session.get(http + "/v1/streams", headers={"Host": host}) as answer:
            assert answer.status == 200


async def test_the_page_of_an_allowed_site_reads_by_whatever_name(folder):
    middleware = foreign_pages_refused("https://dash.example")
    async with serving(folder, middlewares=[middleware]) as (session, http):
        assert await open_socket(session, http, "detector.example", "https://dash.example") == 101


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
async def test_a_browser_is_served_by_a_known_name_alone(start_detector):
    """With a page's own GET over HTTP it sends neither Origin nor Sec-Fetch headers: only the name can decide."""
    names = "--host-resolver-rules=MAP * 127.0.0.1"
    async with (
        start_detector(allow_origin="https://detector.example") as running,
        open_browser(names) as browser,
    ):
        page = await browser.new_page()
        for name, status in (("evil.example", 403), ("detector.example", 200), ("nas", 200)):
            site = f"http://{name}:{running.port}"
            for path in ("/v1/streams", "/"):
                answer = await page.goto(site + path)
                assert answer
                assert answer.status == status
            opened = await page.evaluate(
                """() => new Promise((resolve) => {
                    const socket = new WebSocket(`ws://${location.host}/v1/detections`);
                    socket.onopen = () => resolve(true);
                    socket.onerror = () => resolve(false);
                })"""
            )
            assert opened == (status == 200)
