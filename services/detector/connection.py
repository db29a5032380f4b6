"""One camera's connection: receive → decode → infer → publish → answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

import structlog

from codec.errors import BitstreamError, MissingReference, ReferenceMismatch
from codec.interface import DecodedFrame, Decoder
from services.detector.decoded import DecodedPacket, DecodedPackets, ReceivedPacket, StaleFrame
from services.detector.detections_json import DetectionMessage
from services.detector.handshake import AdmittedCamera
from services.detector.inference import Inference
from services.detector.publisher import Publisher
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.visit import Visit
from services.metrics import WireMeter
from stream.detections import Detections
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.rate.window import WindowControl
from stream.session.camera_clock import CameraClock, FrameAges
from stream.session.messages import Preview, RejectReason, Report
from stream.tasks.background import run_with_background
from stream.tasks.worker import Worker
from stream.transport.websocket import Link

log = structlog.get_logger(__name__)


class CameraConnection:
    """Serves one camera from the welcome on. While one frame is inferred the next is decoded and others may arrive."""

    def __init__(
        self,
        link: Link,
        camera: AdmittedCamera,
        visit: Visit,
        meter: WireMeter,
        *,
        inference: Inference,
        publisher: Publisher,
        statistics: DetectorStatistics,
        stopping: asyncio.Event,
        settings: DetectorSettings,
    ) -> None:
        self._link, self._visit, self._meter, self._stopping = link, visit, meter, stopping
        self._session, self._stream, self._decoder = camera.session, camera.stream, camera.decoder
        self._hello = camera.hello
        self._inference, self._publisher, self._statistics = inference, publisher, statistics
        self._worker = Worker(f"decode-{camera.stream.name}")  # owns the decoder's reference frame
        # Bounded by the session's window; None ends it.
        self._received: asyncio.Queue[ReceivedPacket | None] = asyncio.Queue()
        self._decoded = DecodedPackets(live=camera.hello.live)
        self._unanswered: deque[int] = deque()  # numbers of frames
        self._clock = CameraClock(camera.hello.clock)
        self._clock_stepped_s: float | None = None  # since the last detections
        self._ages, self._max_age_s = FrameAges(), settings.max_age_s
        self._window = WindowControl(settings.window, time.monotonic())

    async def run(self) -> None:
        """Answer every packet, until the detector stops. Raises SessionError or ConnectionLost."""
        try:
            await run_with_background(self._infer(), self._receive(), self._decode())
        finally:
            self._worker.close()
            if self._hello.live:
                self._publisher.publish_gaps(self._stream, self._stream.numbers.lose(self._unanswered))

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
        number = self._stream.numbers.packet()
        self._unanswered.append(number)
        self._received.put_nowait(ReceivedPacket(packet, number, now_ns, StageClock(now_ns)))

    def _on_text(self, text: str) -> None:
        match self._session.receive_text(text):
            case Report() as report:
                self._session.receive_report(time.monotonic_ns())
                self._visit.report(report)
                self._follow_clock(report)
            case Preview(jpeg=jpeg):
                self._session.receive_preview(time.monotonic_ns())
                self._stream.preview = jpeg  # passed on as it is, never decoded here

    def _follow_clock(self, report: Report) -> None:
        stepped_s = self._clock.follow(report.clock) if report.clock else None
        if stepped_s is not None:
            self._clock_stepped_s = (self._clock_stepped_s or 0.0) + stepped_s
            self._statistics.step_clock()
            log.warning("the camera's clock was set", stream=self._stream.name, seconds=round(stepped_s, 3))

    # --- decode ---

    async def _decode(self) -> None:
        """Decode ahead of the tail, in order, on the connection's own worker."""
        while packet := await self._received.get():
            outcome: DecodedFrame | Exception
            try:
                outcome = await self._worker.run(_decode_packet, self._decoder, packet)
            except Exception as error:  # the camera gets to know in its turn
                outcome = error
            else:
                self._ages.arrive(outcome.header.captured_ns, packet.received_ns)
            await self._decoded.put(DecodedPacket(outcome, packet))
        await self._decoded.end()

    # --- infer ---

    async def _infer(self) -> None:
        """Answer what was decoded: every packet once, the oldest first."""
        while await self._decoded.wait():
            if self._decoded.has_frame:
                await self._infer_in_turn()
            else:
                await self._reject_all(await self._decoded.take())

    async def _infer_in_turn(self) -> None:
        """Wait for the turn, detect on the frame that waits then, and answer the packets up to it."""
        async with self._inference.turn():
            *before, last = await self._decoded.take()
            frame, packet = last.outcome, last.packet
            assert isinstance(frame, DecodedFrame)
            letterbox = Letterbox(self._frame_size(frame), self._hello.canvas)
            try:
                self._refuse_old(frame)
                detections = await self._inference.detect(
                    self._hello.split, frame.tensors, letterbox, packet.clock
                )
            except Exception as error:  # costs one frame
                detections = None
                before.append(DecodedPacket(error, packet))
        await self._reject_all(before)
        if detections is not None:
            self._publish(frame, packet, letterbox.frame, detections)
            await self._acknowledge(frame, packet, detections)

    async def _reject_all(self, packets: list[DecodedPacket]) -> None:
        for decoded in packets:
            assert isinstance(decoded.outcome, Exception)
            await self._reject(decoded.packet, decoded.outcome)

    def _refuse_old(self, frame: DecodedFrame) -> None:
        age_s = self._ages.age_s(frame.header.captured_ns, time.monotonic_ns())
        if self._hello.live and age_s > self._max_age_s:
            raise StaleFrame(f"{age_s:.1f} s old; at most {self._max_age_s:g} s (--max-age-s)")

    def _frame_size(self, frame: DecodedFrame) -> tuple[int, int]:
        """(H, W) of the original picture; the canvas where the packet does not say."""
        header = frame.header
        if header.frame_height and header.frame_width:
            return header.frame_height, header.frame_width
        return self._hello.canvas

    # --- publish ---

    def _publish(
        self,
        frame: DecodedFrame,
        packet: ReceivedPacket,
        frame_size: tuple[int, int],
        detections: Detections,
    ) -> None:
        clock, unix_ns = packet.clock, time.time_ns()
        stepped_s, self._clock_stepped_s = self._clock_stepped_s, None
        message = DetectionMessage(
            self._stream.name,
            self._stream.status.connection,
            packet.number,
            frame.header,
            frame_size,
            detections,
            self._inference.network.model.names,
            self._clock.unix_ns(frame.header.captured_ns),
            clock.durations_ns,
            unix_ns,
            stepped_s,
        )
        self._publisher.publish_detections(message)
        clock.lap("publish", time.monotonic_ns())
        self._statistics.publish(
            self._stream,
            frame_size,
            keyframe=frame.header.keyframe,
            detections=len(detections),
            stages_ns=clock.durations_ns,
            now_ns=time.monotonic_ns(),
            unix_s=unix_ns / 1e9,
        )

    # --- answer ---

    async def _acknowledge(self, frame: DecodedFrame, packet: ReceivedPacket, detections: Detections) -> None:
        self._unanswered.popleft()
        self._stream.numbers.answer()
        text = self._session.acknowledge(
            frame.header.sequence, frame.header.captured_ns, len(detections), packet.clock.durations_ns
        )
        await self._link.send(text)
        self._meter.update()
        await self._adjust_window(packet)

    async def _reject(self, packet: ReceivedPacket, error: Exception) -> None:
        reason = reject_reason(error)
        self._unanswered.popleft()
        self._publisher.publish_gaps(self._stream, [self._stream.numbers.reject(packet.number, reason)])
        self._statistics.reject(self._stream, reason)
        level = logging.DEBUG if reason == "stale" else logging.WARNING  # a busy detector's everyday
        log.log(level, "packet rejected", stream=self._stream.name, reason=reason, detail=str(error))
        for text in self._session.reject(
            reason, str(error), received_ns=packet.received_ns, now_ns=time.monotonic_ns()
        ):
            await self._link.send(text)
        await self._adjust_window(packet, late=reason == "stale")

    async def _adjust_window(self, packet: ReceivedPacket, *, late: bool = False) -> None:
        """Allow a live camera as many unanswered packets as leave its frames new."""
        if not self._hello.live:
            return
        wait_s = packet.clock.durations_ns.get("queue", 0) / 1e9
        window = self._window.observe(wait_s, time.monotonic(), late=late)
        if window is not None:
            log.info("window", stream=self._stream.name, frames=window)
            for text in self._session.set_window(window):
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
        case StaleFrame():
            return "stale"
        case _:
            return "error"
