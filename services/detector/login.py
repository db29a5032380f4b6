"""How a browser says who it is: a form for the token, then a short-lived cookie in its place (RFC 6265)."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from html import escape
from math import ceil
from urllib.parse import parse_qs
from zlib import crc32

import structlog
from aiohttp import web

from services.access.tokens import Grant
from services.detector.gate import ACCESS, Gate
from services.detector.metrics import LOGIN_FAILED, TOO_MANY_LOGINS
from services.detector.statistics import DetectorStatistics
from services.detector.web import FORM_HEADERS, Asset
from stream.transport.places import address_of

log = structlog.get_logger(__name__)

FORM = "login.html"
MESSAGE = b"<!-- message -->"  # in the form, where it says what was wrong
MAX_BODY_BYTES = 2048
BODY_TIMEOUT_S = 10.0

IDLE_S = 30 * 60.0  # after which a session that nobody uses is over: an open page asks every second
LIFE_S = 12 * 3600.0  # after which any is
SESSIONS_PER_TOKEN = 32

FAILURE_INTERVAL_S = 6.0  # one wrong token in this time is forgiven
FAILURES = 10  # wrong ones at once
MAX_ADDRESSES = 4096


@dataclass(slots=True, eq=False)
class _Session:
    grant: Grant
    opened_ns: int
    used_ns: int


class BrowserSessions:
    """Who has logged in: random cookies, known by their hashes alone. Times are arguments, in ns of a steady clock.

    `on_end` is called with the grant of each session that is over: the very object that `grant` gave.
    """

    def __init__(self, on_end: Callable[[Grant], None]) -> None:
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()  # the oldest first
        self._on_end = on_end

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, grant: Grant, now_ns: int) -> str:
        """The cookie of a new session, of 256 random bits; of those of the same token the oldest makes way."""
        same = [key for key, session in self._sessions.items() if session.grant.hash == grant.hash]
        for key in same[: max(0, len(same) - SESSIONS_PER_TOKEN + 1)]:
            self._end(key)
        cookie = secrets.token_urlsafe(32)
        # A copy, which is told from those of other sessions.
        self._sessions[_key(cookie)] = _Session(replace(grant), now_ns, now_ns)
        return cookie

    def grant(self, cookie: str, now_ns: int) -> Grant | None:
        """What its session grants; None where there is none, or no more. It counts as used."""
        key = _key(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None
        if _is_over(session, now_ns):
            self._end(key)
            return None
        session.used_ns = now_ns
        return session.grant

    def close(self, cookie: str) -> None:
        """End its session, if there is one."""
        self._end(_key(cookie))

    def expire(self, now_ns: int) -> None:
        """End those that have had their time."""
        for key in [key for key, session in self._sessions.items() if _is_over(session, now_ns)]:
            self._end(key)

    def _end(self, key: bytes) -> None:
        if session := self._sessions.pop(key, None):
            self._on_end(session.grant)


def _key(cookie: str) -> bytes:
    """By which a session is found: how long a search takes tells nothing of a cookie."""
    return sha256(cookie.encode(errors="replace")).digest()


def _is_over(session: _Session, now_ns: int) -> bool:
    return now_ns - session.used_ns >= IDLE_S * 1e9 or now_ns - session.opened_ns >= LIFE_S * 1e9


class FailedLogins:
    """Tells which addresses have tried too many wrong tokens. Knows a bounded number; times are as above."""

    def __init__(self) -> None:
        self._forgiven_ns: OrderedDict[str, int] = OrderedDict()  # when all is; the latest failure last

    def __len__(self) -> int:
        return len(self._forgiven_ns)

    def wait_s(self, address: str, now_ns: int) -> float:
        """Seconds until the address may try again."""
        forgiven_ns = self._forgiven_ns.get(address, now_ns)
        return max(0.0, (forgiven_ns - now_ns) / 1e9 - (FAILURES - 1) * FAILURE_INTERVAL_S)

    def fail(self, address: str, now_ns: int) -> None:
        """Count a wrong token."""
        forgiven_ns = max(self._forgiven_ns.pop(address, now_ns), now_ns)
        self._forgiven_ns[address] = forgiven_ns + round(FAILURE_INTERVAL_S * 1e9)
        if len(self._forgiven_ns) > MAX_ADDRESSES:
            self._forgiven_ns.popitem(last=False)


class Login:
    """Answers /login and /logout, and knows the cookies of those who are in.

    A cookie stands for its token on the page alone: it neither sends a stream nor reads metrics. Nobody can lead a
    visitor elsewhere: what follows a login is the page, whatever the request says.
    """

    def __init__(
        self, gate: Gate, page: Mapping[str, Asset], statistics: DetectorStatistics, allow_origin: str
    ) -> None:
        self._gate, self._statistics = gate, statistics
        self._form = page[FORM].body
        self._origins = {origin.strip().rstrip("/").lower() for origin in allow_origin.split(",")}
        self._sessions = BrowserSessions(gate.end)
        gate.cookie_grant = self.cookie_grant
        self._failed = FailedLogins()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Let the router know every path that is answered here."""
        router.add_get("/login", self._show)
        router.add_post("/login", self._log_in)
        router.add_post("/logout", self._log_out)

    def expire(self, now_ns: int) -> None:
        """End the sessions that have had their time."""
        self._sessions.expire(now_ns)

    def cookie_grant(self, request: web.Request) -> Grant | None:
        """What the request's cookie grants; None where it has none that counts, or asks for what no page needs."""
        resource = request.match_info.route.resource
        roles = ACCESS[resource.canonical] if resource else frozenset()
        cookie = _cookie(request)
        if cookie is None or (roles and "page" not in roles):
            return None
        grant = self._sessions.grant(cookie, time.monotonic_ns())
        if grant and not self._gate.tokens.stands(grant):
            self._sessions.close(cookie)
            return None
        return grant

    # --- routes ---

    async def _show(self, request: web.Request) -> web.Response:
        if self.cookie_grant(request):
            return web.Response(status=303, headers={**FORM_HEADERS, "Location": "./"})
        return self._answer("", 200)

    async def _log_in(self, request: web.Request) -> web.Response:
        self._refuse_foreign(request)
        token = await _read_token(
            request
        )  # nothing is awaited from here on: those that come at once count, too
        address, now_ns = address_of(request.remote), time.monotonic_ns()
        wait_s = self._failed.wait_s(address, now_ns)
        if wait_s:
            self._refuse(request, TOO_MANY_LOGINS)
            words = f"Too many wrong tokens from your address. Try again in {ceil(wait_s)} s."
            return self._answer(words, 429, {"Retry-After": str(ceil(wait_s))})
        grant = self._gate.tokens.grant(token)
        if grant is None:
            self._failed.fail(address, now_ns)
            self._refuse(request, LOGIN_FAILED)
            return self._answer("There is no such token, or it was revoked.", 401)
        if not grant.may("page"):
            self._refuse(request, LOGIN_FAILED)
            return self._answer("This token is not for the live page: it needs the role page.", 403)
        self._leave(request)
        log.info("login", token=grant.owner, address=request.remote)
        return self._turn_to("./", request, self._sessions.open(grant, now_ns))

    async def _log_out(self, request: web.Request) -> web.Response:
        self._refuse_foreign(request)
        self._leave(request)
        return self._turn_to("login", request, None)

    def _turn_to(self, place: str, request: web.Request, cookie: str | None) -> web.Response:
        """An answer that leads the browser on, with a cookie or without the one that it has."""
        answer = web.Response(status=303, headers={**FORM_HEADERS, "Location": place})
        secure = request.secure or request.headers.get("Origin", "").lower().startswith("https:")
        answer.set_cookie(
            _cookie_name(request, secure=secure),
            cookie or "",
            max_age=round(LIFE_S) if cookie else 0,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )
        return answer

    def _answer(self, message: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
        told = f'<p class="message" role="alert">{escape(message)}</p>' if message else ""
        return web.Response(
            body=self._form.replace(MESSAGE, told.encode()),
            status=status,
            headers={**FORM_HEADERS, **(headers or {})},
        )

    def _leave(self, request: web.Request) -> None:
        """End the session that the browser has, so that none outlives a login or a logout."""
        if cookie := _cookie(request):
            self._sessions.close(cookie)

    def _refuse(self, request: web.Request, reason: str) -> None:
        self._statistics.refuse(reason)
        log.warning("login refused", address=request.remote, reason=reason)

    def _refuse_foreign(self, request: web.Request) -> None:
        """Raise HTTPForbidden where another site's page sends the form: every browser tells whose it is (RFC 6454)."""
        origin, host = request.headers.get("Origin", "").lower(), request.headers.get("Host", "").lower()
        if not origin or (origin.partition("://")[2] != host and origin not in self._origins):
            raise web.HTTPForbidden(
                text="this form is sent by the detector's own page alone; where a proxy changes the name, "
                "start the detector with --allow-origin and the page's address"
            )


def _cookie_name(request: web.Request, *, secure: bool) -> str:
    """With this machine and the port, as browsers send a host's cookies to all that answers behind its name. Only the
    host itself, over TLS, can set one with the prefix (RFC 6265bis, 4.1.3.2).
    """
    address = request.transport.get_extra_info("sockname") if request.transport else None
    machine = crc32(socket.gethostname().encode())
    return f"{'__Host-' if secure else ''}splitcast-{machine:08x}-{address[1] if address else 0}"


def _cookie(request: web.Request) -> str | None:
    """The session's cookie that came; where TLS may end at a proxy it has the one name or the other."""
    secured = request.cookies.get(_cookie_name(request, secure=True))
    return secured if secured or request.secure else request.cookies.get(_cookie_name(request, secure=False))


async def _read_token(request: web.Request) -> str:
    """The token that the form holds. Raises HTTPException where the request is none that the form sends."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="a form is awaited: application/x-www-form-urlencoded")
    if request.content_length is None:
        raise web.HTTPLengthRequired(text="how long is the form?")
    if request.content_length > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            fields = parse_qs((await request.read()).decode(), max_num_fields=8)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form did not come in time") from None
    except (ValueError, ConnectionError):  # the latter: nobody is there to read the answer
        raise web.HTTPBadRequest(text="this is no form") from None
    return fields.get("token", [""])[0].strip()
