"""Who may ask for what: found by the bearer token of each request, before it is answered or becomes a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from services.access.token_file import TokenSource
from services.access.tokens import EVERYBODY, Grant, Role, Tokens
from services.errors import SettingsError
from services.repeats import OWN_EVENT
from stream.addresses import STREAM_PARAMETER
from stream.errors import SessionError
from stream.session.close_codes import CloseCode

log = structlog.get_logger(__name__)

GRANT: web.RequestKey[Grant] = web.RequestKey("grant", Grant)
"""What the request's token grants; EVERYBODY's where the detector asks for none. Open paths may lack it."""
REVOKED: web.RequestKey[asyncio.Event] = web.RequestKey("revoked", asyncio.Event)
"""Set once that token is revoked, or grants something else: whoever is connected has to come again."""

OPEN: frozenset[Role] = frozenset()
_READS_STREAMS: frozenset[Role] = frozenset({"consumer", "page"})
FEATURES = "/v1/features"
ACCESS: Mapping[str, frozenset[Role]] = {
    FEATURES: frozenset({"camera"}),
    "/v1/detections": _READS_STREAMS,
    "/v1/streams/{name}/detections": _READS_STREAMS,
    "/v1/streams": _READS_STREAMS,
    "/v1/streams/{name}": _READS_STREAMS,
    "/v1/streams/{name}/preview.jpg": _READS_STREAMS,
    "/metrics": frozenset({"metrics"}),
    "/": OPEN,  # leads those who may not see the page to the form
    "/login": OPEN,
    "/logout": OPEN,
    "/live/{file}": OPEN,
    "/favicon.ico": OPEN,
    "/livez": OPEN,
    "/readyz": OPEN,
}
"""Roles that may ask for a path, one of which suffices. A path that is not here is nobody's."""


class TokenMissing(web.HTTPUnauthorized):
    """No token came."""


class TokenUnknown(web.HTTPUnauthorized):
    """None that is known, or no more."""


class ManyTokens(web.HTTPBadRequest):
    """A proxy on the way may have checked another one than this detector would."""


class NotGranted(web.HTTPForbidden):
    """The token grants something else."""


class Gate:
    """Keeps out who has no right to be here. Without a source of tokens everybody may do everything."""

    def __init__(
        self, source: TokenSource | None, on_token: Callable[[web.Request], None] = lambda request: None
    ) -> None:
        """`on_token` is called for each request with a token that is known."""
        self.cookie_grant: Callable[[web.Request], Grant | None] = lambda request: None
        """What a browser's cookie grants, which has no other way to say who it is."""
        self._source, self._on_token = source, on_token
        self.tokens = Tokens()
        self._inside: dict[asyncio.Event, Grant] = {}  # requests that are being answered

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        return self._source is not None

    def stands(self, grant: Grant) -> bool:
        """Whether its token is still known, and grants the same; nobody's does for ever."""
        return grant is EVERYBODY or self.tokens.stands(grant)

    async def load(self) -> None:
        """Read the tokens. Raises SettingsError."""
        if self._source:
            self.tokens = await asyncio.to_thread(self._source.read)
            # Whoever reloads waits for that line, each time.
            log.info("tokens read", source=str(self._source), tokens=len(self.tokens), **OWN_EVENT)

    async def reload(self) -> None:
        """Read the tokens anew, and let those who lost theirs know; a faulty file changes nothing."""
        try:
            await self.load()
        except SettingsError as error:
            log.error("tokens not read: those read before hold on", reason=str(error), **OWN_EVENT)
            return
        for revoked, grant in self._inside.items():
            if not self.stands(grant):
                revoked.set()

    def end(self, grant: Grant) -> None:
        """Let those know who came by this very grant, and no other that equals it."""
        for revoked, inside in self._inside.items():
            if inside is grant:
                revoked.set()

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A middleware that finds the request's grant. Raises TokenMissing, TokenUnknown, NotGranted or ManyTokens."""
        resource = request.match_info.route.resource
        if resource is None:  # no such path, or none for this method
            return await handler(request)
        roles = ACCESS[resource.canonical]
        grant = self._find(request)
        if roles:
            if grant is None:
                raise _no_grant(request)
            _check_roles(grant, roles)
            _check_stream(grant, request)
        if grant is None:
            return await handler(request)
        request[GRANT], request[REVOKED] = grant, asyncio.Event()
        self._inside[request[REVOKED]] = grant
        try:
            return await handler(request)
        finally:
            del self._inside[request[REVOKED]]

    def _find(self, request: web.Request) -> Grant | None:
        if self._source is None:
            return EVERYBODY
        token = _bearer_token(request)
        grant = self.cookie_grant(request) if token is None else self.tokens.grant(token)
        if grant is not None:
            self._on_token(request)
        return grant


def addressed_stream(request: web.Request) -> str | None:
    """The stream that the address of a camera's connection names; None: none. Raises HTTPBadRequest where others
    may read another one."""
    if request.path != FEATURES:
        return None
    # What balances connections over detectors has to read the name that this end reads: some part parameters at
    # semicolons too, take another one of several, or undo no escapes.
    parts = request.rel_url.raw_query_string.split("&")
    names = request.query.getall(STREAM_PARAMETER, [])
    if len(names) > 1 or any(";" in part for part in parts):
        raise web.HTTPBadRequest(text=f"{STREAM_PARAMETER} may stand once in the address, and no semicolon")
    if names and f"{STREAM_PARAMETER}={names[0]}" not in parts:
        raise web.HTTPBadRequest(text=f"{STREAM_PARAMETER} in the address takes no escapes")
    return names[0] if names else None


async def until_revoked(request: web.Request) -> None:
    """Wait until the request's token grants no longer what it did. Raises SessionError then."""
    await request[REVOKED].wait()
    raise SessionError(CloseCode.TOKEN_REVOKED, "the token was revoked, or grants something else now")


def _bearer_token(request: web.Request) -> str | None:
    """The token that came with the request; None: none. Raises ManyTokens."""
    credentials = request.headers.getall("Authorization", [""])
    if len(credentials) > 1:
        raise ManyTokens(text="more than one Authorization header: send one token")
    scheme, _, token = credentials[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _no_grant(request: web.Request) -> web.HTTPUnauthorized:
    headers = {"WWW-Authenticate": 'Bearer realm="splitcast"'}  # RFC 6750, section 3
    if _bearer_token(request) is None:
        return TokenMissing(
            text="this detector asks for a token: send it as Authorization: Bearer (splitcast: --token-file)",
            headers=headers,
        )
    headers["WWW-Authenticate"] += ', error="invalid_token"'
    return TokenUnknown(text="no such token; it may have been revoked", headers=headers)


def _check_roles(grant: Grant, roles: frozenset[Role]) -> None:
    if not roles & grant.roles:
        raise NotGranted(text=f"the token {grant.owner!r} lacks the role {' or '.join(sorted(roles))}")


def _check_stream(grant: Grant, request: web.Request) -> None:
    """Whether the token may read the stream that the address names, or send it. Raises NotGranted, HTTPBadRequest."""
    read, sent = request.match_info.get("name"), addressed_stream(request)
    if (read is not None and not grant.may_stream(read)) or (sent is not None and not grant.may_send(sent)):
        raise NotGranted(text=f"the token {grant.owner!r} does not grant this stream")
