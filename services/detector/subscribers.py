"""Consumers of detections over WebSocket, none of whom can slow the detector."""

from __future__ import annotations

from aiohttp import web

from services.detector.settings import DetectorSettings
from services.detector.web import websocket_response
from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.broadcast import Broadcast

MAX_MESSAGE_BYTES = 4096  # a subscriber has nothing to say


class Subscribers:
    """Answers `WS /v1/detections` and `WS /v1/streams/{name}/detections` with what is broadcast."""

    def __init__(self, settings: DetectorSettings, broadcast: Broadcast) -> None:
        self._settings, self._broadcast = settings, broadcast

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Send one consumer what is published until it leaves, or until the broadcast is closed."""
        ws = websocket_response(DETECTIONS_PROTOCOL, MAX_MESSAGE_BYTES, self._settings.heartbeat_s)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the peer has left
            return ws
        if len(self._broadcast) >= self._settings.max_subscribers:
            await ws.close(code=CloseCode.TRY_AGAIN_LATER, message=b"too many subscribers")
            return ws
        try:
            await run_with_background(self._send(ws, request.match_info.get("name")), _wait_for_close(ws))
            await ws.close(code=CloseCode.GOING_AWAY, message=b"detector stops")
        except (ConnectionLost, ConnectionError):
            pass
        return ws

    async def _send(self, ws: web.WebSocketResponse, stream: str | None) -> None:
        with self._broadcast.subscribe(stream) as subscription:
            async for text in subscription:
                await ws.send_str(text)


async def _wait_for_close(ws: web.WebSocketResponse) -> None:
    """Read, and ignore, what the consumer says. Raises ConnectionLost when it has left."""
    async for _ in ws:
        pass
    raise ConnectionLost("subscriber left")
