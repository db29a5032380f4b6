"""Consumers of detections over WebSocket, none of whom can slow the detector."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aiohttp import web

from services.access.tokens import Grant
from services.detections_json import message_kinds, with_drops
from services.detector.admission import Admission, NoPlace, Seat
from services.detector.gate import GRANT, until_revoked
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.stream_json import stream_text
from services.detector.streams import Streams
from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import CloseCode, close_reason
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.broadcast import Broadcast
from stream.transport.consumers import MAX_MESSAGE_BYTES, until_consumer_leaves
from stream.transport.websocket import ServerWebSocket

log = structlog.get_logger(__name__)


class Subscribers:
    """Answers `WS /v1/detections` and `WS /v1/streams/{name}/detections` with what is broadcast."""

    def __init__(
        self,
        settings: DetectorSettings,
        broadcast: Broadcast,
        streams: Streams,
        *,
        admission: Admission,
        statistics: DetectorStatistics,
        overdue: asyncio.Event,
    ) -> None:
        self._settings, self._broadcast, self._streams = settings, broadcast, streams
        self._admission, self._statistics, self._overdue = admission, statistics, overdue

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Send one consumer what is published until it leaves, or until the broadcast is closed."""
        kinds = message_kinds(request.query.getall("types", []))
        ws = ServerWebSocket(DETECTIONS_PROTOCOL, MAX_MESSAGE_BYTES, self._settings.heartbeat_s)
        with self._admission.consumer(request) as seat:
            if await ws.open(request) and seat:
                seat.settle()
                await self._serve(ws, request, kinds, seat)
        return ws

    async def _serve(
        self, ws: ServerWebSocket, request: web.Request, kinds: frozenset[str], seat: Seat
    ) -> None:
        code, reason = CloseCode.GOING_AWAY, b"detector stops"
        with suppress(ConnectionLost, ConnectionError):
            try:
                seat.check()
                await run_with_background(
                    self._send(ws, request.match_info.get("name"), kinds, request[GRANT]),
                    until_consumer_leaves(ws),
                    _until(self._overdue),
                    seat.until_evicted(),
                    until_revoked(request),
                )
            except _Overdue:
                pass
            except NoPlace as error:
                code, reason = error.code, close_reason(error.reason)
                self._admission.refuse(error.refusal, request.remote or "")
            except SessionError as error:
                code, reason = error.code, close_reason(error.reason)
                self._statistics.close_subscriber(error.code)
                log.warning(
                    "consumer closed", reason=error.code.name.lower(), code=int(code), peer=request.remote
                )
            await ws.close(code=code, message=reason)

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
