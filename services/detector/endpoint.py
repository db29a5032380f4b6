"""`WS /v1/features`: one camera's session, from its first word to its close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import structlog
from aiohttp import web

from services.access.tokens import Grant
from services.detector.admission import Admission, NoPlace, Seat
from services.detector.connection import CameraConnection
from services.detector.gate import GRANT, addressed_stream, until_revoked
from services.detector.handshake import Handshake
from services.detector.inference import Inference
from services.detector.memory import MemoryBudget
from services.detector.metrics import NOT_READY
from services.detector.names import Names
from services.detector.publisher import Publisher
from services.detector.quota import largest_message_bytes
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Ending, Streams
from services.detector.visit import Visit
from services.metrics import WireMeter
from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import PERMANENT, CloseCode
from stream.session.detector import DetectorSession
from stream.session.messages import FEATURES_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.websocket import VIOLATIONS, Link, ServerWebSocket, WireBytes

log = structlog.get_logger(__name__)

# When a camera should come back that is closed with this code.
RETRY_AFTER_S = {CloseCode.TRY_AGAIN_LATER: 0.5, CloseCode.GOING_AWAY: 1.0}
GOODBYES = (CloseCode.NORMAL, CloseCode.GOING_AWAY)  # of a camera that ends


class FeaturesEndpoint:
    """Answers `WS /v1/features`: the handshake, then the connection, then why it was closed."""

    def __init__(
        self,
        settings: DetectorSettings,
        handshake: Handshake,
        streams: Streams,
        *,
        admission: Admission,
        inference: Inference,
        memory: MemoryBudget,
        publisher: Publisher,
        statistics: DetectorStatistics,
        stopping: asyncio.Event,
        overdue: asyncio.Event,
        stands: Callable[[Grant], bool],
    ) -> None:
        self._settings, self._handshake, self._streams = settings, handshake, streams
        self._admission = admission
        self._inference, self._memory = inference, memory
        self._publisher, self._statistics = publisher, statistics
        self._stopping, self._overdue = stopping, overdue
        self._names = Names(settings.max_streams, settings.reserve_s, stands)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one camera until it leaves or the detector stops."""
        ws = ServerWebSocket(FEATURES_PROTOCOL, largest_message_bytes(self._settings, request[GRANT].quota))
        visit = Visit(
            self._names,
            self._streams,
            self._publisher,
            self._statistics,
            request[GRANT],
            addressed=addressed_stream(request),
        )
        with self._admission.camera(request, lambda: not visit.has_name) as seat:
            if await ws.open(request) and seat:
                seat.settle()
                await self._visit(ws, request, visit, seat)
        return ws

    async def _visit(self, ws: ServerWebSocket, request: web.Request, visit: Visit, seat: Seat) -> None:
        link = Link(ws, seat.wire)
        meter = WireMeter(self._statistics.metrics, seat.wire, WireBytes())
        session = DetectorSession(self._settings.window)
        try:
            _check_protocol(ws)
            seat.check()
            await run_with_background(
                self._serve(link, session, visit, meter, request),
                self._watch(link, visit),
                visit.until_replaced(),
                visit.until_crowded(),
                self._until_overdue(),
                seat.until_evicted(),
                until_revoked(request),
            )
            raise SessionError(CloseCode.GOING_AWAY, "detector stops")
        except SessionError as error:
            await self._close(link, session, visit, error)
        except ConnectionLost as lost:
            self._lose(link, session, visit, lost)
        except Exception:  # a defect of ours costs this connection and no other
            log.exception("session failed", stream=session.stream)
            await self._close(
                link, session, visit, SessionError(CloseCode.INTERNAL_ERROR, "internal error of the detector")
            )
        finally:
            visit.leave("cut off", "lost", reserve=True)
            self._memory.release(session)
            meter.update()

    async def _serve(
        self, link: Link, session: DetectorSession, visit: Visit, meter: WireMeter, request: web.Request
    ) -> None:
        camera = await self._handshake.admit(link, session, visit, request[GRANT].quota)
        self._statistics.accept()
        self._admission.know(request)
        log.info(
            "handshake",
            stream=camera.stream.name,
            reason="welcome",
            split=camera.hello.split,
            canvas=camera.hello.canvas,
            codec=camera.hello.codec,
            connection=camera.stream.status.connection,
        )
        meter.total = camera.stream.wire
        connection = CameraConnection(
            link,
            camera,
            visit,
            meter,
            inference=self._inference,
            publisher=self._publisher,
            statistics=self._statistics,
            stopping=self._stopping,
            settings=self._settings,
        )
        await connection.run()

    async def _watch(self, link: Link, visit: Visit) -> None:
        """Tell the stream how long nothing has come, and leave a camera that is dead."""
        async for silence_s in link.watch():
            visit.hear(silence_s)

    async def _until_overdue(self) -> None:
        """End what a stop can wait for no longer."""
        await self._overdue.wait()
        raise SessionError(CloseCode.GOING_AWAY, "detector stops")

    # --- how it ends ---

    async def _close(self, link: Link, session: DetectorSession, visit: Visit, error: SessionError) -> None:
        """Say why, and when to come back."""
        self._statistics.close(error.code)
        ending: Ending = "silent" if error.code is CloseCode.TIMEOUT else "closed"
        # A name is kept for a camera that may come again, unless it would be refused as before.
        visit.leave(error.reason, ending, reserve=error.code not in PERMANENT)
        self._log_end(session, visit, error.reason, error.code)
        if not visit.welcomed:
            self._statistics.refuse(_refusal(error))
        with suppress(ConnectionLost):
            for text in session.retry(RETRY_AFTER_S[error.code]) if error.code in RETRY_AFTER_S else []:
                await link.send(text)
        await link.close(error.code, error.reason)

    def _lose(self, link: Link, session: DetectorSession, visit: Visit, lost: ConnectionLost) -> None:
        """The camera has closed, or is gone, or sent what is no WebSocket, for which it was closed."""
        if lost.code in VIOLATIONS:
            self._statistics.close(CloseCode(lost.code))
            if not visit.welcomed:
                self._statistics.refuse(CloseCode(lost.code).name.lower())
        ended = lost.code in GOODBYES
        reason = "the source has ended" if lost.code == CloseCode.NORMAL else lost.reason
        visit.leave(reason, "ended" if ended else "lost", reserve=not ended)
        self._log_end(session, visit, reason, lost.code)
        link.abort()

    def _log_end(self, session: DetectorSession, visit: Visit, reason: str, code: int) -> None:
        """One line an end: of a session, or of a camera that was refused or left before its hello."""
        quiet = self._stopping.is_set() or code in GOODBYES
        refused = "camera left" if code in GOODBYES else "handshake refused"
        event = "session ended" if visit.welcomed else refused
        log.log(
            logging.INFO if quiet else logging.WARNING,
            event,
            stream=session.stream,
            reason=reason,
            code=int(code),
        )


def _check_protocol(ws: web.WebSocketResponse) -> None:
    if ws.ws_protocol != FEATURES_PROTOCOL:
        raise SessionError(CloseCode.BAD_SUBPROTOCOL, f"subprotocol must be {FEATURES_PROTOCOL}")


def _refusal(error: SessionError) -> str:
    """The reason of a refusal as metrics have it."""
    if isinstance(error, NoPlace):
        return error.refusal
    return NOT_READY if error.code is CloseCode.TRY_AGAIN_LATER else error.code.name.lower()
