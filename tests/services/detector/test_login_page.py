"""Logging in and out in a real browser, and what pages of other sites can do with it: nothing."""

from __future__ import annotations

import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from services.access.tokens import new_token
from services.detector import visit
from tests.certificates import HOST, Authority
from tests.services.browser import CHROMIUM
from tests.services.detector.legibility import FAINT_TEXTS
from tests.services.detector.peers import answer, linked
from tests.services.detector.test_gate import entry
from tests.services.waiting import LIVENESS_S, until

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.asyncio(loop_scope="module"),
]

CAMERA, VIEWER = new_token(), new_token()
TABLE = entry("cameras", CAMERA, "camera", "*") + entry("viewer", VIEWER, "page", "door")
REFUSED = "401"  # the browser's own word in its console for a request that was answered so


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A camera that says nothing stays for as long as a slow browser takes."""
    monkeypatch.setattr(visit, "SILENCE_S", 2 * LIVENESS_S)


@asynccontextmanager
async def sending(running, hello: str, packet: bytes):
    """A camera of the name `door` or another, one of whose frames was detected."""
    async with linked(running.url, CAMERA) as link:
        await link.send(hello)
        assert (await answer(link))["type"] == "welcome"
        await link.send(packet)
        assert (await answer(link))["type"] == "ack"
        yield


async def log_in(page: Page, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Log in").click()


async def keep(page: Page, name: str) -> None:
    """A picture for people, where somebody asks for them."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def test_a_visitor_logs_in_sees_the_granted_streams_and_logs_out(
    start_detector, browse, make_hello, encode
):
    packet = encode(0)
    async with (
        start_detector(tokens=TABLE) as running,
        sending(running, make_hello().text(), packet),
        sending(running, make_hello(stream="yard").text(), packet),
        browse(f"{running.http}/#door", tolerate=REFUSED) as page,
    ):
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        await expect(page.get_by_label("Token")).to_be_focused()
        await log_in(page, new_token())
        await expect(page.get_by_role("alert")).to_have_text("There is no such token, or it was revoked.")
        await log_in(page, VIEWER)
        await expect(page.get_by_role("heading", name="door")).to_be_visible()
        assert page.url == f"{running.http}/#door"
        streams = page.get_by_role("navigation", name="Streams")
        await expect(streams.get_by_role("link")).to_have_count(1)
        assert VIEWER not in await page.content() + await page.evaluate("document.cookie")
        await expect(page.locator(".visitor span")).to_have_text("viewer")
        await keep(page, "logged-in")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        await page.go_back()
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


async def test_a_visitor_is_told_that_a_camera_needs_a_token(start_detector, browse):
    async with start_detector(tokens=TABLE) as running, browse(running.http) as page:
        await log_in(page, VIEWER)
        await expect(page.locator("code", has_text="--token-file TOKEN").first).to_be_visible()
        await expect(page.get_by_text("This detector asks for a token")).to_be_visible()
        await keep(page, "no-camera")
    async with start_detector() as running, browse(running.http) as page:
        await expect(page.locator("code", has_text="--detector").first).to_be_visible()
        await expect(page.get_by_text("This detector asks for a token")).to_be_hidden()
        assert await page.get_by_text("--token-file").count() == 0


async def test_a_page_whose_token_is_revoked_returns_to_the_form(
    start_detector, browse, make_hello, encode, tmp_path
):
    file = tmp_path / "tokens.toml"
    file.write_text(TABLE)
    async with (
        start_detector(tokens=str(file)) as running,
        sending(running, make_hello().text(), encode(0)),
        browse(running.http, tolerate=REFUSED) as page,
    ):
        await log_in(page, VIEWER)
        await expect(page.get_by_role("heading", name="door")).to_be_visible()
        file.write_text(entry("cameras", CAMERA, "camera", "*"))
        await running.detector.reload()
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert page.url == f"{running.http}/login#door"


async def test_over_tls_the_cookie_is_for_https_alone(start_detector, browse, tmp_path):
    authority = Authority(tmp_path / "authority")
    async with (
        start_detector(tokens=TABLE, tls_cert=authority.sign()) as running,
        browse(f"https://{HOST}:{running.port}/#door", tolerate=REFUSED, ignore_https_errors=True) as page,
    ):
        await log_in(page, VIEWER)
        await expect(page.locator(".visitor span")).to_have_text("viewer")
        await expect(page.get_by_role("heading", name="No stream named door")).to_be_visible()
        [cookie] = await page.context.cookies()
        assert re.fullmatch(rf"__Host-splitcast-[0-9a-f]{{8}}-{running.port}", cookie["name"])
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert await page.context.cookies() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_form_is_legible_and_fits_a_phone(start_detector, browse, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    async with (
        start_detector(tokens=TABLE) as running,
        browse(running.http, tolerate=REFUSED, color_scheme=scheme, **phone) as page,
    ):
        await keep(page, f"login-{scheme}")
        await log_in(page, "wrong")
        await expect(page.get_by_role("alert")).to_be_visible()
        await keep(page, f"login-refused-{scheme}")
        texts = await page.evaluate(FAINT_TEXTS)
        assert (texts["seen"] > 5, texts["faint"]) == (True, [])
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        for part in (page.get_by_label("Token"), page.get_by_role("button")):
            assert (await part.bounding_box())["height"] >= 44
        await log_in(page, VIEWER)
        await expect(page.get_by_role("button", name="Log out")).to_be_visible()
        await keep(page, f"logged-in-phone-{scheme}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


@asynccontextmanager
async def on_another_site(browser: Browser, running, body: str):
    """The browser of a visitor who has logged in, and the address of a page of another site: as local as ours is, so
    that the browser has no other reason to keep them apart.
    """

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    other = web.AppRunner(app, shutdown_timeout=0.1)
    await other.setup()
    await web.TCPSite(other, "localhost", 0).start()
    context = await browser.new_context()
    context.set_default_timeout(LIVENESS_S * 1000)
    try:
        page = await context.new_page()
        await page.goto(running.http)
        await log_in(page, VIEWER)
        await expect(page.locator(".visitor span")).to_have_text("viewer")
        yield page, f"http://localhost:{other.addresses[0][1]}/"
    finally:
        await context.close()
        await other.cleanup()


@pytest.mark.parametrize("path", ["login", "logout"])
async def test_a_form_of_another_site_is_refused(start_detector, browser, path):
    async with start_detector(tokens=TABLE) as running:
        form = (
            f'<form method="post" action="{running.http}/{path}"><input name="token" value="{VIEWER}">'
            "<button>Win</button></form>"
        )
        async with on_another_site(browser, running, form) as (page, evil):
            await page.goto(evil)
            async with page.expect_response(f"{running.http}/{path}") as refused:
                await page.get_by_role("button").click()
            assert (await refused.value).status == 403
            await page.goto(running.http)
            await expect(page.locator(".visitor span")).to_have_text("viewer")


async def test_another_site_neither_frames_the_page_nor_reads_it(start_detector, browser):
    async with start_detector(tokens=TABLE) as running:
        frame = f'<iframe src="{running.http}/"></iframe>'
        async with on_another_site(browser, running, frame) as (page, evil):
            blocked: list[str] = []
            page.on("console", lambda said: blocked.append(said.text))
            await page.goto(evil)
            await until(lambda: any("frame-ancestors" in text for text in blocked))
            reads = f"fetch('{running.http}/v1/streams', {{credentials: 'include'}}).then(r => 'read', () => 'no')"
            assert await page.evaluate(reads) == "no"
            opens = f"""new Promise(done => {{
                const socket = new WebSocket('{running.url}/v1/detections');
                socket.onopen = () => done('open');
                socket.onerror = () => done('no');
            }})"""
            assert await page.evaluate(opens) == "no"
