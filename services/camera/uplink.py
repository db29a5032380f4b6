"""One connection from a camera to its detector: frame → head → encode → packet → link, and the answers back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from codec.layout import raw_bytes
from codec.packet import Stamp
from services.camera.picture_sender import PictureSender
from services.camera.pipeline import CanvasWatch, FeaturePipeline, PacketTooLarge
from services.camera.reconnection import loss_reason
from services.camera.reports import Reports
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.certificates import client_tls
from services.metrics import VERSION, WireMeter
from services.own_token import current_headers
from stream.addresses import features_url
from stream.errors import ConnectionLost
from stream.frame import Frame
from stream.frame_pace import FramePace
from stream.latency import StageClock, network_ns
from stream.rate.control import RateControl
from stream.rate.link import SentPacket
from stream.session.camera import (
    Accepted,
    Acknowledged,
    CameraEvent,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
    RetryAdvised,
    StepMapReceived,
    WindowChanged,
)
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, LOST_REFERENCE, Waiting
from stream.tasks.background import run_with_background
from stream.tasks.mailbox import MailboxClosed
from stream.transport.answers import answers
from stream.transport.liveness import Idle
from stream.transport.websocket import Link, connect

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 1.0
WAITING_INTERVAL_S = 1.0
DEAD_S = 10.0  # without a byte from a detector that owes nothing: both ends ping
# A detector that has what it should answer, and lives, may be busy with other cameras, but not for ever.
ANSWER_S = 60.0
DEAF_S = 300.0  # without an answer to a packet or a ping: the slowest link has moved megabytes by then


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """A frame that was sent and waits for its answer."""

    frame: Frame
    keyframe: bool
    packet: SentPacket  # as rate control knows it
    stages_ns: dict[str, int]  # `send` joins once the link has taken the packet


@dataclass(frozen=True, slots=True)
class Feed:
    """Where an uplink's frames come from."""

    name: str  # of the source, without credentials
    live: bool
    next_frame: Callable[[], Awaitable[Frame]]  # raises MailboxClosed after the last one
    stopping: asyncio.Event  # set where that one is the last because the camera stops


class Uplink:
    """One connection: hello, packets out and answers in, reports and pictures beside them, close.

    Until there is a `pipeline` it says that it waits. Lives for one `run`; what a lost connection leaves unanswered,
    `drain` gives back.
    """

    def __init__(
        self,
        config: CameraSettings,
        statistics: CameraStatistics,
        feed: Feed,
        pipeline: asyncio.Future[FeaturePipeline],
        secret: str,
    ) -> None:
        self.rate_holds = False  # a frame back
        self.retry_after_s: float | None = None  # as the detector asked, before it closed
        self._config, self._statistics, self._feed = config, statistics, feed
        self._preparing, self._secret = pipeline, secret
        self._session: CameraSession[InFlight] = CameraSession(config.window)
        self._answered = asyncio.Event()
        self._in_work: Frame | None = None  # in head or encoder
        self._keyframe_due = True  # the next packet will be one, as far as this end knows
        self._pace = FramePace()  # as the detector's welcome has it
        self._canvases = CanvasWatch()
        self._reports = Reports(statistics)
        self._pictures = PictureSender(self._session, statistics, config.preview)

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

    async def run(self) -> Frame | None:
        """Serve the connection until the last frame is answered; None then, or a frame that needs another canvas.

        Raises ConnectionLost.
        """
        meter = None
        try:
            async with _connected(self._config) as link:
                meter = WireMeter(self._statistics.metrics, link.wire, self._statistics.wire)
                return await run_with_background(
                    self._stream(link),
                    self._receive(link, meter),
                    _wake_on_stop(self._feed.stopping, self._answered),
                    _watch(link, self._session, self._config.silence_s),
                )
        except ConnectionLost as lost:
            self._statistics.disconnect("detector", loss_reason(lost))
            raise
        finally:
            self._statistics.disconnect("detector", "resized")  # or it is of no interest any more
            self._pictures.close()
            if meter:
                meter.update()

    @property
    def _pipeline(self) -> FeaturePipeline:
        """From the hello on."""
        return self._preparing.result()

    # --- send ---

    async def _stream(self, link: Link) -> Frame | None:
        """All that this end has to say."""
        while not self._preparing.done():
            await link.send(_waiting(self._config, self._statistics, self._feed.name, self._secret).text())
            await asyncio.wait([self._preparing], timeout=WAITING_INTERVAL_S)
        pipeline, live = self._pipeline, self._feed.live
        hello = pipeline.hello(self._config, self._statistics, session=self._secret, live=live)
        profile = pipeline.codec.profile
        await link.send(self._session.introduce(hello, profile.hash if profile else None))
        return await run_with_background(
            self._send_frames(link), self._send_reports(link), self._pictures.run(link, pipeline)
        )

    async def _send_frames(self, link: Link) -> Frame | None:
        is_first = True
        while True:
            try:
                await self._until_open()
                frame = await self._feed.next_frame()
            except MailboxClosed:
                break
            self._in_work = frame
            canvas = self._pipeline.canvas(self._config, frame)
            if self._canvases.is_misfit(canvas, self._pipeline.head.size):
                await self._finish(link, CloseCode.GOING_AWAY, "the picture's size changed")
                self._in_work = None
                return frame
            if is_first:  # not before: until now the encoder may have been another's
                await self._pipeline.force_keyframe()
                is_first = False
            _take(self._pipeline.rate, self._pace)
            await self._send(link, frame)
        leaving = self._feed.stopping.is_set()
        await self._finish(link, CloseCode.GOING_AWAY if leaving else CloseCode.NORMAL, "camera stopped")
        return None

    async def _finish(self, link: Link, code: CloseCode, reason: str) -> None:
        """Wait for the last answers, and close."""
        while self._session.unanswered:
            await _next(self._answered)
        await link.send(self._reports.text(self._feed.name, time.monotonic_ns()))
        await link.close(code, reason)

    async def _until_open(self) -> None:
        """Wait until window, rate control and the token let the next frame go. Raises MailboxClosed on a stop."""
        try:
            while True:
                if not self._session.can_send:
                    self.rate_holds = False
                    self._pictures.gate.hold()
                    await _next(self._answered)
                    continue
                unanswered = [sent.packet for sent in self._session.unanswered]
                wait_ns = _wait_ns(self._pipeline.rate, self._pace, unanswered)
                if wait_ns == 0:
                    break
                if self._feed.stopping.is_set():  # a token may allow one frame an hour
                    raise MailboxClosed
                self.rate_holds = True
                await _next(self._answered, wait_ns)
        finally:
            self.rate_holds = False

    async def _send(self, link: Link, frame: Frame) -> None:
        pipeline, session, clock = self._pipeline, self._session, StageClock(frame.captured_ns)
        clock.lap("grab", time.monotonic_ns())
        stage = "head"
        try:
            tensors = await pipeline.run_head(frame)
            clock.lap(stage, time.monotonic_ns())
            stage = "encode"
            stamp = Stamp(session.next_sequence, frame.captured_ns, frame.height, frame.width)
            self._keyframe_due |= await pipeline.prepare_recording()
            step = self._choose_step()
            step_map = session.take_step_map()
            encoded = await pipeline.encode(tensors, stamp, step, session.max_packet_bytes, step_map)
            clock.lap(stage, time.monotonic_ns())
        except Exception as error:  # whatever it is, it costs one frame
            self._in_work = None
            self._keyframe_due |= stage == "encode"
            self._statistics.frame_counts.drop(
                stage, "too_large" if isinstance(error, PacketTooLarge) else "error"
            )
            log.error("frame dropped", stage=stage, reason=f"{type(error).__name__}: {error}")
            return
        packet = pipeline.rate.send(
            len(encoded.data), encoded.keyframe, step, frame.captured_ns, time.monotonic_ns()
        )
        session.sent(InFlight(frame, encoded.keyframe, packet, clock.durations_ns))
        self._in_work = None
        self._keyframe_due = self._keyframe_due and not encoded.keyframe
        self._statistics.send(encoded, raw_bytes(pipeline.head.layout))
        await link.send(encoded.data)
        clock.lap("send", time.monotonic_ns())
        self._pictures.newest = frame

    def _choose_step(self) -> int | None:
        if self._pipeline.steps is None:
            return None
        choice = self._pipeline.rate.choose(self._keyframe_due)
        self._statistics.choose(choice)
        return choice.step

    # --- receive ---

    async def _receive(self, link: Link, meter: WireMeter) -> None:
        async for event in answers(link, self._session):
            await self._on_event(link, event)
            meter.update()
            self._answered.set()

    async def _on_event(self, link: Link, event: CameraEvent[InFlight]) -> None:
        match event:
            case Accepted(window, frames_per_s):
                self._pipeline.rate.connect(window)
                self._pace.limit(frames_per_s)
                self._statistics.connect("detector")
                log.info("streaming", detector=self._config.detector, window=window)
            case ProfileRequested():
                profile = self._pipeline.codec.profile
                assert profile is not None
                log.debug("calibration profile sent", profile=profile.hash[:12])
                await link.send(await self._pipeline.worker.run(profile.pack))
            case Acknowledged() as acknowledged:
                self._on_acknowledged(acknowledged)
            case Rejected() as rejected:
                await self._on_rejected(rejected)
            case KeyframeRequested():
                await self._force_keyframe()
            case WindowChanged(window):
                log.debug("window changed", window=window)
            case StepMapReceived():
                self._statistics.guide()
            case RetryAdvised(after_s):
                self.retry_after_s = after_s

    async def _on_rejected(self, rejected: Rejected[InFlight]) -> None:
        reason = rejected.reason
        self._pipeline.rate.reject()
        self._statistics.frame_counts.reject(reason)
        level = logging.DEBUG if reason == "stale" else logging.WARNING  # a busy detector's everyday
        log.log(level, "packet rejected", sequence=rejected.sequence, reason=reason, detail=rejected.detail)
        # Without what was in it the differences behind it are of no use; a frame that only was late was decoded.
        if reason in LOST_REFERENCE or (rejected.frame.keyframe and reason != "stale"):
            await self._force_keyframe()

    async def _force_keyframe(self) -> None:
        """Make the next packet a keyframe, but where one is already on its way."""
        if not any(sent.keyframe for sent in self._session.unanswered):
            self._keyframe_due = True
            await self._pipeline.force_keyframe()

    def _on_acknowledged(self, acknowledged: Acknowledged[InFlight]) -> None:
        sent, detector_stages_ns, now_ns = acknowledged.frame, acknowledged.stages_ns, time.monotonic_ns()
        captured_ns, rate = sent.frame.captured_ns, self._pipeline.rate
        stages_ns = {**sent.stages_ns, **detector_stages_ns}
        stages_ns["network"] = network_ns(now_ns - captured_ns, sent.stages_ns, detector_stages_ns)
        self._statistics.detect(captured_ns, now_ns, stages_ns, acknowledged.detections)
        detector_ns = sum(detector_stages_ns.values())
        self._pictures.gate.compare(stages_ns["network"], detector_ns)
        rate.acknowledge(sent.packet, detector_ns, now_ns)
        self._statistics.observe_link(rate.link, rate.choice)

    # --- beside the frames ---

    async def _send_reports(self, link: Link) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            text = self._reports.due(self._feed.name, time.monotonic_ns()) if self.accepted else None
            if text is not None:
                self._pipeline.rate.send_beside(len(text))
                await link.send(text)


async def _wake_on_stop(stopping: asyncio.Event, answered: asyncio.Event) -> None:
    """Let who waits for an answer see that the camera stops."""
    await stopping.wait()
    answered.set()


async def _next(event: asyncio.Event, timeout_ns: int | None = None) -> None:
    """Wait until the event is set anew, or for so long."""
    event.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_ns / 1e9 if timeout_ns is not None else None):
            await event.wait()


def _wait_ns(rate: RateControl, pace: FramePace, unanswered: list[SentPacket]) -> int | None:
    """How long the next frame should not be taken yet; 0: take it, None: not before an answer."""
    now_ns = time.monotonic_ns()
    wait_ns = rate.wait_ns(now_ns, unanswered)
    return None if wait_ns is None else max(wait_ns, pace.wait_ns(now_ns))


def _take(rate: RateControl, pace: FramePace) -> None:
    """A frame is taken from the source."""
    now_ns = time.monotonic_ns()
    rate.take(now_ns)
    pace.take(now_ns)


@asynccontextmanager
async def _connected(config: CameraSettings) -> AsyncIterator[Link]:
    """A link to the detector, by the token and the certificates as they are now. Raises ConnectionLost."""
    url, headers = features_url(config.detector, config.stream), await current_headers(config)
    async with connect(url, FEATURES_PROTOCOL, headers=headers, tls=client_tls(config)) as link:
        yield link


async def _watch(link: Link, session: CameraSession[InFlight], silence_s: float) -> None:
    """Leave a detector that is dead, or does not answer though it lives. Raises ConnectionLost."""
    now_s = time.monotonic()
    unanswering, deaf = Idle(0, now_s), Idle(0, now_s)
    owed, since_ns = (False, 0), 0
    idle = on_the_way = 0  # looks at which there is no answer to wait for, or not yet, count as progress
    async for silent_s in link.watch():
        limit_s = silence_s if session.owed or not session.accepted else max(silence_s, DEAD_S)
        if silent_s >= limit_s:
            raise ConnectionLost(f"nothing came from the detector for {limit_s:g} s", answered=False)
        now_s = time.monotonic()
        if owed != (session.owed, session.answered):
            owed, since_ns = (session.owed, session.answered), time.monotonic_ns()
        idle += not session.owed
        on_the_way += link.delivered_ns <= since_ns
        if unanswering.look(session.answered + idle + on_the_way, now_s) >= ANSWER_S:
            raise ConnectionLost(f"the detector has not answered for {ANSWER_S:g} s", answered=False)
        if deaf.look(session.answered + idle + link.delivered_ns, now_s) >= DEAF_S:
            raise ConnectionLost(f"the detector has taken nothing for {DEAF_S:g} s", answered=False)


def _waiting(config: CameraSettings, statistics: CameraStatistics, source: str, secret: str) -> Waiting:
    return Waiting(
        stream=config.stream,
        session=secret,
        source=source[:1024],
        source_state=statistics.source_state,
        reason=statistics.source_trouble[:256],
        software=f"splitcast/{VERSION}",
    )
