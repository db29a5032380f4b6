"""Detections of the camera itself: kept, and told to whoever listens, as a detector tells its own."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Literal, TypeAlias

import structlog
from aiohttp import web

from services.camera.kept_detections import KeptDetections
from services.camera.settings import LocalFallback
from services.camera.statistics import CameraStatistics
from services.detections_json import DetectionMessage, message_kinds, with_drops
from stream.errors import ConnectionLost, SessionError
from stream.redact import redact_url
from stream.session.close_codes import CloseCode, close_reason
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.broadcast import Broadcast
from stream.transport.consumers import MAX_MESSAGE_BYTES, until_consumer_leaves
from stream.transport.websocket import ServerWebSocket

log = structlog.get_logger(__name__)

MAX_CONSUMERS = 16
HEARTBEAT_S = 10.0
HERE = "without a detector: detected on the camera"
THERE = "detected by its detector, or not at all"
MOST_REASON = 256  # characters

LocalState: TypeAlias = Literal["waiting", "connected", "ended"]
"""Where the stream stands with the camera itself.

waiting: there is no detector, and the camera does not detect yet. connected: it detects. ended: the detector does, or
the camera stops.
"""


class LocalDetections:
    """One stream's detections, as long as its camera makes them itself."""

    def __init__(self, stream: str, fallback: LocalFallback, statistics: CameraStatistics) -> None:
        self.broadcast = Broadcast()
        self.kept = KeptDetections(fallback.keep, round(fallback.keep_mib * 2**20))
        self._stream, self._statistics = stream, statistics
        self._state: LocalState = "waiting"
        self._reason, self._since_s = "no detector yet", time.time()
        self._consumers = 0  # also those that are being let in
        statistics.metrics.fallback_kept.set_function(lambda: len(self.kept))

    def publish(self, message: DetectionMessage) -> None:
        """Keep a frame's detections, and tell them. Never waits."""
        self._change("connected", HERE)
        text = message.text()
        self.kept.add(message.captured_unix_ns / 1e9, text)
        self.broadcast.publish(self._stream, "detections", text)

    def wait(self, reason: str, after_s: float) -> None:
        """There is no detector, for that reason; nothing changes where the camera detects, as it does after so long."""
        if self._state != "connected":
            reason = redact_url(reason)[:MOST_REASON]
            self._change(
                "waiting", f"no detector: {reason}; the camera detects after {after_s:g} s without one"
            )

    def rest(self) -> None:
        """The detector has the stream again, or the camera stops."""
        self._change("ended", THERE)

    def close(self) -> None:
        """Let every consumer know that the camera stops."""
        self.rest()
        self.broadcast.close()

    def routes(self) -> list[web.RouteDef]:
        """What is answered over HTTP."""
        return [
            web.get("/v1/detections", self._handle),
            web.get("/v1/streams/{name}/detections", self._handle),
        ]

    def _change(self, state: LocalState, reason: str) -> None:
        if (state, reason) == (self._state, self._reason):
            return
        if state != self._state:
            self._since_s = time.time()
        before, self._state, self._reason = self._state, state, reason
        detects = "connected" in (before, state)
        if detects:
            self._statistics.metrics.fallback_active.set(state == "connected")
            log.info("detected on the camera" if state == "connected" else "no more detected on the camera")
        # A broker has the stream's state from its detector until the camera detects, and knows when that is gone.
        self.broadcast.publish(self._stream, "stream", self._state_text(), to_sinks=detects)

    def _state_text(self) -> str:
        return json.dumps(
            {
                "type": "stream",
                "stream": self._stream,
                "path": "local",
                "state": self._state,
                "reason": self._reason,
                "at": self._since_s,
                "connection": self._statistics.welcomes,
                "frame": self._statistics.frame_counts.done,
            },
            separators=(",", ":"),
        )

    async def _handle(self, request: web.Request) -> web.WebSocketResponse:
        """Send one consumer what is kept, if it asks for that, and what is published until it leaves."""
        if "Origin" in request.headers:  # a browser's, which no page here has sent
            raise web.HTTPForbidden(text="a page of another site")
        if request.match_info.get("name") not in (None, self._stream):
            raise web.HTTPNotFound(text="no such stream")
        kinds, since_s = message_kinds(request.query.getall("types", [])), _since_s(request)
        if self._consumers >= MAX_CONSUMERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_CONSUMERS} consumers are here already")
        self._consumers += 1
        try:
            return await self._serve(request, kinds, since_s)
        finally:
            self._consumers -= 1

    async def _serve(
        self, request: web.Request, kinds: frozenset[str], since_s: float
    ) -> web.WebSocketResponse:
        ws = ServerWebSocket(DETECTIONS_PROTOCOL, MAX_MESSAGE_BYTES, HEARTBEAT_S)
        if await ws.open(request):
            code, reason = CloseCode.GOING_AWAY, b"camera stops"
            with suppress(ConnectionLost, ConnectionError):
                try:
                    await run_with_background(self._send(ws, kinds, since_s), until_consumer_leaves(ws))
                except SessionError as error:
                    code, reason = error.code, close_reason(error.reason)
                    log.warning("consumer closed", reason=error.code.name.lower(), peer=request.remote)
                await ws.close(code=code, message=reason)
        return ws

    async def _send(self, ws: ServerWebSocket, kinds: frozenset[str], since_s: float) -> None:
        with self.broadcast.subscribe(kinds=kinds) as subscription:
            kept = self.kept.since(since_s) if "detections" in kinds else []
            if "stream" in kinds:
                await ws.send_str(self._state_text())
            for text in kept:
                await ws.send_str(text)
            async for text, dropped in subscription:
                await ws.send_str(with_drops(text, dropped))


def _since_s(request: web.Request) -> float:
    """Unix time after which kept messages are wanted; infinity: none. Raises HTTPBadRequest."""
    given = request.query.get("since")
    if given is None:
        return math.inf
    with suppress(ValueError):
        if not math.isnan(since_s := float(given)):
            return since_s
    raise web.HTTPBadRequest(text=f"since={given[:64]!r}: write a Unix time in seconds")
