"""One camera's connection: receive → decode → infer → publish → answer."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import structlog
from aiohttp import web

from codec.errors import BitstreamError, MissingReference, ReferenceMismatch
from codec.interface import DecodedFrame, Decoder
from services.detector.detections_json import DetectionMessage
from services.detector.handshake import MIB, AdmittedCamera, Handshake
from services.detector.inference import Inference
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.metrics import WireMeter
from stream.detections import Detections
from stream.errors import ConnectionLost, SessionError
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, Preview, RejectReason, Report
from stream.tasks.background import run_with_background
from stream.tasks.worker import Worker
from stream.transport.broadcast import Broadcast
from stream.transport.websocket import VIOLATIONS, Link, ServerWebSocket, WireBytes

log = structlog.get_logger(__name__)

SILENCE_S = 10.0  # after which a camera that says nothing, not even a ping, is left
EXTRA_SESSIONS = 16  # cameras that say hello beside those that stream


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedPacket:
    """A packet, and the clock that runs since it came."""

    data: bytes
    clock: StageClock


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPacket:
    """A packet's tensors, or why there are none."""

    outcome: DecodedFrame | Exception
    clock: StageClock


class CameraConnection:
    """Serves one camera from the welcome on. While one frame is inferred the next is decoded and others may arrive."""

    def __init__(
        self,
        link: Link,
        camera: AdmittedCamera,
        meter: WireMeter,
        *,
        inference: Inference,
        broadcast: Broadcast,
        statistics: DetectorStatistics,
        stopping: asyncio.Event,
    ) -> None:
        self._link, self._meter, self._stopping = link, meter, stopping
        self._session, self._stream, self._decoder = camera.session, camera.stream, camera.decoder
        self._inference, self._broadcast, self._statistics = inference, broadcast, statistics
        self._worker = Worker(f"decode-{camera.stream.name}")  # owns the decoder's reference frame
        # Bounded by the session's window; None ends it, as it does the other one.
        self._received: asyncio.Queue[ReceivedPacket | None] = asyncio.Queue()
        # One frame is decoded while the tail works; more would only hold memory.
        self._decoded: asyncio.Queue[DecodedPacket | None] = asyncio.Queue(maxsize=1)

    async def run(self) -> None:
        """Answer every packet, until the detector stops. Raises SessionError or ConnectionLost."""
        try:
            await run_with_background(self._infer(), self._receive(), self._decode())
        finally:
            self._worker.close()

    # --- receive ---

    async def _receive(self) -> None:
        """Take packets until the detector stops."""
        await run_with_background(self._stopping.wait(), self._read())
        self._received.put_nowait(None)

    async def _read(self) -> None:
        async for data in self._link:
            if isinstance(data, bytes):
                self._on_packet(data)
            else:
                self._on_text(data)

    def _on_packet(self, packet: bytes) -> None:
        self._session.receive_packet(len(packet))
        now_ns = time.monotonic_ns()
        self._statistics.receive(self._stream, len(packet), now_ns)
        self._received.put_nowait(ReceivedPacket(packet, StageClock(now_ns)))

    def _on_text(self, text: str) -> None:
        match self._session.receive_text(text):
            case Report() as report:
                self._stream.update_report(report, time.monotonic_ns())
            case Preview(jpeg=jpeg):
                self._session.receive_preview(time.monotonic_ns())
                self._stream.preview = jpeg  # passed on as it is, never decoded here

    # --- decode ---

    async def _decode(self) -> None:
        """Decode ahead of the tail, in order, on the connection's own worker."""
        while packet := await self._received.get():
            outcome: DecodedFrame | Exception
            try:
                outcome = await self._worker.run(_decode_packet, self._decoder, packet)
            except Exception as error:  # the camera gets to know in its turn
                outcome = error
            await self._decoded.put(DecodedPacket(outcome, packet.clock))
        await self._decoded.put(None)

    # --- infer ---

    async def _infer(self) -> None:
        """Detect on what was decoded, and publish and answer it: every packet once, the oldest first."""
        while packet := await self._decoded.get():
            try:
                if isinstance(packet.outcome, Exception):
                    raise packet.outcome
                frame = packet.outcome
                letterbox = Letterbox(self._frame_size(frame), self._stream.hello.canvas)
                detections = await self._inference.detect(
                    self._stream.hello.split, frame.tensors, letterbox, packet.clock
                )
            except Exception as error:  # costs one frame
                await self._reject(error)
            else:
                self._publish(frame, letterbox.frame, detections, packet.clock)
                await self._acknowledge(frame, detections, packet.clock)

    def _frame_size(self, frame: DecodedFrame) -> tuple[int, int]:
        """(H, W) of the original picture; the canvas where the packet does not say."""
        header = frame.header
        if header.frame_height and header.frame_width:
            return header.frame_height, header.frame_width
        return self._stream.hello.canvas

    # --- publish ---

    def _publish(
        self, frame: DecodedFrame, frame_size: tuple[int, int], detections: Detections, clock: StageClock
    ) -> None:
        message = DetectionMessage(
            self._stream.name,
            frame.header,
            frame_size,
            detections,
            self._inference.network.model.names,
            self._stream.hello.clock,
            clock.durations_ns,
            time.time_ns(),
        )
        self._broadcast.publish(self._stream.name, message.text())
        clock.lap("publish", time.monotonic_ns())
        self._statistics.publish(
            self._stream,
            frame_size,
            keyframe=frame.header.keyframe,
            detections=len(detections),
            stages_ns=clock.durations_ns,
            now_ns=time.monotonic_ns(),
        )

    # --- answer ---

    async def _acknowledge(self, frame: DecodedFrame, detections: Detections, clock: StageClock) -> None:
        text = self._session.acknowledge(
            frame.header.sequence, frame.header.captured_ns, len(detections), clock.durations_ns
        )
        await self._link.send(text)
        self._meter.update()

    async def _reject(self, error: Exception) -> None:
        reason = reject_reason(error)
        self._statistics.reject(self._stream, reason)
        log.warning("packet rejected", stream=self._stream.name, reason=reason, detail=str(error))
        need_keyframe = isinstance(error, BitstreamError)
        for text in self._session.reject(reason, str(error), need_keyframe=need_keyframe):
            await self._link.send(text)


def _decode_packet(decoder: Decoder, packet: ReceivedPacket) -> DecodedFrame:
    packet.clock.lap("queue", time.monotonic_ns())
    frame = decoder.decode(packet.data)
    packet.clock.lap("decode", time.monotonic_ns())
    return frame


def reject_reason(error: Exception) -> RejectReason:
    """Why a frame failed, in the decoder or behind it, as the protocol names it."""
    match error:
        case MissingReference():
            return "missing_reference"
        case ReferenceMismatch():
            return "reference_mismatch"
        case BitstreamError():
            return "corrupt"
        case _:
            return "error"


class FeaturesEndpoint:
    """Answers `WS /v1/features`: admits cameras, serves them, and closes every connection with its reason."""

    def __init__(
        self,
        settings: DetectorSettings,
        handshake: Handshake,
        *,
        inference: Inference,
        broadcast: Broadcast,
        statistics: DetectorStatistics,
        stopping: asyncio.Event,
    ) -> None:
        self._settings, self._handshake, self._inference = settings, handshake, inference
        self._broadcast, self._statistics, self._stopping = broadcast, statistics, stopping
        self._open = 0

    async def handle(self, request: web.Request, wire: WireBytes | None) -> web.WebSocketResponse:
        """Serve one camera until it leaves or the detector stops.

        `wire` counts the bytes of its connection; None where it has left already.
        """
        settings = self._settings
        largest_mib = max(settings.max_packet_mib, settings.profiles * settings.max_profile_mib)
        ws = ServerWebSocket(FEATURES_PROTOCOL, largest_mib * MIB)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the peer has left
            return ws
        if wire is None:
            return ws
        link = Link(ws, wire)
        meter = WireMeter(self._statistics.metrics, wire, WireBytes())
        self._open += 1
        try:
            self._check(ws)
            await run_with_background(self._serve(link, meter), _leave_when_silent(link))
            raise SessionError(CloseCode.GOING_AWAY, "detector stops")
        except SessionError as error:
            self._statistics.close(error.code)
            level = logging.INFO if self._stopping.is_set() else logging.WARNING
            log.log(level, "session closed", code=error.code.value, reason=error.reason)
            await link.close(error.code, error.reason)
        except ConnectionLost as lost:
            if lost.code in VIOLATIONS:
                self._statistics.close(CloseCode(lost.code))
            log.info("camera left", reason=lost.reason, code=lost.code)
            link.abort()
        except Exception:  # a defect of ours costs this connection and no other
            self._statistics.close(CloseCode.INTERNAL_ERROR)
            log.exception("session failed")
            await link.close(CloseCode.INTERNAL_ERROR, "internal error of the detector")
        finally:
            self._open -= 1
            meter.update()
        return ws

    def _check(self, ws: web.WebSocketResponse) -> None:
        if ws.ws_protocol != FEATURES_PROTOCOL:
            raise SessionError(CloseCode.BAD_SUBPROTOCOL, f"subprotocol must be {FEATURES_PROTOCOL}")
        if self._open > self._settings.max_streams + EXTRA_SESSIONS:
            raise SessionError(CloseCode.TRY_AGAIN_LATER, "too many connections")

    async def _serve(self, link: Link, meter: WireMeter) -> None:
        async with self._handshake.admit(link) as camera:
            self._statistics.accept()
            meter.total = camera.stream.wire
            connection = CameraConnection(
                link,
                camera,
                meter,
                inference=self._inference,
                broadcast=self._broadcast,
                statistics=self._statistics,
                stopping=self._stopping,
            )
            await connection.run()


async def _leave_when_silent(link: Link) -> None:
    """Raise SessionError once nothing has come for SILENCE_S."""
    async for silence_s in link.watch():
        if silence_s >= SILENCE_S:
            raise SessionError(CloseCode.TIMEOUT, f"nothing came for {SILENCE_S:g} s")
