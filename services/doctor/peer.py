"""What answers at the detector's address over plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from services.certificates import client_tls
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.settings import ClientSettings
from stream.errors import ConnectionLost, TlsFailed
from stream.redact import redact_url
from stream.transport.websocket import client_context, why_not_connected

ANSWER_S = 5.0  # that a detector may take for an answer
_MOST_BYTES = 4096  # of an answer that are read
_READINESS = {"ready": 200, "starting": 503, "stopping": 503}
_WHERE = "name the detector's address with --detector: its port is 8765 unless set"
_PROXY_STATUSES = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """A short answer, or the beginning of a long one."""

    status: int
    text: str
    date: str  # the header; empty where there is none


class HttpPeer:
    """A detector, asked for what needs no token. Requests go over one connection as long as it keeps."""

    def __init__(self, session: aiohttp.ClientSession, address: str, **how: Any) -> None:
        self._session, self._address, self._how = session, address, how

    async def get(self, path: str) -> Answer:
        """What it answers. Raises ConnectionLost, of which TlsFailed."""
        url = f"{self._address}{path}"
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._session.get(url, allow_redirects=False, **self._how) as response,
            ):
                text = (await response.content.read(_MOST_BYTES)).decode(errors="replace")
                return Answer(response.status, text, response.headers.get("Date", ""))
        except TimeoutError:
            raise ConnectionLost(f"nothing came within {ANSWER_S:g} s", answered=False) from None
        except (OSError, aiohttp.ClientError) as error:
            raise why_not_connected(error, self._address) from None


@asynccontextmanager
async def http_peer(detector: str, settings: ClientSettings) -> AsyncIterator[HttpPeer]:
    """The detector at a ws:// or wss:// address, known by the settings. Raises TlsFailed where a file is wrong."""
    tls = client_tls(settings)
    context = await client_context(detector, tls)
    pinned = aiohttp.Fingerprint(tls.pinned) if tls.pinned else True
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pinned)) as session:
        yield HttpPeer(session, f"http{detector.removeprefix('ws')}", ssl=context)


async def look_at_detector(detector: str, settings: ClientSettings) -> Finding:
    """Whether a detector answers there, and is ready. Raises TlsFailed, which says what to do."""
    shown = redact_url(detector)
    try:
        async with http_peer(detector, settings) as peer:
            live, ready = await peer.get("/livez"), await peer.get("/readyz")
    except TlsFailed:
        raise
    except ConnectionLost as lost:
        return wrong(redact_url(lost.reason), f"start the detector, let firewalls pass it, or {_WHERE}")
    state = ready.text.strip()
    if live.status == 200 and _READINESS.get(state) == ready.status:
        if state == "ready":
            return fine(f"{shown} is ready", state=state)
        return doubtful(f"{shown} is {state}", "wait until it is ready, and look again", state=state)
    if live.status in _PROXY_STATUSES:
        return wrong(
            f"a proxy answers at {shown}, and no detector behind it (HTTP {live.status})",
            "start the detector, or look at the proxy's settings",
            status=live.status,
        )
    told = ready.text.partition("\n")[0][:80] if live.status == 200 else live.text.partition("\n")[0][:80]
    return wrong(
        f"what answers at {shown} is no detector (HTTP {live.status} for /livez, {ready.status} for /readyz: {told!r})",
        _WHERE,
        status=live.status,
    )
