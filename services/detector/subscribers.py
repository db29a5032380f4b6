"""Consumers of detections over WebSocket, none of whom can slow the detector."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from services.access.tokens import Grant
from services.detector.gate import GRANT, until_revoked
from services.detector.metrics import TOO_MANY_SUBSCRIBERS
from services.detector.publisher import KINDS
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.stream_json import stream_text, with_drops
from services.detector.streams import Streams
from services.detector.web import websocket_response
from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import CloseCode, close_reason
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.broadcast import Broadcast

MAX_MESSAGE_BYTES = 4096  # a subscriber has nothing to say


class Subscribers:
    """Answers `WS /v1/detections` and `WS /v1/streams/{name}/detections` with what is broadcast."""

    def __init__(
        self,
        settings: DetectorSettings,
        broadcast: Broadcast,
        streams: Streams,
        statistics: DetectorStatistics,
        overdue: asyncio.Event,
    ) -> None:
        self._settings, self._broadcast, self._streams = settings, broadcast, streams
        self._statistics, self._overdue = statistics, overdue

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Send one consumer what is published until it leaves, or until the broadcast is closed."""
        kinds = _kinds(request.query.getall("types", []))
        ws = websocket_response(DETECTIONS_PROTOCOL, MAX_MESSAGE_BYTES, self._settings.heartbeat_s)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the peer has left
            return ws
        if len(self._broadcast) >= self._settings.max_subscribers:
            self._statistics.refuse(TOO_MANY_SUBSCRIBERS)
            await ws.close(code=CloseCode.TRY_AGAIN_LATER, message=b"too many subscribers")
            return ws
        code, reason = CloseCode.GOING_AWAY, b"detector stops"
        with suppress(ConnectionLost, ConnectionError):
            try:
                await run_with_background(
                    self._send(ws, request.match_info.get("name"), kinds, request[GRANT]),
                    _wait_for_close(ws),
                    _until(self._overdue),
                    until_revoked(request),
                )
            except _Overdue:
                pass
            except SessionError as error:
                code, reason = error.code, close_reason(error.reason)
            await ws.close(code=code, message=reason)
        return ws

    async def _send(
        self, ws: web.WebSocketResponse, name: str | None, kinds: frozenset[str], grant: Grant
    ) -> None:
        """Where every stream stands that is granted, and then what is published of them."""

        def wants(stream: str) -> bool:
            return name in (None, stream) and grant.may_stream(stream)

        with self._broadcast.subscribe(wants, kinds) as subscription:
            streams = [stream for stream in self._streams if "stream" in kinds and wants(stream.name)]
            for text in [stream_text(stream) for stream in streams]:
                await ws.send_str(text)
            async for text, dropped in subscription:
                await ws.send_str(with_drops(text, dropped))


class _Overdue(Exception):
    """A stop can wait no longer for a consumer that reads slowly."""


async def _until(overdue: asyncio.Event) -> None:
    await overdue.wait()
    raise _Overdue


async def _wait_for_close(ws: web.WebSocketResponse) -> None:
    """Read, and ignore, what the consumer says. Raises ConnectionLost when it has left."""
    async for _ in ws:
        pass
    raise ConnectionLost("subscriber left")


def _kinds(types: list[str]) -> frozenset[str]:
    """The kinds of messages that are asked for; all, where none is named. Raises HTTPBadRequest."""
    if not types:
        return KINDS
    kinds = frozenset(",".join(types).split(","))
    if unknown := kinds - KINDS:
        raise web.HTTPBadRequest(
            text=f"types={min(unknown)[:64]!r}: choose of {', '.join(sorted(KINDS))}, with commas"
        )
    return kinds
