"""A camera that only records: frame → head → encode → recorder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from codec.layout import raw_bytes
from codec.packet import Stamp
from codec.packet_file import MAX_FILE_PACKET_BYTES
from services.camera.outage_tape import OutageTape
from services.camera.pipeline import CanvasWatch, FeaturePipeline
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.camera.uplink import Feed
from services.recording.claim import RecordingClaim
from services.recording.recorder import Recorder
from services.recording.segment_writer import Written
from stream.frame import Frame
from stream.tasks.mailbox import MailboxClosed

log = structlog.get_logger(__name__)


class Tape:
    """Takes the place of an uplink where there is no detector. Lives for one `run`."""

    def __init__(
        self, config: CameraSettings, statistics: CameraStatistics, feed: Feed, pipeline: FeaturePipeline
    ) -> None:
        assert pipeline.recorder
        self._config, self._statistics, self._feed = config, statistics, feed
        self._pipeline, self._recorder = pipeline, pipeline.recorder
        self._sequence = 0
        self._canvases = CanvasWatch()

    async def run(self) -> Frame | None:
        """Record until the last frame; None then, or a frame that needs another canvas."""
        pipeline = self._pipeline
        pipeline.hello(self._config, self._statistics, session=None, live=self._feed.live)
        await pipeline.force_keyframe()
        while True:
            try:
                frame = await self._feed.next_frame()
            except MailboxClosed:
                return None
            if self._canvases.is_misfit(pipeline.canvas(self._config, frame), pipeline.head.size):
                return frame
            if not self._feed.live:
                await self._recorder.has_room()
            await self._record(frame)

    async def _record(self, frame: Frame) -> None:
        pipeline, stage = self._pipeline, "head"
        try:
            tensors = await pipeline.run_head(frame)
            stage = "encode"
            await pipeline.prepare_recording()
            stamp = Stamp(self._sequence, frame.captured_ns, frame.height, frame.width)
            encoded = await pipeline.encode(tensors, stamp, None, MAX_FILE_PACKET_BYTES)
        except Exception as error:  # whatever it is, it costs one frame
            self._statistics.frame_counts.drop(stage, "error")
            log.error("frame dropped", stage=stage, reason=f"{type(error).__name__}: {error}")
            return
        self._sequence = (self._sequence + 1) % 2**32
        self._statistics.send(encoded, raw_bytes(pipeline.head.layout))
        self._statistics.frame_counts.record()


@asynccontextmanager
async def camera_recording(
    config: CameraSettings, statistics: CameraStatistics, tape: OutageTape | None = None
) -> AsyncIterator[Recorder | None]:
    """The recorder of what the camera sends, or keeps in an outage; None where none is asked for."""
    if config.record is None:
        yield None
        return
    log.info(
        "what is sent is recorded, and shows what the camera sees to who reads it"
        if tape is None
        else "what an outage would lose is recorded, and sent late",
        folder=str(config.record),
    )

    def on_written(written: Written) -> None:
        statistics.record(written)
        if tape:
            tape.backlog.follow(written)

    folder, stream, limits = config.record, config.stream, config.recording_limits
    claim = RecordingClaim(folder, stream)
    if tape:
        await tape.backlog.look(claim)
    async with Recorder(folder, stream, limits, on_written, claim) as recorder:
        if tape:
            tape.recorder = recorder
        yield recorder
