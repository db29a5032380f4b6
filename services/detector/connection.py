"""One camera's connection: receive → turn (decode → infer; see tails.py) → publish → answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress

import structlog

from services.detections_json import DetectionMessage
from services.detector.handshake import AdmittedCamera, check_cost
from services.detector.inference import Inference
from services.detector.publisher import Publisher
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.turns import AnsweredPacket, DetectedFrame, ReceivedPacket, reject_reason
from services.detector.visit import Visit
from services.metrics import WireMeter
from stream.latency import StageClock
from stream.rate.window import WindowControl
from stream.session.camera_clock import CameraClock
from stream.session.messages import Preview, Report
from stream.tasks.background import run_with_background
from stream.transport.websocket import Link

log = structlog.get_logger(__name__)


class CameraConnection:
    """Serves one camera from the welcome on. While one frame is worked on others may arrive."""

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
        self._session, self._stream = camera.session, camera.stream
        self._hello, self._tail, self._step_maps = camera.hello, camera.tail, camera.step_maps
        self._inference, self._publisher, self._statistics = inference, publisher, statistics
        self._stream.pace.limit(camera.quota.frames_per_s)
        self._max_tail_ms = settings.max_tail_ms
        self._changed = asyncio.Event()  # a packet has come, or nothing more does
        self._ended = False
        # Bounded by the session's window; None ends it.
        self._answered: asyncio.Queue[list[AnsweredPacket] | None] = asyncio.Queue()
        self._unanswered: deque[int] = deque()  # numbers of frames
        self._clock = CameraClock(camera.hello.clock)
        self._clock_stepped_s: float | None = None  # since the last detections
        self._window = WindowControl(settings.window, time.monotonic())

    async def run(self) -> None:
        """Answer every packet, until the detector stops. Raises SessionError or ConnectionLost."""
        try:
            await run_with_background(self._answer(), self._receive(), self._work(), self._send_step_maps())
        finally:
            self._tail.leave()
            if self._hello.live:
                self._publisher.publish_gaps(self._stream, self._stream.numbers.lose(self._unanswered))

    # --- receive ---

    async def _receive(self) -> None:
        """Take packets until the detector stops."""
        await run_with_background(self._stopping.wait(), self._read())
        self._ended = True
        self._changed.set()

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
        self._tail.put(ReceivedPacket(packet, number, StageClock(now_ns), now_ns))
        self._changed.set()

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

    # --- decode and infer ---

    async def _work(self) -> None:
        """Have every packet worked on, a turn of this camera's each."""
        while await self._next_turn():
            await self._keep_pace()
            self._answered.put_nowait(await self._tail.turn())
        self._answered.put_nowait(None)

    async def _next_turn(self) -> bool:
        """Wait for a packet; False where no more come."""
        while not len(self._tail) and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return len(self._tail) > 0

    async def _keep_pace(self) -> None:
        """Wait until the camera's quota allows its next packet; what has come when the detector stops is answered."""
        if wait_ns := self._stream.pace.take(time.monotonic_ns()):
            log.info("held to its token's frames a second", stream=self._stream.name)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ns / 1e9):
                    await self._stopping.wait()

    def _refuse_costly(self) -> None:
        """Leave a camera whose frames take longer than any may: it would meet the same tomorrow."""
        kind = self._hello.split, self._hello.canvas
        check_cost(self._hello, self._inference.costs.measured_ms(kind), self._max_tail_ms)

    # --- answer ---

    async def _answer(self) -> None:
        """Answer every packet once, the oldest first."""
        while (answered := await self._answered.get()) is not None:
            for packet in answered:
                if isinstance(packet.outcome, DetectedFrame):
                    self._publish(packet.outcome, packet.packet)
                    await self._acknowledge(packet.outcome, packet.packet)
                    self._measure_steps(packet.outcome)
                    self._refuse_costly()
                else:
                    await self._reject(packet.packet, packet.outcome)

    def _measure_steps(self, frame: DetectedFrame) -> None:
        if self._step_maps and frame.inferred.tensors:
            self._step_maps.put(frame.header.sequence, frame.inferred.tensors)

    async def _send_step_maps(self) -> None:
        """Tell the camera which blocks matter, as often as that is measured."""
        while self._step_maps:
            await self._link.send(self._session.step_map(*await self._step_maps.next()))

    def _publish(self, frame: DetectedFrame, packet: ReceivedPacket) -> None:
        clock, unix_ns = packet.clock, time.time_ns()
        stepped_s, self._clock_stepped_s = self._clock_stepped_s, None
        message = DetectionMessage(
            self._stream.name,
            self._stream.status.connection,
            packet.number,
            frame.header.sequence,
            frame.header.keyframe,
            frame.header.captured_ns,
            frame.size,
            frame.inferred.detections,
            self._inference.network.model.names,
            self._clock.unix_ns(frame.header.captured_ns),
            clock.durations_ns,
            unix_ns,
            stepped_s,
        )
        self._publisher.publish_detections(message)
        clock.lap("publish", time.monotonic_ns())
        self._statistics.infer(frame.inferred.batch)
        self._statistics.publish(
            self._stream,
            frame.size,
            keyframe=frame.header.keyframe,
            detections=len(frame.inferred.detections),
            stages_ns=clock.durations_ns,
            tail_ns=frame.inferred.tail_ns,
            now_ns=time.monotonic_ns(),
            unix_s=unix_ns / 1e9,
        )

    async def _acknowledge(self, frame: DetectedFrame, packet: ReceivedPacket) -> None:
        self._unanswered.popleft()
        self._stream.numbers.answer()
        message = self._session.acknowledge(
            frame.header.sequence, len(frame.inferred.detections), packet.clock.durations_ns
        )
        await self._link.send(message)
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
