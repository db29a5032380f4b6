"""The camera service: a source, a pipeline, and one uplink after another for ever, until the source ends or a stop."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

import structlog

from services.camera.local_tail import make_local_tail
from services.camera.outage import Outage, Taker
from services.camera.outage_tape import make_outage_tape
from services.camera.preparation import Preparation
from services.camera.reconnection import Reconnection
from services.camera.session_secret import SessionSecret
from services.camera.settings import CameraSettings
from services.camera.source_events import follow_source
from services.camera.statistics import CameraStatistics
from services.camera.tape import Tape, camera_recording
from services.camera.uplink import Feed, Uplink
from services.environment import give_memory_back
from services.errors import NothingDetected
from services.loading import LoadedModel, load_network
from services.recording.recorder import Recorder
from stream.canvas import check_size, parse_size
from stream.errors import ConnectionLost
from stream.frame import Frame
from stream.frame_counts import FrameCounts
from stream.sources.base import CaptureOptions, SourceConnected, SourceEvent
from stream.sources.opening import open_source
from stream.tasks.background import run_with_background
from stream.tasks.mailbox import Mailbox
from stream.tasks.worker import Worker

log = structlog.get_logger(__name__)

GIVE_BACK_S = 10.0  # it costs some milliseconds, and as much again to take back what is needed


class Camera:
    """One source, one detector; lives until the source ends or `stop` is called.

    Without a detector it only records.
    """

    def __init__(self, config: CameraSettings, *, has_detector: bool = True) -> None:
        self.config, self._has_detector = config, has_detector
        self.statistics = CameraStatistics(
            config.target_kbps,
            config.max_latency_ms,
            full_metrics=config.metrics == "full",
            fallback=config.fallback is not None,
            keeps=config.record_when == "disconnected",
        )
        self.loaded = asyncio.Event()  # set once the network is loaded
        self._codec = str(config.parsed_codec)
        self._worker = Worker("camera")
        self._recorder: Recorder | None = None  # of what is sent, where that is asked for
        self._preparation = Preparation(config, self._worker)
        self._uplink: Uplink | None = None  # the newest
        self._stopping = asyncio.Event()
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._requeued: deque[Frame] = deque()  # a file's frames that a lost connection left unanswered
        self._reconnection = Reconnection(random.Random())
        self._source = open_source(
            config.source,
            CaptureOptions(
                open_timeout_s=config.open_timeout_s,
                read_timeout_s=config.read_timeout_s,
                rtsp_transport=config.rtsp_transport,
                realtime=config.realtime,
                loop=config.loop,
            ),
            on_event=self._on_source_event,
        )
        self.local_tail = make_local_tail(config, self.statistics, self._worker, self._source)
        self.tape = make_outage_tape(config, self.statistics, live=self._source.live)
        takers: list[Taker | None] = [self.local_tail, self.tape]  # of what no detector gets
        self._takers = [taker for taker in takers if taker]
        self._outage = Outage(
            config, self.statistics.frame_counts, self._preparation, self._next_frame, self._takers
        )
        self.statistics.metrics.queue.labels("unanswered").set_function(lambda: self.unanswered)
        self.statistics.metrics.queue.labels("worker").set_function(lambda: self._worker.queue_length)

    @property
    def unanswered(self) -> int:
        """Packets on their way: sent, and neither acknowledged nor rejected."""
        return self._uplink.unanswered if self._uplink else 0

    @property
    def recorded(self) -> tuple[int, int]:
        """Packets that were written to the recording, and that were lost for it."""
        return (self._recorder.packets, self._recorder.lost.total()) if self._recorder else (0, 0)

    def stop(self) -> None:
        """Capture no more, let what is in flight be answered, close."""
        self._stopping.set()

    async def run(self) -> None:
        """Stream until the source ends or `stop` is called.

        Raises SourceError where the source can never open, DetectorRefused where the detector will never accept,
        WeightsError or CheckpointError where there is no network to run, InvalidSize where it cannot have `--size`.
        """
        async with camera_recording(self.config, self.statistics, self.tape) as self._recorder:
            await self._run()

    async def _run(self) -> None:
        config, counts = self.config, self.statistics.frame_counts
        if config.preview:
            log.warning("pixels leave this camera: about once a second a small picture is sent (--preview)")
        try:
            loading = asyncio.ensure_future(self._worker.run(_load, config))
            await run_with_background(_until_over(loading), self._drain_on_stop(loading))
            if loading.cancelled():
                return
            network = loading.result()
            del loading
            check_size(parse_size(config.size), network.model.stride)
            self.loaded.set()
            labels = (config.stream, network.name, config.split, self._codec)
            self.statistics.metrics.info.labels(*labels).set(1)
            streaming = asyncio.ensure_future(self._stream(network))
            del network  # the head keeps only its own layers
            async with self._source:
                await run_with_background(
                    _until_over(streaming),
                    self._grab(),
                    self._drain_on_stop(streaming),
                    self._give_memory_back(),
                    self.statistics.metrics.measure_loop_delay(),
                )
            if counts.captured and not counts.kept and not self._stopping.is_set():
                raise NothingDetected(_why_nothing(counts, "detected" if self._has_detector else "recorded"))
        finally:
            self._drop_remaining()
            self._worker.close()
            log.info("camera stopped", **counts.account)

    async def _give_memory_back(self) -> None:
        """Between frames hand back what freed tensors left in the heap: the holes between those that live add up."""
        while True:
            await asyncio.sleep(GIVE_BACK_S)
            await self._worker.run(give_memory_back)

    # --- grab ---

    async def _grab(self) -> None:
        counts = self.statistics.frame_counts
        async for frame in self._source:
            self.statistics.capture(frame.captured_ns)
            if not self._source.live:
                await self._mailbox.put_wait(frame)
            else:
                if self._preparation.newest:
                    self._preparation.newest.rate.capture(frame.captured_ns)
                if self._mailbox.put(frame) is not None:
                    counts.drop("grab", self._why_superseded())
            if self.config.frames and counts.captured >= self.config.frames:
                break
        self._preparation.frame_size.cancel()  # nothing, if a frame has come: without one there is nothing to stream
        self._mailbox.close()

    def _why_superseded(self) -> str:
        if self._has_detector and not self.statistics.connected["detector"]:
            return "superseded" if self._outage.takes else "disconnected"
        return "rate" if self._uplink and self._uplink.rate_holds else "superseded"

    def _on_source_event(self, event: SourceEvent) -> None:
        if isinstance(event, SourceConnected) and not self._preparation.frame_size.done():
            self._preparation.frame_size.set_result((event.height, event.width))
        follow_source(event, self._source.name, self.statistics)

    # --- stream ---

    async def _stream(self, network: LoadedModel) -> None:
        """Connect until the last frame is answered. Raises DetectorRefused."""
        if self.local_tail:
            await self.local_tail.load(network)
        self._preparation.begin(network, None if self.tape else self._recorder)
        del network
        if not self._has_detector:
            await self._keep_recording()
            return
        secret = await self._worker.run(SessionSecret, self.config.stream)
        try:
            await run_with_background(
                _first_of(self._keep_connected(secret.text), self._outage.run()),
                _outcome(self._preparation.pipeline),
            )
        finally:
            self._preparation.cancel()
            secret.close()

    async def _keep_connected(self, secret: str) -> None:
        """One uplink after another, until the last frame is answered. Raises DetectorRefused."""
        preparation = self._preparation
        feed = Feed(self._source.name, self._source.live, self._next_frame_to_send, self._stopping)
        self._begin_outage("none has been there")
        await preparation.wait_a_little()
        while True:
            self._uplink = uplink = Uplink(self.config, self.statistics, feed, preparation.pipeline, secret)
            try:
                misfit = await uplink.run()
            except ConnectionLost as lost:
                self._requeue_or_drop(uplink.drain())
                self._begin_outage(lost.reason)
                await self._wait_for_detector(lost, uplink)
            else:
                if misfit is None:
                    return
                self._requeued.appendleft(misfit)
                preparation.follow(misfit)
                await preparation.wait_a_little()

    async def _keep_recording(self) -> None:
        """One tape after another, each of pictures of one size, until the last frame is recorded."""
        preparation = self._preparation
        feed = Feed(self._source.name, self._source.live, self._next_frame, self._stopping)
        while True:
            misfit = await Tape(self.config, self.statistics, feed, await preparation.pipeline).run()
            if misfit is None:
                return
            self._requeued.appendleft(misfit)
            preparation.follow(misfit)

    def _begin_outage(self, reason: str) -> None:
        if self._source.live:  # a file waits for the detector
            self._outage.begin(reason)

    async def _wait_for_detector(self, lost: ConnectionLost, uplink: Uplink) -> None:
        """Until it is time to try again. Raises DetectorRefused."""
        delay_s = self._reconnection.next_delay_s(
            lost, time.monotonic(), accepted=uplink.accepted, after_s=uplink.retry_after_s
        )
        self.statistics.retry("detector", delay_s)
        log.warning(
            "no detector",
            detector=self.config.detector,
            reason=lost.reason,
            code=lost.code,
            retry_s=round(delay_s, 2),
        )
        await asyncio.sleep(delay_s)

    async def _next_frame_to_send(self) -> Frame:
        """What an uplink pulls once it may send: there is a detector again."""
        await self._outage.end()
        return await self._next_frame()

    async def _next_frame(self) -> Frame:
        while True:
            frame = self._requeued.popleft() if self._requeued else await self._mailbox.get()
            age_ns = time.monotonic_ns() - frame.captured_ns
            keeps = self.tape is not None and self._outage.lasts  # whose frames come late anyway
            if not self._source.live or keeps or age_ns <= self.config.silence_s * 1e9:
                return frame
            self.statistics.frame_counts.drop("grab", "stale")

    # --- what a lost connection and a stop leave behind ---

    def _requeue_or_drop(self, unanswered: list[Frame]) -> None:
        """Decide about the frames that a lost connection left unanswered: they are sent again, or kept, or lost."""
        if self._source.live and not self.tape:
            self.statistics.frame_counts.drop("network", "connection_lost", len(unanswered))
        else:
            self._requeued.extendleft(reversed(unanswered))

    def _drop_remaining(self) -> None:
        counts = self.statistics.frame_counts
        if self._uplink is not None:
            counts.drop("network", "shutdown", len(self._uplink.drain()))
        self._requeued.clear()
        counts.drop("grab", "shutdown", counts.in_flight)

    async def _drain_on_stop(self, running: asyncio.Future[Any]) -> None:
        """On a stop let the camera finish what it can in time, then end what runs."""
        await self._stopping.wait()
        await self._source.aclose()
        if self.statistics.connected["detector"] or not self._has_detector:
            await asyncio.wait([running], timeout=self.config.drain_s)
        running.cancel()


def _load(config: CameraSettings) -> LoadedModel:
    """The network, and the codec's kernels: all that takes long and needs no picture."""
    config.parsed_codec.load()
    return load_network(config)


async def _until_over(running: asyncio.Future[Any]) -> None:
    try:
        await running
    except asyncio.CancelledError:
        # `stop` cancels what cannot be drained; a cancellation of the caller must go on.
        task = asyncio.current_task()
        if not running.cancelled() or (task and task.cancelling()):
            raise


async def _first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Until one of them is over, which then ends the others."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks


async def _outcome(future: asyncio.Future[Any]) -> None:
    """Raise what the future raises."""
    await asyncio.shield(future)


def _why_nothing(counts: FrameCounts, outcome: str) -> str:
    causes = ", ".join(
        f"{count} {stage}/{reason}" for (stage, reason), count in counts.dropped.most_common(3)
    )
    return f"none of {counts.captured} frames was {outcome} ({causes}); the log says why"
