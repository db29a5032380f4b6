"""What a camera has done so far: every count in one place, for Prometheus, the detector and people."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal, TypeAlias

from codec.interface import EncodedFrame
from services.camera.metrics import CameraMetrics
from services.clock import clock_now
from services.recording.segment_writer import Written
from stream.frame_counts import FrameCounts
from stream.latency import LatencySummary, StageStatistics
from stream.rate.control import REASONS, StepChoice
from stream.rate.link import LinkEstimate
from stream.session.messages import SOURCE_STATES, RateReport, Report, SourceState, StageReport
from stream.transport.websocket import WireBytes

Peer: TypeAlias = Literal["source", "detector"]


@dataclass(slots=True)
class Totals:
    """Sums over a camera's life."""

    packets: int = 0
    raw_bytes: int = 0
    encoded_bytes: int = 0
    detections: int = 0
    latency_ns: int = 0  # of all frames detected
    jpegs: int = 0  # frames that were measured as a JPEG
    jpeg_bytes: int = 0
    first_captured_ns: int = 0
    last_acknowledged_ns: int = 0


class CameraStatistics:
    """Counts once; the metrics follow."""

    def __init__(
        self,
        target_kbps: float | None = None,
        max_latency_ms: float | None = None,
        *,
        full_metrics: bool = True,
        fallback: bool = False,
        keeps: bool = False,
    ) -> None:
        self._target_kbps, self._max_latency_ms = target_kbps, max_latency_ms
        self.metrics = CameraMetrics(full=full_metrics, fallback=fallback, keeps=keeps)
        self.frame_counts = FrameCounts(
            self._export_drop, self.metrics.recorded.inc, self.metrics.detected_locally.inc
        )
        self.stages = StageStatistics()
        self.totals = Totals()
        self.keyframes: Counter[str] = Counter()
        self.reconnects: Counter[Peer] = Counter()
        self.frames_repeated = self.decode_errors = 0
        self.frozen = False  # the source's picture
        self._loss: dict[Peer, str] = {}  # why the peer was lost last, as metrics name it
        self.wire = WireBytes()
        self.source_trouble = ""  # why the source was lost last, for people
        self.connected: dict[Peer, bool | None] = {"source": None, "detector": None}  # None: not yet
        self.jpeg_bytes: int | None = None  # what the features are compared with
        self.rate: RateReport | None = None  # before the first answer
        self.metrics.age.set(float("nan"))
        self.metrics.step.set(float("nan"))
        self.metrics.rate_target.set(target_kbps * 125 if target_kbps else float("nan"))
        self.metrics.latency_target.set(max_latency_ms / 1e3 if max_latency_ms else float("nan"))
        self.metrics.jpeg_bytes.set(float("nan"))
        self._export_source_state()
        self.metrics.in_flight.set_function(lambda: self.frame_counts.in_flight)

    @property
    def frames_per_second(self) -> float:
        """Frames detected a second, from the first capture to the last acknowledgement."""
        elapsed_ns = self.totals.last_acknowledged_ns - self.totals.first_captured_ns
        return self.frame_counts.detected / elapsed_ns * 1e9 if elapsed_ns > 0 else 0.0

    @property
    def source_state(self) -> SourceState:
        """What the source does, as the detector is told."""
        if self.connected["source"]:
            return "frozen" if self.frozen else "open"
        return "opening" if self.connected["source"] is None else "lost"

    def connect(self, peer: Peer) -> None:
        """The source or the detector is there, for the first time or again."""
        if self.connected[peer] is False:
            self.reconnects[peer] += 1
            self.metrics.reconnects.labels(peer, self._loss[peer]).inc()
        self.connected[peer] = True
        self.metrics.connected.labels(peer).set(1)
        self.metrics.retry_at.labels(peer).set(math.nan)
        self._export_source_state()

    @property
    def welcomes(self) -> int:
        """How often a detector has let this camera in."""
        return 0 if self.connected["detector"] is None else 1 + self.reconnects["detector"]

    def disconnect(self, peer: Peer, reason: str) -> None:
        """The source or the detector is gone, for a reason of metrics'; nothing changes if it was not there."""
        if self.connected[peer]:
            self._loss[peer] = reason
            self.connected[peer] = False
            self.metrics.connected.labels(peer).set(0)
            self._export_source_state()

    def retry(self, peer: Peer, delay_s: float) -> None:
        """The source or the detector will be tried again."""
        self.metrics.retry_at.labels(peer).set(time.time() + delay_s)

    def freeze(self, frozen: bool) -> None:
        """The source's picture stands still, or moves again."""
        self.frozen = frozen
        self._export_source_state()

    def repeat(self, count: int) -> None:
        """Frames came whose picture is that of the frame before."""
        self.frames_repeated += count
        self.metrics.repeated.inc(count)

    def damage(self, count: int) -> None:
        """Coded data of the source was damaged."""
        self.decode_errors += count
        self.metrics.decode_errors.inc(count)

    def capture(self, captured_ns: int) -> None:
        """A frame entered this process."""
        self.frame_counts.capture()
        self.metrics.captured.inc()
        self.totals.first_captured_ns = self.totals.first_captured_ns or captured_ns

    def miss(self, reason: str, count: int = 1) -> None:
        """Frames were captured but lost before this process saw them."""
        self.metrics.captured.inc(count)
        self.frame_counts.miss(reason, count)

    def send(self, encoded: EncodedFrame, raw_bytes: int) -> None:
        """A packet went out, in place of tensors of `raw_bytes`."""
        self.totals.packets += 1
        self.totals.raw_bytes += raw_bytes
        self.totals.encoded_bytes += len(encoded.data)
        self.metrics.packets.inc()
        self.metrics.raw_bytes.inc(raw_bytes)
        self.metrics.encoded_bytes.inc(len(encoded.data))
        if encoded.keyframe:
            reason = encoded.keyframe_reason or "always"
            self.keyframes[reason] += 1
            self.metrics.keyframes.labels(reason).inc()

    def detect(self, captured_ns: int, now_ns: int, stages_ns: dict[str, int], detections: int) -> None:
        """A frame was acknowledged; its stages are durations in ns."""
        self.frame_counts.detect()
        self.stages.add(stages_ns)
        self.totals.detections += detections
        self.totals.latency_ns += now_ns - captured_ns
        self.totals.last_acknowledged_ns = now_ns
        self.metrics.detected.inc()
        self.metrics.detections.inc(detections)
        self.metrics.latency.observe((now_ns - captured_ns) / 1e9)
        self.metrics.observe_stages(self.metrics.stage, stages_ns)
        self.metrics.age.set_function(lambda: (time.monotonic_ns() - captured_ns) / 1e9)

    def choose(self, choice: StepChoice) -> None:
        """The step of the next frame was chosen."""
        self.metrics.step.set(choice.step)
        for reason in REASONS:
            self.metrics.rate_reason.labels(reason).set(reason == choice.reason)

    def observe_link(self, link: LinkEstimate, choice: StepChoice | None) -> None:
        """An answer has told about the link; `choice` is the last one."""
        self.metrics.link_rate.set(link.kbps * 125)
        self.metrics.link_delay.set(link.base_ms / 1e3)
        self.metrics.link_queue.set(link.queue_ms / 1e3)
        self.rate = RateReport(
            step=choice.step if choice else None,
            reason=choice.reason if choice else None,
            target_kbps=self._target_kbps,
            max_latency_ms=self._max_latency_ms,
            link_kbps=round(link.kbps, 1),
            queue_ms=round(link.queue_ms, 1),
        )

    def measure_jpeg(self, size: int) -> None:
        """The newest frame would take so many bytes as a JPEG, which is not sent."""
        self.jpeg_bytes = size
        self.totals.jpegs += 1
        self.totals.jpeg_bytes += size
        self.metrics.jpeg_bytes.set(size)

    def send_preview(self, size: int) -> None:
        """A preview went out: a JPEG of so many bytes."""
        self.metrics.preview_bytes.inc(size)

    def record(self, written: Written) -> None:
        """Packets were written to the recording, or lost for it."""
        self.metrics.recorded_packets.inc(written.packets)
        self.metrics.recorded_bytes.inc(written.packet_bytes)
        for cause, count in written.lost.items():
            self.metrics.recording_lost.labels(cause).inc(count)

    def settle_late(self, outcome: str, count: int) -> None:
        """Packets that were kept in an outage joined those that wait ("kept"), or wait no more."""
        if outcome == "kept":
            self.metrics.late_kept.inc(count)
        else:
            self.metrics.late_packets.labels(outcome).inc(count)

    def guide(self) -> None:
        """The detector has sent a step map."""
        self.metrics.step_maps.inc()

    def report(self, source: str) -> Report:
        """All of it as the detector is told; `source` is a name without credentials."""
        latency = self.stages.latency()
        return Report(
            captured=self.frame_counts.captured,
            detected=self.frame_counts.detected,
            in_flight=self.frame_counts.in_flight,
            dropped={
                f"{stage}/{reason}": count for (stage, reason), count in self.frame_counts.dropped.items()
            },
            reconnects={str(peer): count for peer, count in self.reconnects.items()},
            source=source[:1024],
            source_state=self.source_state,
            keyframes=dict(self.keyframes),
            latency=_stage_report(latency) if latency else None,
            latency_sum_ms=round(self.totals.latency_ns / 1e6, 3),
            stages={stage: _stage_report(summary) for stage, summary in self.stages.by_stage().items()},
            rate=self.rate,
            jpeg_bytes=self.jpeg_bytes,
            clock=clock_now(),
            frames_repeated=self.frames_repeated,
            decode_errors=self.decode_errors,
            detected_locally=self.frame_counts.detected_locally,
            recorded=self.frame_counts.recorded,
        )

    def _export_source_state(self) -> None:
        for state in SOURCE_STATES:
            self.metrics.source_state.labels(state).set(state == self.source_state)

    def _export_drop(self, stage: str, reason: str, count: int) -> None:
        self.metrics.dropped.labels(stage, reason).inc(count)


def _stage_report(summary: LatencySummary) -> StageReport:
    return StageReport(mean_ms=round(summary.mean_ms, 3), p95_ms=round(summary.p95_ms, 3))
