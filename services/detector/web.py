"""What a detector answers to plain HTTP: the live page, streams as JSON, previews and probes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import PurePath
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.access.tokens import EVERYBODY
from services.detector.gate import GRANT
from services.detector.streams import Stream, Streams

Readiness: TypeAlias = Literal["starting", "ready", "stopping"]

INDEX = "index.html"
FAVICON = "favicon.svg"
MARK = b"<!-- mark -->"  # in both pages, where what draws it is put in: a file of its own would not have their colors
MARK_FILE = "mark.svg"
VISITOR = b"<!-- visitor -->"  # in the index, where a visitor who has logged in finds the way out
_LOGOUT = (
    '<form class="visitor" method="post" action="logout"><span>{owner}</span><button>Log out</button></form>'
)

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE_HEADERS = _SAFE_HEADERS | {
    # Names of streams and classes come from peers: the page runs no script but its own file.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",  # an updated detector brings its own page
}
# Of a page with a form: it goes to this detector alone, which tells by its Origin that it comes from here.
FORM_HEADERS = _PAGE_HEADERS | {
    "Content-Security-Policy": _PAGE_HEADERS["Content-Security-Policy"].replace(
        "form-action 'none'", "form-action 'self'"
    ),
    "Referrer-Policy": "same-origin",  # under no-referrer the Origin would be null
    "Cache-Control": "no-store",
    "Content-Type": _CONTENT_TYPES[".html"],
}
_LIVE_HEADERS = _SAFE_HEADERS | {"Cache-Control": "no-store"}
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_LOCAL_SUFFIXES = (".localhost", ".local", ".lan", ".home.arpa", ".internal")  # which no registry sells
_MAX_HOST = 255
# Pictures of a camera are nobody's to show on a site of their own.
_PICTURE_HEADERS = _LIVE_HEADERS | {"Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the live page."""

    body: bytes
    content_type: str

    def response(self) -> web.Response:
        return web.Response(body=self.body, headers=_PAGE_HEADERS | {"Content-Type": self.content_type})


def load_page(folder: Traversable | None = None) -> Mapping[str, Asset]:
    """The live page's files by name, from the package or from `folder`; files of other kinds are left out.

    Raises FileNotFoundError where there is no page.
    """
    folder = folder or files("services.detector") / "page"
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"the live page is missing: no {INDEX} in {folder}; this installation is not whole, install it again"
        )
    bodies = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    mark = bodies.pop(MARK_FILE, b"")
    return {
        name: Asset(body.replace(MARK, mark), content_type)
        for name, body in bodies.items()
        if (content_type := _CONTENT_TYPES.get(PurePath(name).suffix))
    }


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that says what is wrong with a request as {"error": "..."}."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        reason = (error.text or "").removeprefix(f"{error.status}: ")
        headers = {
            name: error.headers[name] for name in ("Allow", "WWW-Authenticate") if name in error.headers
        }
        return web.json_response({"error": reason}, status=error.status, headers=_LIVE_HEADERS | headers)


def foreign_pages_refused(allowed: str, listen_host: str = "") -> Middleware:
    """A middleware that keeps pages of other sites, open in a browser here, from reading this detector.

    A page may open a WebSocket to any address: where the browser sends its origin, that has to be this server's own.
    And a page's own name may be made to lead here (DNS rebinding), which is then its own origin: so a browser must
    have asked by a name that nobody can have registered to that end, or that is `listen_host`, the address that the
    detector was told to listen on, or in `allowed`, which lists origins, such as https://dash.example, separated by
    commas; * stands for all.

    Over HTTP nothing marks a browser, so names count for all clients; but a WebSocket without Origin is no browser's,
    and probes answer nothing that is worth stealing.
    """
    origins = {origin.strip().rstrip("/").lower() for origin in allowed.split(",")}
    names = {_name(urlsplit(origin).netloc) for origin in origins} | {
        socket.gethostname().lower(),
        listen_host.lower(),
    }

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host, origin = request.headers.get("Host", "").lower(), request.headers.get("Origin", "").lower()
        if "Upgrade" in request.headers:
            browser = bool(origin)
            if browser and origin.partition("://")[2] != host and not origins & {origin, "*"}:
                raise web.HTTPForbidden(text="a page of another site; see --allow-origin")
            passed = not browser or origin in origins
        else:
            passed = request.path in PROBES
        if not (passed or "*" in origins or _is_private(_name(host)) or _name(host) in names):
            raise web.HTTPForbidden(
                text=f"asked as {host[:_MAX_HOST]}, a name that this detector does not know; "
                f"if it is the detector's own, start it with --allow-origin http://{host[:_MAX_HOST]}"
            )
        return await handler(request)

    return check


def _name(host: str) -> str:
    """The host in what a Host header says, without port, brackets and the dot that may end it."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return host


def _is_private(name: str) -> bool:
    """Whether nobody can have registered the name: an address, a name in a local network, or none."""
    try:
        ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_LOCAL_SUFFIXES)
    return True


class Web:
    """Handlers that read what the detector knows and change nothing."""

    def __init__(
        self,
        page: Mapping[str, Asset],
        streams: Streams,
        readiness: Callable[[], Readiness],
        model: str | None,
    ) -> None:
        self._page, self._streams, self._readiness = page, streams, readiness
        self._model = model  # by which a camera may ask for the same network; None where it is a file

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Let the router know every path that is answered here."""
        router.add_get("/", self._index)
        router.add_get("/live/{file}", self._asset)
        router.add_get("/favicon.ico", self._favicon)
        router.add_get("/v1/streams", self._list)
        router.add_get("/v1/streams/{name}", self._detail)
        router.add_get("/v1/streams/{name}/preview.jpg", self._preview)
        router.add_get("/livez", self._livez)
        router.add_get("/readyz", self._readyz)

    async def _index(self, request: web.Request) -> web.Response:
        """The page, to who may see it; others are led to the form."""
        grant = request.get(GRANT)
        if grant is EVERYBODY:
            return self._page[INDEX].response()
        if grant is None or not grant.may("page"):
            return web.Response(status=303, headers={**FORM_HEADERS, "Location": "login"})
        logout = _LOGOUT.format(owner=escape(grant.owner)).encode()
        return web.Response(
            body=self._page[INDEX].body.replace(VISITOR, logout),
            headers=FORM_HEADERS,
        )

    async def _asset(self, request: web.Request) -> web.Response:
        asset = self._page.get(request.match_info["file"])
        if asset is None:
            raise web.HTTPNotFound(text="no such file")
        return asset.response()

    async def _favicon(self, _request: web.Request) -> web.Response:
        """Browsers ask for this one unbidden."""
        asset = self._page.get(FAVICON)
        return asset.response() if asset else web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        streams = self._streams.describe(time.monotonic_ns(), request[GRANT].may_stream)
        return _json({"model": self._model, "streams": streams})

    async def _detail(self, request: web.Request) -> web.Response:
        stream = self._find(request)
        return _json({**stream.describe(time.monotonic_ns()), "history": stream.history.describe()})

    async def _preview(self, request: web.Request) -> web.Response:
        stream = self._find(request)
        if stream.preview is None:
            raise web.HTTPNotFound(text="this stream has no preview; cameras send one with --preview")
        return web.Response(body=stream.preview, content_type="image/jpeg", headers=_PICTURE_HEADERS)

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        readiness = self._readiness()
        return web.Response(text=f"{readiness}\n", status=200 if readiness == "ready" else 503)

    def _find(self, request: web.Request) -> Stream:
        stream = self._streams.get(request.match_info["name"])
        if stream is None:
            raise web.HTTPNotFound(text="no such stream")
        return stream


def _json(facts: Mapping[str, object]) -> web.Response:
    """JSON, compressed where the client takes it: a page asks every second, perhaps over a thin link."""
    response = web.json_response(facts, headers=_LIVE_HEADERS)
    response.enable_compression()
    return response
