"""Who may see the page: the form, the cookie in place of the token, and how a visit ends."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientResponse, ClientSession, CookieJar, TCPConnector, WSMsgType, web
from yarl import URL

from services.access.tokens import new_token
from services.detector import login
from services.detector.login import FAILURES
from tests.certificates import HOST, Authority
from tests.services.detector.test_gate import entry
from tests.services.waiting import LIVENESS_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWER, SCRIPT, BOTH = new_token(), new_token(), new_token()
TABLE = (
    entry("viewer", VIEWER, "page", "door")
    + entry("script", SCRIPT, "consumer", "*")
    + entry("both", BOTH, "page", "*").replace('["page"]', '["page", "camera", "metrics", "consumer"]')
)


class Visitor:
    """A browser, as far as a detector sees it."""

    def __init__(self, running, session: ClientSession) -> None:
        self.running, self.http, self.session = running, running.http, session

    async def get(self, path: str) -> ClientResponse:
        answer = await self.session.get(self.http + path, allow_redirects=False)
        await answer.read()
        return answer

    async def post(self, path: str, origin: str | None = "own", **fields: str) -> ClientResponse:
        own = {"Origin": self.http if origin == "own" else origin} if origin is not None else {}
        answer = await self.session.post(self.http + path, data=fields, headers=own, allow_redirects=False)
        await answer.read()
        return answer

    async def log_in(self, token: str = VIEWER) -> ClientResponse:
        return await self.post("/login", token=token)

    async def status(self, path: str, cookies: dict[str, str]) -> int:
        """What another browser gets that sends these cookies."""
        async with (
            ClientSession(cookies=cookies, cookie_jar=CookieJar(unsafe=True)) as other,
            other.get(self.http + path) as answer,
        ):
            return answer.status

    def refused(self, reason: str) -> float:
        """How often the detector has refused anybody for that reason."""
        registry = self.running.detector.statistics.metrics.registry
        labels = {"reason": reason}
        return registry.get_sample_value("splitcast_detector_connections_refused_total", labels) or 0

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self.session.cookie_jar}


@asynccontextmanager
async def visiting(running):
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield Visitor(running, session)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(start_detector):
    """One for all tests that leave it as it is, which come from one address: starting it takes longer than they do."""
    async with start_detector(tokens=TABLE, address_rate=1e6) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(shared):
    """Who has not logged in yet."""
    async with visiting(shared) as visitor:
        yield visitor


async def test_a_visitor_without_a_token_sees_the_form_and_nothing_else(visitor):
    for address, status in {"/": 303, "/login": 200, "/v1/streams": 401, "/metrics": 401}.items():
        assert (await visitor.get(address)).status == status, address
    assert (await visitor.get("/")).headers["Location"] == "login"
    form = await visitor.get("/login")
    assert form.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<input id="_token" name="token" type="password"' in await form.text()
    assert "<!--" not in await form.text()


async def test_a_token_opens_the_page_and_a_logout_closes_it(visitor):
    entered = await visitor.log_in(f" {VIEWER}\n")
    assert (entered.status, entered.headers["Location"]) == (303, "./")
    page = await visitor.get("/")
    assert page.status == 200
    assert re.search(r'<form class="visitor".*<span>viewer</span><button>Log out', await page.text())
    assert page.headers["Cache-Control"] == "no-store"
    assert (await visitor.get("/v1/streams")).status == 200
    assert (await visitor.get("/login")).headers["Location"] == "./"
    left = await visitor.post("/logout")
    assert (left.status, left.headers["Location"]) == (303, "login")
    assert visitor.cookies == {}
    assert (await visitor.get("/v1/streams")).status == 401


async def test_a_logout_ends_the_session_and_not_only_the_cookie(visitor):
    await visitor.log_in()
    kept = visitor.cookies
    assert await visitor.status("/v1/streams", kept) == 200
    await visitor.post("/logout")
    assert await visitor.status("/v1/streams", kept) == 401


async def test_the_cookie_is_kept_from_scripts_and_other_sites_and_does_not_hold_the_token(visitor):
    [cookie] = (await visitor.log_in()).headers.getall("Set-Cookie")
    for words in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={round(login.LIFE_S)}"):
        assert words in cookie
    assert re.match(
        rf"splitcast-[0-9a-f]{{8}}-{visitor.http.rpartition(':')[2]}=[A-Za-z0-9_-]{{43}};", cookie
    )
    assert "Domain" not in cookie
    assert VIEWER not in cookie


async def test_machines_behind_one_name_have_a_cookie_each(visitor, monkeypatch):
    names = set()
    for machine in ("s1", "s2"):
        monkeypatch.setattr(socket, "gethostname", lambda machine=machine: machine)
        [cookie] = (await visitor.log_in()).headers.getall("Set-Cookie")
        names.add(cookie.partition("=")[0])
    assert len(names) == 2


async def test_behind_a_proxy_that_ends_tls_the_cookie_is_for_https_alone(start_detector):
    own = start_detector(tokens=TABLE, allow_origin="https://other.example, https://Page.example/")
    async with own as running, visiting(running) as visitor:
        answer = await visitor.post("/login", origin="HTTPS://PAGE.example", token=VIEWER)
        [cookie] = answer.headers.getall("Set-Cookie")
        assert cookie.startswith("__Host-splitcast-")
        assert "Secure" in cookie
        name, _, value = cookie.partition(";")[0].partition("=")
        visitor.session.headers["Cookie"] = f"{name}={value}"
        assert (await visitor.get("/v1/streams")).status == 200


async def test_over_tls_no_cookie_counts_that_a_page_over_http_could_have_set(start_detector, tmp_path: Path):
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.file)
    async with (
        start_detector(tokens=TABLE, tls_cert=authority.sign()) as running,
        ClientSession(f"https://{HOST}:{running.port}", connector=TCPConnector(ssl=trusting)) as session,
    ):
        own, form = {"Origin": f"https://{HOST}:{running.port}"}, {"token": VIEWER}
        async with session.post("/login", data=form, headers=own, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        session.cookie_jar.clear()
        for sent, status in ((cookie, 200), (cookie.removeprefix("__Host-"), 401)):
            async with session.get("/v1/streams", headers={"Cookie": sent}) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        (new_token(), 401, "no such token"),
        ("", 401, "no such token"),
        ("<script>", 401, "no such token"),
        (SCRIPT, 403, "needs the role page"),
    ],
)
async def test_other_tokens_do_not_and_the_form_says_why(visitor, token, status, words, capsys):
    before = visitor.refused("login_failed")
    answer = await visitor.log_in(token)
    text = await answer.text()
    assert (answer.status, words in text, visitor.cookies) == (status, True, {})
    told = capsys.readouterr().out
    assert "reason=login_failed" in told
    assert not token or token not in text + told
    assert visitor.refused("login_failed") == before + 1


async def test_a_visit_is_good_for_the_page_alone(visitor):
    """Its token may send and scrape: its cookie, which another page in the browser might use, may not."""
    await visitor.log_in(BOTH)
    for path, status in {"/v1/streams": 200, "/metrics": 401, "/v1/features": 401}.items():
        assert (await visitor.get(path)).status == status, path


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), (None, 403), ("", 403), ("own", 303)],
)
async def test_a_form_of_another_site_neither_logs_in_nor_out(visitor, origin, status):
    assert (await visitor.post("/login", origin, token=VIEWER)).status == status
    assert bool(visitor.cookies) is (status == 303)
    await visitor.log_in()
    assert (await visitor.post("/logout", origin)).status == status
    assert (await visitor.get("/v1/streams")).status == (200 if status == 403 else 401)


async def test_a_login_takes_no_session_over_that_was_there(visitor):
    """Whoever put a cookie into somebody's browser does not get what that one logs in to."""
    await visitor.log_in()
    planted = visitor.cookies
    assert await visitor.status("/v1/streams", planted) == 200
    await visitor.log_in(BOTH)
    assert visitor.cookies.keys() == planted.keys()
    assert visitor.cookies != planted
    assert await visitor.status("/v1/streams", planted) == 401
    invented = dict.fromkeys(planted, "a" * 43)
    visitor.session.cookie_jar.update_cookies(invented, URL(visitor.http))
    await visitor.log_in()
    assert await visitor.status("/v1/streams", invented) == 401
    assert await visitor.status("/v1/streams", visitor.cookies) == 200


@pytest.mark.parametrize(
    "path", ["/login?next=https://evil.example", "/login?next=//evil.example", "//evil.example/"]
)
async def test_nothing_that_is_asked_for_leads_elsewhere(visitor, path):
    answer = await visitor.post(path, token=VIEWER)
    assert answer.headers.get("Location", "./") == "./"
    assert "evil" not in str(answer.headers)


async def test_the_form_is_in_no_frame_and_goes_to_this_detector_alone(visitor):
    answers = [await visitor.get("/login"), await visitor.log_in("none"), await visitor.log_in()]
    answers += [await visitor.get("/"), await visitor.get("/login"), await visitor.post("/logout")]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        for words in (
            "frame-ancestors 'none'",
            "form-action 'self'",
            "default-src 'none'",
            "base-uri 'none'",
        ):
            assert words in policy


async def test_guesses_are_slowed_down_by_address_and_counted(start_detector, monkeypatch):
    monkeypatch.setattr(login, "FAILURE_INTERVAL_S", 3600.0)
    async with start_detector(tokens=TABLE) as running, visiting(running) as visitor:
        guesses = await asyncio.gather(*(visitor.log_in(new_token()) for _ in range(2 * FAILURES)))
        assert sorted(guess.status for guess in guesses) == [401] * FAILURES + [429] * FAILURES
        slowed = await visitor.log_in()
        assert (slowed.status, 3000 < int(slowed.headers["Retry-After"]) <= 3600) == (429, True)
        assert f"Try again in {slowed.headers['Retry-After']} s." in await slowed.text()
        assert visitor.refused("too_many_logins") == FAILURES + 1
        assert visitor.refused("login_failed") == FAILURES


async def test_guesses_of_a_network_of_ipv6_are_one_address_guesses(start_detector, monkeypatch):
    """Of 64 bits, which a single machine may have to itself."""
    monkeypatch.setattr(login, "FAILURE_INTERVAL_S", 3600.0)
    monkeypatch.setattr(
        web.BaseRequest, "remote", property(lambda request: request.headers.get("Claimed", "127.0.0.1"))
    )
    async with start_detector(tokens=TABLE) as running, visiting(running) as visitor:

        async def guess_from(address: str) -> int:
            visitor.session.headers["Claimed"] = address
            return (await visitor.log_in(new_token())).status

        assert {await guess_from(f"2001:db8:1:2::{number}") for number in range(FAILURES)} == {401}
        assert await guess_from("2001:db8:1:2:3:4:5:6") == 429
        assert await guess_from("2001:db8:1:3::1") == 401


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"token=x", {"Content-Type": "application/json"}, 415),
        (b"token=x", {"Content-Encoding": "gzip"}, 401),  # nothing is unpacked: this is no such token
        (gzip.compress(b"token=x", mtime=0), {"Content-Encoding": "gzip"}, 400),
        (b"token=" + b"x" * 3000, {}, 413),
        (b"&".join([b"a=b"] * 100), {}, 400),
        (b"token=\xff", {"Content-Type": "application/x-www-form-urlencoded; charset=nonsense"}, 400),
    ],
)
async def test_what_is_no_such_form_is_refused(visitor, caplog, data, headers, status):
    form = {"Origin": "http://nas", "Host": "NAS", "Content-Type": "application/x-www-form-urlencoded"}
    answer = await visitor.session.post(f"{visitor.http}/login", data=data, headers=form | headers)
    assert answer.status == status
    assert not [record for record in caplog.records if record.levelname == "ERROR"]  # of a traceback


async def test_a_form_of_unknown_length_is_not_awaited(visitor):
    async def endless():
        yield b"token="
        await asyncio.Event().wait()

    form = {"Origin": visitor.http, "Content-Type": "application/x-www-form-urlencoded"}
    async with asyncio.timeout(LIVENESS_S):
        answer = await visitor.session.post(f"{visitor.http}/login", data=endless(), headers=form)
        assert answer.status == 411


async def test_a_form_that_never_comes_is_not_awaited(visitor, monkeypatch):
    monkeypatch.setattr(login, "BODY_TIMEOUT_S", 0.1)
    async with asyncio.timeout(LIVENESS_S):
        host, _, port = visitor.http.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"POST /login HTTP/1.1\r\nHost: nas\r\nOrigin: http://nas\r\nContent-Length: 99\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
        )
        assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(("token", "status"), [(VIEWER, 200), (SCRIPT, 303)])
async def test_the_page_is_for_tokens_of_the_role_page_alone(visitor, token, status):
    visitor.session.headers["Authorization"] = f"Bearer {token}"
    assert (await visitor.get("/")).status == status


async def test_who_sends_a_token_is_known_by_it_alone(visitor):
    await visitor.log_in()
    for token, status in ((BOTH, 200), (SCRIPT, 403), (new_token(), 401)):
        headers = {"Authorization": f"Bearer {token}"}
        async with visitor.session.get(f"{visitor.http}/metrics", headers=headers) as answer:
            assert answer.status == status
        async with visitor.session.get(f"{visitor.http}/v1/streams", headers=headers) as answer:
            assert answer.status == (401 if status == 401 else 200)


async def test_a_form_that_breaks_off_is_no_defect(visitor, caplog):
    host, _, port = visitor.http.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, port)
    address = writer.get_extra_info("sockname")
    writer.write(
        b"POST /login HTTP/1.1\r\nHost: nas\r\nOrigin: http://nas\r\nContent-Length: 99\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    )
    accepted = visitor.running.detector.admission.listener.accepted
    await until(lambda: address in accepted and accepted[address].has_requested)
    writer.close()
    await until(lambda: address not in accepted)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_a_visit_opened_ends_with_it(visitor):
    async with asyncio.timeout(LIVENESS_S):
        await visitor.log_in()
        async with visitor.session.ws_connect(f"{visitor.http}/v1/streams/door/detections") as ws:
            await visitor.post("/logout")
            message = await ws.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)


async def test_a_logout_ends_no_other_visit_of_the_same_token(visitor, shared):
    async with asyncio.timeout(LIVENESS_S), visiting(shared) as another:
        await visitor.log_in()
        await another.log_in()
        path = f"{visitor.http}/v1/streams/door/detections"
        async with visitor.session.ws_connect(path) as leaves, another.session.ws_connect(path):
            await until(lambda: len(shared.detector.broadcast) == 2)
            await visitor.post("/logout")
            assert (await leaves.receive()).data == 4401
            assert len(shared.detector.broadcast) == 1
            assert (await another.get("/v1/streams")).status == 200


async def test_a_visit_ends_when_its_time_is_up(visitor, monkeypatch):
    async with asyncio.timeout(LIVENESS_S):
        await visitor.log_in()
        async with visitor.session.ws_connect(f"{visitor.http}/v1/streams/door/detections") as ws:
            monkeypatch.setattr(login, "LIFE_S", 0.0)
            assert (await ws.receive()).data == 4401
        assert (await visitor.get("/v1/streams")).status == 401


async def test_a_revoked_token_ends_its_visits(start_detector, tmp_path: Path):
    file = tmp_path / "tokens.toml"
    file.write_text(TABLE)
    async with start_detector(tokens=str(file)) as running, visiting(running) as visitor:
        await visitor.log_in()
        await visitor.running.detector.reload()
        assert (await visitor.get("/v1/streams")).status == 200
        file.write_text(entry("both", BOTH, "page", "*"))
        await visitor.running.detector.reload()
        assert (await visitor.get("/v1/streams")).status == 401
        assert (await visitor.get("/")).status == 303
        file.write_text(TABLE)  # a visit that has ended does not come back with its token
        await visitor.running.detector.reload()
        assert (await visitor.get("/v1/streams")).status == 401


async def test_a_detector_without_tokens_has_no_form_and_serves_the_page_as_it_is(start_detector):
    async with start_detector() as running, ClientSession() as session:
        async with session.get(running.http) as page:
            assert (page.status, 'class="visitor"' in await page.text()) == (200, False)
            assert "form-action 'none'" in page.headers["Content-Security-Policy"]
            assert "no-referrer" in page.headers["Referrer-Policy"]
        for method, path in (("GET", "/login"), ("POST", "/login"), ("POST", "/logout")):
            async with session.request(method, running.http + path) as answer:
                assert answer.status == 404
