"""What an outage would lose goes to the recording: frame and tensors → encode → recorder."""

from __future__ import annotations

from typing import Literal

from codec.layout import FloatArray
from codec.packet import Stamp
from codec.packet_file import MAX_FILE_PACKET_BYTES
from services.camera.outage import Outcome
from services.camera.pipeline import FeaturePipeline
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.errors import SettingsError
from services.recording.backlog import Backlog
from services.recording.recorder import Recorder
from stream.frame import Frame


class OutageTape:
    """Takes every frame of an outage, from its begin on; each outage has files of its own, which wait in `backlog`."""

    stage: Literal["encode"] = "encode"

    def __init__(self, config: CameraSettings, statistics: CameraStatistics, backlog: Backlog) -> None:
        self.backlog = backlog
        self.recorder: Recorder | None = None  # while the camera runs
        self._config, self._statistics = config, statistics
        self._pipeline: FeaturePipeline | None = (
            None  # whose packets the file has; None: no outage, or nothing yet
        )
        self._sequence = 0

    def due(self, outage_s: float) -> bool:
        """Always: what the first moments of an outage show would be lost too."""
        return True

    def begin(self, reason: str) -> None:
        """Nothing yet: a file begins with its first frame."""

    async def take(
        self, frame: Frame, tensors: dict[str, FloatArray], pipeline: FeaturePipeline
    ) -> Outcome | None:
        """Record the frame. What the recorder cannot write it counts itself."""
        assert self.recorder
        begins = pipeline is not self._pipeline
        if begins:
            hello = pipeline.hello(self._config, self._statistics, session=None, live=True)
            # By this a later start knows the file from those that were recorded to be kept.
            self.recorder.begin(hello.model_copy(update={"late": True}), pipeline.codec.profile)
            self._pipeline = pipeline
        if begins or self.recorder.take_keyframe_due():
            await pipeline.force_keyframe()
        stamp = Stamp(self._sequence, frame.captured_ns, frame.height, frame.width)
        # No link is to be spared.
        step = pipeline.steps.finest if pipeline.steps else None
        encoded = await pipeline.encode(tensors, stamp, step, MAX_FILE_PACKET_BYTES)
        self._sequence = (self._sequence + 1) % 2**32
        self.recorder.offer(encoded, frame.captured_ns)
        return "recorded"

    def end(self) -> None:
        """There is a detector again: what was recorded can be sent. May be called again."""
        if self._pipeline is not None and self.recorder:
            self._pipeline = None
            self.recorder.end_file()


def make_outage_tape(
    config: CameraSettings, statistics: CameraStatistics, *, live: bool
) -> OutageTape | None:
    """The tape of a camera that keeps what an outage would lose; None of others. Raises SettingsError."""
    if config.record is None or config.record_when != "disconnected":
        return None
    if not live:
        raise SettingsError(
            "--record-when disconnected: a file waits for the detector, and loses nothing; "
            "with --realtime it is played as a live source"
        )
    backlog = Backlog(config.record, config.stream, statistics.settle_late)
    statistics.metrics.late_waiting.set_function(lambda: backlog.waiting)
    return OutageTape(config, statistics, backlog)
