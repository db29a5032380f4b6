"""One connection from a camera to its detector: frame → head → encode → packet → link, and the answers back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from codec.layout import raw_bytes
from codec.packet import Stamp
from services.camera.pictures import jpeg_bytes, preview_jpeg
from services.camera.pipeline import FeaturePipeline
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.metrics import WireMeter
from stream.errors import ConnectionLost, SessionError
from stream.frame import Frame
from stream.latency import StageClock, network_ns
from stream.rate.control import RateControl
from stream.rate.link import SentPacket
from stream.session.camera import (
    Accepted,
    Acknowledged,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
)
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, Preview
from stream.session.preview import PreviewGate
from stream.tasks.background import run_with_background
from stream.tasks.mailbox import MailboxClosed
from stream.tasks.worker import Worker
from stream.transport.websocket import Link, connect

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 1.0
PICTURE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """A frame that was sent and waits for its answer."""

    frame: Frame
    packet: SentPacket  # as rate control knows it
    stages_ns: dict[str, int]  # `send` joins once the link has taken the packet


class Uplink:
    """One connection: hello, packets out and answers in, reports and pictures beside them, close.

    `next_frame` gives the frames and raises MailboxClosed after the last one. `stopping` tells why that one was the
    last. Lives for one `run`; what a lost connection leaves unanswered, `drain` gives back.
    """

    def __init__(
        self,
        config: CameraSettings,
        pipeline: FeaturePipeline,
        rate: RateControl,
        statistics: CameraStatistics,
        *,
        source_name: str,
        next_frame: Callable[[], Awaitable[Frame]],
        stopping: asyncio.Event,
    ) -> None:
        self.rate_holds = False  # a frame back
        self._config, self._pipeline = config, pipeline
        self._rate, self._statistics = rate, statistics
        self._source_name, self._next_frame, self._stopping = source_name, next_frame, stopping
        profile = pipeline.codec.profile
        hello = pipeline.hello(config)
        self._session: CameraSession[InFlight] = CameraSession(
            hello, config.window, profile.hash if profile else None
        )
        self._answered = asyncio.Event()
        self._in_work: Frame | None = None  # in head or encoder
        self._keyframe_due = True  # the next packet will be one, as far as this end knows
        self._newest: Frame | None = None  # the last one sent, until a picture is made of it
        self._gate = PreviewGate()
        self._pictures = Worker("pictures")  # of its own: no frame waits for a JPEG

    @property
    def accepted(self) -> bool:
        """Whether the detector has let this camera in."""
        return self._session.accepted

    @property
    def unanswered(self) -> int:
        """Packets sent and neither acknowledged nor rejected."""
        return len(self._session.unanswered)

    def drain(self) -> list[Frame]:
        """Take the frames out that this connection took and that have no answer, oldest first."""
        frames = [sent.frame for sent in self._session.drain()]
        if self._in_work is not None:  # it shares the fate of those already sent
            frames.append(self._in_work)
            self._in_work = None
        return frames

    async def run(self) -> None:
        """Serve the connection until the last frame is answered. Raises ConnectionLost."""
        url = f"{self._config.detector}/v1/features"
        meter = None
        try:
            async with connect(url, FEATURES_PROTOCOL) as link:
                meter = WireMeter(self._statistics.metrics, link.wire, self._statistics.wire)
                await link.send(self._session.hello.text())
                await run_with_background(
                    self._send_frames(link),
                    self._receive(link, meter),
                    self._watch(link),
                    self._send_reports(link),
                    self._send_pictures(link),
                )
        finally:
            self._statistics.disconnect("detector")
            self._pictures.close()
            if meter:
                meter.update()

    # --- send ---

    async def _send_frames(self, link: Link) -> None:
        await self._pipeline.force_keyframe()
        while True:
            await self._until_open()
            try:
                frame = await self._next_frame()
            except MailboxClosed:
                break
            self._rate.take(time.monotonic_ns())
            await self._send(link, frame)
        while self._session.unanswered:
            await self._next_answer()
        await link.send(self._statistics.report(self._source_name).text())
        leaving = self._stopping.is_set()
        await link.close(CloseCode.GOING_AWAY if leaving else CloseCode.NORMAL, "camera stopped")

    async def _until_open(self) -> None:
        """Wait until the window is open and rate control lets the next frame go."""
        try:
            while True:
                if not self._session.can_send:
                    self.rate_holds = False
                    self._gate.hold()
                    await self._next_answer()
                    continue
                unanswered = [sent.packet for sent in self._session.unanswered]
                wait_ns = self._rate.wait_ns(time.monotonic_ns(), unanswered)
                if wait_ns == 0:
                    break
                self.rate_holds = True
                await self._next_answer(wait_ns)
        finally:
            self.rate_holds = False

    async def _next_answer(self, timeout_ns: int | None = None) -> None:
        """Wait for the next answer, or for so long."""
        self._answered.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ns / 1e9 if timeout_ns is not None else None):
                await self._answered.wait()

    async def _send(self, link: Link, frame: Frame) -> None:
        pipeline, session, clock = self._pipeline, self._session, StageClock(frame.captured_ns)
        self._in_work = frame
        clock.lap("grab", time.monotonic_ns())
        stage = "head"
        try:
            tensors = await pipeline.run_head(frame)
            clock.lap(stage, time.monotonic_ns())
            stage = "encode"
            stamp = Stamp(session.next_sequence, frame.captured_ns, frame.height, frame.width)
            step = self._choose_step()
            encoded = await pipeline.encode(tensors, stamp, step)
            clock.lap(stage, time.monotonic_ns())
        except Exception as error:  # whatever it is, it costs one frame
            self._in_work = None
            self._statistics.frame_counts.drop(stage, "error")
            log.error("frame dropped", stage=stage, reason=f"{type(error).__name__}: {error}")
            return
        packet = self._rate.send(
            len(encoded.data), encoded.keyframe, step, frame.captured_ns, time.monotonic_ns()
        )
        session.sent(InFlight(frame, packet, clock.durations_ns))
        self._in_work = None
        self._keyframe_due = self._keyframe_due and not encoded.keyframe
        self._statistics.send(encoded, raw_bytes(pipeline.head.layout))
        await link.send(encoded.data)
        clock.lap("send", time.monotonic_ns())
        self._newest = frame

    def _choose_step(self) -> int | None:
        if self._pipeline.steps is None:
            return None
        choice = self._rate.choose(self._keyframe_due)
        self._statistics.choose(choice)
        return choice.step

    # --- receive ---

    async def _receive(self, link: Link, meter: WireMeter) -> None:
        try:
            async for data in link:
                if isinstance(data, bytes):
                    raise SessionError(CloseCode.BAD_MESSAGE, "a binary message from the detector")
                await self._on_text(link, data)
                meter.update()
                self._answered.set()
        except SessionError as error:
            await link.close(error.code, error.reason)
            raise ConnectionLost(f"the detector broke the protocol: {error.reason}") from None

    async def _on_text(self, link: Link, text: str) -> None:
        match self._session.receive(text):
            case Accepted(window):
                self._rate.connect(window)
                self._statistics.connect("detector")
                log.info("streaming", detector=self._config.detector, window=window)
            case ProfileRequested():
                profile = self._pipeline.codec.profile
                assert profile is not None
                log.info("calibration profile sent", profile=profile.hash[:12])
                await link.send(await self._pipeline.worker.run(profile.pack))
            case Acknowledged() as acknowledged:
                self._on_acknowledged(acknowledged)
            case Rejected(_, sequence, reason, detail):
                self._rate.reject()
                self._statistics.frame_counts.reject(reason)
                log.warning("packet rejected", sequence=sequence, reason=reason, detail=detail)
            case KeyframeRequested():
                await self._pipeline.force_keyframe()
                self._keyframe_due = True

    def _on_acknowledged(self, acknowledged: Acknowledged[InFlight]) -> None:
        sent, detector_stages_ns, now_ns = acknowledged.frame, acknowledged.stages_ns, time.monotonic_ns()
        captured_ns = sent.frame.captured_ns
        stages_ns = {**sent.stages_ns, **detector_stages_ns}
        stages_ns["network"] = network_ns(now_ns - captured_ns, sent.stages_ns, detector_stages_ns)
        self._statistics.detect(captured_ns, now_ns, stages_ns, acknowledged.detections)
        detector_ns = sum(detector_stages_ns.values())
        self._gate.compare(stages_ns["network"], detector_ns)
        self._rate.acknowledge(sent.packet, detector_ns, now_ns)
        self._statistics.observe_link(self._rate.link, self._rate.choice)

    # --- beside the frames ---

    async def _watch(self, link: Link) -> None:
        """Leave a detector that owes an answer and does not say a byte."""
        limit_s = self._config.silence_s
        async for silence_s in link.watch():
            if silence_s >= limit_s and (self._session.unanswered or not self._session.accepted):
                raise ConnectionLost(f"nothing came from the detector for {limit_s:g} s")

    async def _send_reports(self, link: Link) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            if self.accepted:
                text = self._statistics.report(self._source_name).text()
                self._rate.send_beside(len(text))
                await link.send(text)

    async def _send_pictures(self, link: Link) -> None:
        """About once a second: what the newest frame would take as a JPEG, and a preview of it where one may go."""
        while True:
            await asyncio.sleep(PICTURE_INTERVAL_S)
            frame, self._newest = self._newest, None
            if frame is None:
                continue
            preview = None
            try:
                size = await self._pictures.run(jpeg_bytes, frame, self._pipeline.head.size)
                self._statistics.measure_jpeg(size)
                if self._config.preview and self._gate.may_send(self._session.answered):
                    preview = await self._pictures.run(preview_jpeg, frame)
            except Exception as error:  # whatever it is, it costs one picture and no frame
                log.warning("no picture", reason=f"{type(error).__name__}: {error}")
            if preview is not None:
                self._gate.sent(self._session.packets)
                text = Preview(jpeg=preview).text()
                self._rate.send_beside(len(text))
                await link.send(text)
                self._statistics.send_preview(len(preview))
