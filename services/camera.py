"""The camera service: source → head → encode → packet → link."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from codec.errors import CodecError
from codec.interface import EncodedFrame, Encoder
from codec.layout import FloatArray, raw_bytes
from codec.packet import Stamp
from codec.spec import CodecSpec
from services.config import CameraConfig
from services.metrics import VERSION, CameraMetrics, WireMeter
from services.network import LoadedModel, load_network
from stream.backoff import Backoff
from stream.companions import accompany
from stream.connection import ConnectionLost, Link, WireBytes, connect
from stream.frame import Frame
from stream.ledger import Ledger
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.mailbox import Mailbox, MailboxClosed
from stream.message import FEATURES_PROTOCOL, Clock, Hello, Report, StageReport
from stream.redact import redact_url
from stream.session import (
    PERMANENT,
    Accepted,
    Acknowledged,
    CameraSession,
    CloseCode,
    KeyframeRequested,
    Rejected,
    SessionError,
    tensor_shapes,
)
from stream.sources import (
    CaptureOptions,
    FramesSkipped,
    FrameUnreadable,
    SourceConnected,
    SourceEvent,
    SourceLost,
    SourceRetry,
    open_source,
)
from stream.split import Head
from stream.stages import Spread, StageClock, StageStatistics, network_ns
from stream.worker import Worker

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 1.0


class Refused(Exception):
    """The detector refuses this camera's settings; trying again with the same ones is of no use."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the detector refused this camera ({code}): {reason}")
        self.code, self.reason = code, reason


@dataclass(slots=True)
class Totals:
    """Sums over a camera's life, in frames and bytes."""

    packets: int = 0
    raw_bytes: int = 0
    encoded_bytes: int = 0
    detections: int = 0
    first_captured_ns: int = 0
    last_acknowledged_ns: int = 0


@dataclass(frozen=True, slots=True)
class Flight:
    """A frame that was sent and waits for its answer."""

    frame: Frame
    stages_ns: dict[str, int]


class Camera:
    """One source, one detector; lives until the source ends or `stop` is called."""

    def __init__(self, config: CameraConfig) -> None:
        self.config = config
        self.metrics = CameraMetrics()
        self.ledger = Ledger(self._count_drop)
        self.statistics = StageStatistics()
        self.totals = Totals()
        self.keyframes: Counter[str] = Counter()
        self.wire = WireBytes()
        self.first_frame = asyncio.Event()  # set once a frame has been detected
        self._codec = CodecSpec.parse(config.codec)
        self._worker = Worker("camera")
        self._stopping = asyncio.Event()
        self._answered = asyncio.Event()
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._flights: deque[Flight] = deque()
        self._again: deque[Frame] = deque()  # a file's frames that a lost connection left unanswered
        self._frame_size: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._reconnects: Counter[str] = Counter()
        self._source_state = "opening"
        self._connected = False
        self._accepted_once = False
        self._source = open_source(
            config.source,
            CaptureOptions(
                open_timeout_s=config.open_timeout_s,
                read_timeout_s=config.read_timeout_s,
                backoff_min_s=min(0.5, config.backoff_s),
                backoff_max_s=config.backoff_s,
                rtsp_transport=config.rtsp_transport,
                realtime=config.realtime,
                loop=config.loop,
            ),
            on_event=self._on_source_event,
        )
        self._export()

    @property
    def frames_per_second(self) -> float:
        """Frames detected a second, from the first capture to the last acknowledgement."""
        elapsed_ns = self.totals.last_acknowledged_ns - self.totals.first_captured_ns
        return self.ledger.detected / elapsed_ns * 1e9 if elapsed_ns > 0 else 0.0

    def stop(self) -> None:
        """Capture no more, let what is in flight be answered, close."""
        self._stopping.set()

    async def run(self) -> None:
        """Stream until the source ends or `stop` is called.

        Raises SourceError where the source can never open, Refused where the detector will never accept,
        WeightsError or CheckpointError where there is no network to run.
        """
        try:
            network = await self._worker.run(load_network, self.config)
            self.metrics.info.labels(
                self.config.stream, network.name, self.config.split, self.config.codec
            ).set(1)
            streaming = asyncio.ensure_future(self._stream(network))
            del network  # the head keeps only its own layers
            async with self._source:
                await accompany(_until_over(streaming), self._grab(), self._end_when_told(streaming))
        finally:
            self._drop_rest()
            self._worker.close()
            log.info(
                "camera stopped",
                captured=self.ledger.captured,
                detected=self.ledger.detected,
                dropped=self.ledger.dropped_total,
            )

    # --- grab ---

    async def _grab(self) -> None:
        async for frame in self._source:
            self.ledger.capture()
            self.metrics.captured.inc()
            if not self.totals.first_captured_ns:
                self.totals.first_captured_ns = frame.captured_ns
            if not self._source.live:
                await self._mailbox.put_wait(frame)
            elif self._mailbox.put(frame) is not None:
                self.ledger.drop("grab", "superseded" if self._connected else "disconnected")
            if self.ledger.captured == self.config.frames:
                break
        if not self._frame_size.done():
            self._frame_size.cancel()
        self._mailbox.close()

    def _on_source_event(self, event: SourceEvent) -> None:
        match event:
            case SourceConnected(width, height):
                if self._source_state == "lost":
                    self._reconnects["source"] += 1
                    self.metrics.reconnects.labels("source").inc()
                self._source_state = "open"
                self.metrics.connected.labels("source").set(1)
                if not self._frame_size.done():
                    self._frame_size.set_result((height, width))
                log.info("source open", source=self._source.name, width=width, height=height)
            case SourceLost(reason):
                self._source_state = "lost"
                self.metrics.connected.labels("source").set(0)
                log.warning("source lost", source=self._source.name, reason=reason)
            case SourceRetry(delay_s, attempt):
                log.info("source is tried again", delay_s=round(delay_s, 2), attempt=attempt)
            case FramesSkipped(count):
                self.metrics.captured.inc(count)
                self.ledger.miss("overwritten", count)
            case FrameUnreadable(where, reason):
                self.metrics.captured.inc()
                self.ledger.miss("unreadable")
                log.warning("frame unreadable", where=where, reason=reason)

    # --- connect ---

    async def _stream(self, network: LoadedModel) -> None:
        height, width = await self._frame_size
        canvas = canvas_for(parse_size(self.config.size), height, width)
        name, weights = network.name, network.model.weights_hash
        head = await self._worker.run(Head, network.model, self.config.split, canvas)
        del network
        encoder = self._codec.encoder(head.layout)
        await self._worker.run(self._warm_up, head, self._codec.encoder(head.layout), canvas)
        backoff = Backoff(
            min(0.5, self.config.backoff_s), self.config.backoff_s, jitter=1.0, random=random.Random()
        )
        while True:
            hello = Hello(
                stream=self.config.stream,
                model=name,
                weights=weights,
                split=self.config.split,
                canvas=canvas,
                tensors=tensor_shapes(head.layout),
                codec=str(self._codec),
                clock=Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
                software=f"splitcast/{VERSION}",
            )
            try:
                await self._connect_once(CameraSession(hello, self.config.window), head, encoder, backoff)
                return
            except ConnectionLost as lost:
                self._settle_flights()
                if not self._accepted_once and lost.code in PERMANENT:
                    raise Refused(lost.code, lost.reason) from None
                delay_s = backoff.next_delay_s()
                log.warning(
                    "no detector",
                    detector=self.config.detector,
                    reason=lost.reason,
                    code=lost.code,
                    retry_s=round(delay_s, 2),
                )
            await asyncio.sleep(delay_s)

    async def _connect_once(
        self, session: CameraSession, head: Head, encoder: Encoder, backoff: Backoff
    ) -> None:
        """Serve one connection until the source has ended. Raises ConnectionLost."""
        url = f"{self.config.detector}/v1/features"
        meter = None
        try:
            async with connect(url, FEATURES_PROTOCOL, heartbeat_s=self.config.heartbeat_s) as link:
                meter = WireMeter(self.metrics, link.wire)
                meter.total = self.wire
                await link.send(session.hello.text())
                await accompany(
                    self._send_frames(link, session, head, encoder),
                    self._receive(link, session, encoder, meter, backoff),
                    self._report(link),
                )
        finally:
            self._connected = False
            self.metrics.connected.labels("detector").set(0)
            if meter:
                meter.book()

    # --- send ---

    async def _send_frames(self, link: Link, session: CameraSession, head: Head, encoder: Encoder) -> None:
        await self._worker.run(encoder.force_keyframe)
        while True:
            while not session.can_send:
                await self._next_answer()
            try:
                frame = self._again.popleft() if self._again else await self._mailbox.get()
            except MailboxClosed:
                break
            await self._send(frame, link, session, head, encoder)
        while session.unanswered:
            await self._next_answer()
        await link.send(self.report().text())
        leaving = self._stopping.is_set()
        await link.close(CloseCode.GOING_AWAY if leaving else CloseCode.NORMAL, "camera stopped")

    async def _send(
        self, frame: Frame, link: Link, session: CameraSession, head: Head, encoder: Encoder
    ) -> None:
        clock = StageClock(frame.captured_ns)
        clock.lap("grab")
        stage = "head"
        try:
            tensors = await self._worker.run(_run_head, head, frame)
            clock.lap(stage)
            stage = "encode"
            stamp = Stamp(session.next_sequence, frame.captured_ns, frame.height, frame.width)
            encoded = await self._worker.run(encoder.encode, tensors, stamp)
            clock.lap(stage)
        except asyncio.CancelledError:
            # The connection broke meanwhile: this frame shares the fate of those already sent.
            self._flights.append(Flight(frame, {}))
            raise
        except (CodecError, RuntimeError) as error:
            self.ledger.drop(stage, "error")
            log.error("frame dropped", stage=stage, reason=str(error))
            return
        session.sent()
        self._flights.append(Flight(frame, clock.durations_ns))
        await link.send(encoded.data)
        clock.lap("send")
        self._count_packet(encoded, raw_bytes(head.layout))

    # --- receive ---

    async def _receive(
        self, link: Link, session: CameraSession, encoder: Encoder, meter: WireMeter, backoff: Backoff
    ) -> None:
        try:
            async for data in link:
                if isinstance(data, bytes):
                    raise SessionError(CloseCode.BAD_MESSAGE, "a binary message from the detector")
                match session.receive(data):
                    case Accepted(window):
                        backoff.reset()
                        self._on_accepted(window)
                    case Acknowledged() as acknowledged:
                        self._on_acknowledged(acknowledged)
                    case Rejected(sequence, reason, detail):
                        self._flights.popleft()
                        self.ledger.drop("detector", reason)
                        log.warning("packet rejected", sequence=sequence, reason=reason, detail=detail)
                    case KeyframeRequested():
                        await self._worker.run(encoder.force_keyframe)
                meter.book()
                self.metrics.queue.labels("unanswered").set(session.unanswered)
                self._answered.set()
        except SessionError as error:
            await link.close(error.code, error.reason)
            raise ConnectionLost(f"the detector broke the protocol: {error.reason}") from None

    def _on_accepted(self, window: int) -> None:
        self._connected = True
        self.metrics.connected.labels("detector").set(1)
        if self._accepted_once:
            self._reconnects["detector"] += 1
            self.metrics.reconnects.labels("detector").inc()
        self._accepted_once = True
        log.info("streaming", detector=self.config.detector, stream=self.config.stream, window=window)

    def _on_acknowledged(self, acknowledged: Acknowledged) -> None:
        now_ns = time.monotonic_ns()
        flight = self._flights.popleft()
        latency_ns = now_ns - flight.frame.captured_ns
        stages_ns = {**flight.stages_ns, **acknowledged.stages_ns}
        stages_ns["network"] = network_ns(latency_ns, flight.stages_ns, acknowledged.stages_ns)
        self.ledger.detect()
        self.statistics.add(stages_ns)
        self.totals.detections += acknowledged.detections
        self.totals.last_acknowledged_ns = now_ns
        self.metrics.detected.inc()
        self.metrics.detections.inc(acknowledged.detections)
        self.metrics.latency.observe(latency_ns / 1e9)
        self.metrics.observe_stages(self.metrics.stage, stages_ns)
        self.metrics.age.set_function(lambda: (time.monotonic_ns() - flight.frame.captured_ns) / 1e9)
        self.first_frame.set()

    async def _next_answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    # --- report ---

    async def _report(self, link: Link) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            if self._connected:
                await link.send(self.report().text())

    def report(self) -> Report:
        """This camera's own account so far."""
        latency = self.statistics.latency()
        return Report(
            captured=self.ledger.captured,
            detected=self.ledger.detected,
            in_flight=self.ledger.in_flight,
            dropped={f"{stage}/{reason}": count for (stage, reason), count in self.ledger.dropped.items()},
            reconnects=dict(self._reconnects),
            source=redact_url(self.config.source)[:1024],
            source_state=self._source_state,
            keyframes=dict(self.keyframes),
            latency=_stage_report(latency) if latency else None,
            stages={stage: _stage_report(spread) for stage, spread in self.statistics.by_stage().items()},
        )

    # --- account ---

    def _count_packet(self, encoded: EncodedFrame, raw: int) -> None:
        self.totals.packets += 1
        self.totals.raw_bytes += raw
        self.totals.encoded_bytes += len(encoded.data)
        self.metrics.packets.inc()
        self.metrics.raw_bytes.inc(raw)
        self.metrics.encoded_bytes.inc(len(encoded.data))
        if encoded.keyframe:
            reason = encoded.keyframe_reason or "always"
            self.keyframes[reason] += 1
            self.metrics.keyframes.labels(reason).inc()

    def _count_drop(self, stage: str, reason: str, count: int) -> None:
        self.metrics.dropped.labels(stage, reason).inc(count)

    def _settle_flights(self) -> None:
        """Decide about the frames that a lost connection left unanswered: a file's are sent again."""
        if self._source.live:
            self.ledger.drop("network", "connection_lost", len(self._flights))
        else:
            self._again.extendleft(flight.frame for flight in reversed(self._flights))
        self._flights.clear()

    def _drop_rest(self) -> None:
        """Account for what a stop leaves behind."""
        self.ledger.drop("network", "shutdown", len(self._flights))
        self._flights.clear()
        self._again.clear()
        self.ledger.drop("grab", "shutdown", self.ledger.in_flight)

    def _export(self) -> None:
        self.metrics.age.set(float("nan"))
        self.metrics.in_flight.set_function(lambda: self.ledger.in_flight)
        self.metrics.queue.labels("unanswered").set(0)
        self.metrics.queue.labels("worker").set_function(lambda: self._worker.queue_length)

    # --- stop ---

    async def _end_when_told(self, streaming: asyncio.Future[None]) -> None:
        await self._stopping.wait()
        await self._source.aclose()
        if self._connected:
            await asyncio.wait([streaming], timeout=self.config.drain_s)
        streaming.cancel()

    def _warm_up(self, head: Head, encoder: Encoder, canvas: tuple[int, int]) -> None:
        """Let torch choose its kernels and touch its memory before the first frame counts."""
        blank = Frame(Letterbox(canvas, canvas).blank(), 0)
        encoder.encode(_run_head(head, blank), Stamp(0, 0, *canvas))


def _run_head(head: Head, frame: Frame) -> dict[str, FloatArray]:
    return head(Letterbox((frame.height, frame.width), head.size).apply(frame.image))


def _stage_report(spread: Spread) -> StageReport:
    return StageReport(mean_ms=round(spread.mean_ms, 3), p95_ms=round(spread.p95_ms, 3))


async def _until_over(streaming: asyncio.Future[None]) -> None:
    try:
        await streaming
    except asyncio.CancelledError:
        # `stop` cancels what cannot be drained; a cancellation of the caller must go on.
        task = asyncio.current_task()
        if not streaming.cancelled() or (task and task.cancelling()):
            raise


@asynccontextmanager
async def serve_metrics(camera: Camera) -> AsyncIterator[None]:
    """Serve /metrics and /livez on the configured address, if any. Raises OSError where it is taken."""
    if not camera.config.metrics_port:
        yield
        return
    app = web.Application()

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    app.router.add_get("/metrics", camera.metrics.handle)
    app.router.add_get("/livez", live)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, camera.config.metrics_host, camera.config.metrics_port).start()
        yield
    finally:
        await runner.cleanup()
