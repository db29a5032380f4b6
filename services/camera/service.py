"""The camera service: source → head → encode → packet → link."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from codec.feature.profile import Profile
from codec.interface import Adjustable, EncodedFrame, Encoder
from codec.layout import FloatArray, raw_bytes
from codec.packet import Stamp
from codec.spec import Codec
from services.camera.pictures import Room, jpeg_bytes, preview_jpeg
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.errors import DetectorRefused
from services.loading import LoadedModel, load_network
from services.metrics import VERSION, WireMeter
from services.profiles import resolve
from stream.errors import ConnectionLost, SessionError
from stream.frame import Frame
from stream.latency import StageClock, network_ns
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.network.split import Head
from stream.rate.control import RateControl, Steps
from stream.session.camera import (
    Accepted,
    Acknowledged,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
    tensor_shapes,
)
from stream.session.close_codes import PERMANENT, CloseCode
from stream.session.messages import FEATURES_PROTOCOL, REJECT_REASONS, Clock, Hello, Preview
from stream.sources.base import (
    CaptureOptions,
    FramesSkipped,
    FrameUnreadable,
    SourceConnected,
    SourceEvent,
    SourceLost,
    SourceRetry,
)
from stream.sources.opening import open_source
from stream.tasks.background import run_with_background
from stream.tasks.backoff import Backoff
from stream.tasks.mailbox import Mailbox, MailboxClosed
from stream.tasks.worker import Worker
from stream.transport.websocket import Link, connect

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 1.0
PICTURE_INTERVAL_S = 1.0
BACKOFF_MINIMUM_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePipeline:
    """What makes packets: the head, the encoder that owns the reference frame, and the hello that announces both."""

    network: str
    weights: str
    head: Head
    codec: Codec
    encoder: Encoder

    def hello(self, config: CameraSettings) -> Hello:
        return Hello(
            stream=config.stream,
            model=self.network,
            weights=self.weights,
            split=config.split,
            canvas=self.head.size,
            tensors=tensor_shapes(self.head.layout),
            codec=str(self.codec),
            clock=Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
            software=f"splitcast/{VERSION}",
            preview=config.preview,
            reject_reasons=REJECT_REASONS,
        )


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """A frame that was sent and waits for its answer."""

    frame: Frame
    stages_ns: dict[str, int]


class Camera:
    """One source, one detector; lives until the source ends or `stop` is called."""

    def __init__(self, config: CameraSettings) -> None:
        self.config = config
        self.statistics = CameraStatistics(config.target_kbps, config.max_latency_ms)
        self.loaded = asyncio.Event()  # set once the network is loaded
        self._codec = config.spec
        self._worker = Worker("camera")
        self._pictures = Worker("pictures")  # of its own: no frame waits for a JPEG
        self._room = Room()
        self._rate = RateControl(None)  # watches, until the encoder is there
        self._rate_holds = False  # a frame back
        self._keyframe_due = True  # the next packet will be one, as far as this end knows
        self._newest: Frame | None = None  # the last one sent, until a picture is made of it
        self._stopping = asyncio.Event()
        self._answered = asyncio.Event()
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._flights: deque[InFlight] = deque()
        self._again: deque[Frame] = deque()  # a file's frames that a lost connection left unanswered
        self._frame_size: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        backoff_s = min(BACKOFF_MINIMUM_S, config.backoff_s), config.backoff_s
        self._backoff = Backoff(*backoff_s, jitter=1.0, random=random.Random())
        self._source = open_source(
            config.source,
            CaptureOptions(
                open_timeout_s=config.open_timeout_s,
                read_timeout_s=config.read_timeout_s,
                backoff_min_s=backoff_s[0],
                backoff_max_s=backoff_s[1],
                rtsp_transport=config.rtsp_transport,
                realtime=config.realtime,
                loop=config.loop,
            ),
            on_event=self._on_source_event,
        )
        self.statistics.metrics.queue.labels("unanswered").set_function(lambda: len(self._flights))
        self.statistics.metrics.queue.labels("worker").set_function(lambda: self._worker.queue_length)

    def stop(self) -> None:
        """Capture no more, let what is in flight be answered, close."""
        self._stopping.set()

    async def run(self) -> None:
        """Stream until the source ends or `stop` is called.

        Raises SourceError where the source can never open, DetectorRefused where the detector will never accept,
        WeightsError or CheckpointError where there is no network to run.
        """
        config, counts = self.config, self.statistics.frame_counts
        if config.preview:
            log.warning("pixels leave this camera: about once a second a small picture is sent (--preview)")
        try:
            loading = asyncio.ensure_future(self._worker.run(load_network, config))
            await run_with_background(_until_over(loading), self._end_when_told(loading))
            if loading.cancelled():
                return
            network = loading.result()
            del loading
            self.loaded.set()
            labels = (config.stream, network.name, config.split, str(self._codec))
            self.statistics.metrics.info.labels(*labels).set(1)
            streaming = asyncio.ensure_future(self._stream(network))
            del network  # the head keeps only its own layers
            async with self._source:
                await run_with_background(
                    _until_over(streaming), self._grab(), self._end_when_told(streaming)
                )
        finally:
            self._drop_rest()
            self._worker.close()
            self._pictures.close()
            log.info(
                "camera stopped",
                captured=counts.captured,
                detected=counts.detected,
                dropped=counts.dropped_total,
            )

    # --- grab ---

    async def _grab(self) -> None:
        counts = self.statistics.frame_counts
        async for frame in self._source:
            self.statistics.capture(frame.captured_ns)
            if not self._source.live:
                await self._mailbox.put_wait(frame)
            else:
                self._rate.capture(frame.captured_ns)
                if self._mailbox.put(frame) is not None:
                    counts.drop("grab", self._why_superseded())
            if self.config.frames and counts.captured >= self.config.frames:
                break
        self._frame_size.cancel()  # nothing, if a frame has come: without one there is nothing to stream
        self._mailbox.close()

    def _why_superseded(self) -> str:
        if not self.statistics.connected["detector"]:
            return "disconnected"
        return "rate" if self._rate_holds else "superseded"

    def _on_source_event(self, event: SourceEvent) -> None:
        match event:
            case SourceConnected(width, height):
                self.statistics.connect("source")
                if not self._frame_size.done():
                    self._frame_size.set_result((height, width))
                log.info("source open", source=self._source.name, width=width, height=height)
            case SourceLost(reason):
                self.statistics.disconnect("source")
                self.statistics.source_trouble = reason
                log.warning("source lost", source=self._source.name, reason=reason)
            case SourceRetry(delay_s, attempt):
                log.info("source is tried again", delay_s=round(delay_s, 2), attempt=attempt)
            case FramesSkipped(count):
                self.statistics.miss("overwritten", count)
            case FrameUnreadable(path, reason):
                self.statistics.miss("unreadable")
                log.warning("frame unreadable", path=str(path), reason=reason)

    # --- connect ---

    async def _stream(self, network: LoadedModel) -> None:
        canvas = canvas_for(parse_size(self.config.size), *await self._frame_size)
        head = await self._worker.run(Head, network.model, self.config.split, canvas)
        weights = network.model.weights_hash
        codec = await self._worker.run(resolve, self._codec, weights, self.config.split, self.config.profile)
        encoder = await self._worker.run(codec.encoder, head.layout)
        steps = (
            Steps(encoder.step, codec.step_range.coarsest)
            if codec.step_range and isinstance(encoder, Adjustable)
            else None
        )
        self._rate = RateControl(steps, self.config.target_kbps, self.config.max_latency_ms)
        sender = FeaturePipeline(network.name, weights, head, codec, encoder)
        del network
        await self._worker.run(_warm_up, head, codec)
        while True:
            try:
                await self._connect_once(sender)
                return
            except ConnectionLost as lost:
                self._settle_flights()
                never_accepted = self.statistics.connected["detector"] is None
                if never_accepted and lost.code in PERMANENT:
                    raise DetectorRefused(lost.code, lost.reason) from None
                delay_s = self._backoff.next_delay_s()
                log.warning(
                    "no detector",
                    detector=self.config.detector,
                    reason=lost.reason,
                    code=lost.code,
                    retry_s=round(delay_s, 2),
                )
            await asyncio.sleep(delay_s)

    async def _connect_once(self, sender: FeaturePipeline) -> None:
        """Serve one connection until the source has ended. Raises ConnectionLost."""
        url = f"{self.config.detector}/v1/features"
        meter = None
        profile = sender.codec.profile
        self._room, self._newest = Room(), None
        try:
            async with connect(url, FEATURES_PROTOCOL, heartbeat_s=self.config.heartbeat_s) as link:
                meter = WireMeter(self.statistics.metrics, link.wire, self.statistics.wire)
                hello = sender.hello(self.config)
                session = CameraSession(hello, self.config.window, profile.hash if profile else None)
                await link.send(hello.text())
                await run_with_background(
                    self._send_frames(link, session, sender),
                    self._receive(link, session, sender.encoder, meter, profile),
                    self._report(link),
                    self._picture(link, session, sender.head.size),
                )
        finally:
            self.statistics.disconnect("detector")
            if meter:
                meter.update()

    # --- send ---

    async def _send_frames(self, link: Link, session: CameraSession, sender: FeaturePipeline) -> None:
        await self._worker.run(sender.encoder.force_keyframe)
        self._keyframe_due = True
        while True:
            await self._until_room(session)
            try:
                frame = self._again.popleft() if self._again else await self._mailbox.get()
            except MailboxClosed:
                break
            self._rate.take(time.monotonic_ns())
            await self._send(frame, link, session, sender)
        while session.unanswered:
            await self._next_answer()
        await link.send(self.statistics.report(self._source.name).text())
        leaving = self._stopping.is_set()
        await link.close(CloseCode.GOING_AWAY if leaving else CloseCode.NORMAL, "camera stopped")

    async def _until_room(self, session: CameraSession) -> None:
        """Wait until the window is open and rate control lets the next frame go."""
        try:
            while True:
                if not session.can_send:
                    self._rate_holds = False
                    self._room.hold()
                    await self._next_answer()
                    continue
                wait_ns = self._rate.wait_ns(time.monotonic_ns())
                if wait_ns == 0:
                    break
                self._rate_holds = True
                await self._next_answer(wait_ns)
        finally:
            self._rate_holds = False

    async def _send(self, frame: Frame, link: Link, session: CameraSession, sender: FeaturePipeline) -> None:
        clock = StageClock(frame.captured_ns)
        clock.lap("grab", time.monotonic_ns())
        stage = "head"
        try:
            tensors = await self._worker.run(_run_head, sender.head, frame)
            clock.lap(stage, time.monotonic_ns())
            stage = "encode"
            stamp = Stamp(session.next_sequence, frame.captured_ns, frame.height, frame.width)
            step = self._choose_step(sender.encoder)
            encoded = await self._worker.run(_encode, sender.encoder, step, tensors, stamp)
            clock.lap(stage, time.monotonic_ns())
        except asyncio.CancelledError:
            # The connection broke meanwhile: this frame shares the fate of those already sent.
            self._flights.append(InFlight(frame, {}))
            raise
        except Exception as error:  # whatever it is, it costs one frame
            self.statistics.frame_counts.drop(stage, "error")
            log.error("frame dropped", stage=stage, reason=f"{type(error).__name__}: {error}")
            return
        session.sent()
        self._flights.append(InFlight(frame, clock.durations_ns))
        self._keyframe_due = self._keyframe_due and not encoded.keyframe
        self._rate.send(len(encoded.data), encoded.keyframe, step, frame.captured_ns, time.monotonic_ns())
        self.statistics.send(encoded, raw_bytes(sender.head.layout))
        await link.send(encoded.data)
        clock.lap("send", time.monotonic_ns())
        self._newest = frame

    def _choose_step(self, encoder: Encoder) -> int | None:
        if not isinstance(encoder, Adjustable):
            return None
        choice = self._rate.choose(self._keyframe_due)
        self.statistics.choose(choice)
        return choice.step

    # --- receive ---

    async def _receive(
        self, link: Link, session: CameraSession, encoder: Encoder, meter: WireMeter, profile: Profile | None
    ) -> None:
        try:
            async for data in link:
                if isinstance(data, bytes):
                    raise SessionError(CloseCode.BAD_MESSAGE, "a binary message from the detector")
                match session.receive(data):
                    case Accepted(window):
                        self._backoff.reset()
                        self._rate.connect(window)
                        self.statistics.connect("detector")
                        log.info("streaming", detector=self.config.detector, window=window)
                    case ProfileRequested():
                        assert profile is not None
                        log.info("calibration profile sent", profile=profile.hash[:12])
                        await link.send(await self._worker.run(profile.pack))
                    case Acknowledged() as acknowledged:
                        self._on_acknowledged(acknowledged)
                    case Rejected(sequence, reason, detail):
                        self._flights.popleft()
                        self._rate.reject()
                        self._room.answer()
                        self.statistics.frame_counts.drop("detector", reason)
                        log.warning("packet rejected", sequence=sequence, reason=reason, detail=detail)
                    case KeyframeRequested():
                        await self._worker.run(encoder.force_keyframe)
                        self._keyframe_due = True
                meter.update()
                self._answered.set()
        except SessionError as error:
            await link.close(error.code, error.reason)
            raise ConnectionLost(f"the detector broke the protocol: {error.reason}") from None

    def _on_acknowledged(self, acknowledged: Acknowledged) -> None:
        now_ns = time.monotonic_ns()
        flight = self._flights.popleft()
        captured_ns = flight.frame.captured_ns
        stages_ns = {**flight.stages_ns, **acknowledged.stages_ns}
        stages_ns["network"] = network_ns(now_ns - captured_ns, flight.stages_ns, acknowledged.stages_ns)
        self.statistics.detect(captured_ns, now_ns, stages_ns, acknowledged.detections)
        self._room.answer()
        detector_ns = sum(acknowledged.stages_ns.values())
        self._room.compare(stages_ns["network"], detector_ns)
        self._rate.acknowledge(detector_ns, now_ns)
        self.statistics.observe_link(self._rate.link, self._rate.choice)

    async def _next_answer(self, timeout_ns: int | None = None) -> None:
        """Wait for the next answer, or for so long."""
        self._answered.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ns / 1e9 if timeout_ns is not None else None):
                await self._answered.wait()

    async def _report(self, link: Link) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            if self.statistics.connected["detector"]:
                text = self.statistics.report(self._source.name).text()
                self._rate.send_beside(len(text))
                await link.send(text)

    # --- pictures ---

    async def _picture(self, link: Link, session: CameraSession, canvas: tuple[int, int]) -> None:
        """About once a second: what the newest frame would take as a JPEG, and a preview of it where one may go."""
        while True:
            await asyncio.sleep(PICTURE_INTERVAL_S)
            frame, self._newest = self._newest, None
            if frame is None:
                continue
            preview = None
            try:
                self.statistics.measure_jpeg(await self._pictures.run(jpeg_bytes, frame, canvas))
                if self.config.preview and self._room.look():
                    preview = await self._pictures.run(preview_jpeg, frame)
            except Exception as error:  # whatever it is, it costs one picture and no frame
                log.warning("no picture", reason=f"{type(error).__name__}: {error}")
            if preview is not None:
                self._room.take(session.unanswered)
                text = Preview(jpeg=preview).text()
                self._rate.send_beside(len(text))
                await link.send(text)
                self.statistics.send_preview(len(preview))

    # --- what a lost connection and a stop leave behind ---

    def _settle_flights(self) -> None:
        """Decide about the frames that a lost connection left unanswered: a file's are sent again."""
        if self._source.live:
            self.statistics.frame_counts.drop("network", "connection_lost", len(self._flights))
        else:
            self._again.extendleft(flight.frame for flight in reversed(self._flights))
        self._flights.clear()

    def _drop_rest(self) -> None:
        counts = self.statistics.frame_counts
        counts.drop("network", "shutdown", len(self._flights))
        self._flights.clear()
        self._again.clear()
        counts.drop("grab", "shutdown", counts.in_flight)

    async def _end_when_told(self, running: asyncio.Future[Any]) -> None:
        """On a stop let the camera finish what it can in time, then end what runs."""
        await self._stopping.wait()
        await self._source.aclose()
        if self.statistics.connected["detector"]:
            await asyncio.wait([running], timeout=self.config.drain_s)
        running.cancel()


def _run_head(head: Head, frame: Frame) -> dict[str, FloatArray]:
    return head(Letterbox((frame.height, frame.width), head.size).apply(frame.image))


def _encode(encoder: Encoder, step: int | None, tensors: dict[str, FloatArray], stamp: Stamp) -> EncodedFrame:
    if step is not None:
        assert isinstance(encoder, Adjustable)
        encoder.step = step
    return encoder.encode(tensors, stamp)


def _warm_up(head: Head, codec: Codec) -> None:
    """Let torch choose its kernels and touch its memory before the first frame counts."""
    blank = Frame(Letterbox(head.size, head.size).blank(), captured_ns=0)
    codec.encoder(head.layout).encode(_run_head(head, blank), Stamp(0, 0, *head.size))


async def _until_over(running: asyncio.Future[Any]) -> None:
    try:
        await running
    except asyncio.CancelledError:
        # `stop` cancels what cannot be drained; a cancellation of the caller must go on.
        task = asyncio.current_task()
        if not running.cancelled() or (task and task.cancelling()):
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

    app.router.add_get("/metrics", camera.statistics.metrics.handle)
    app.router.add_get("/livez", live)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, camera.config.metrics_host, camera.config.metrics_port).start()
        yield
    finally:
        await runner.cleanup()
