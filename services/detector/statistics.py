"""What a detector has done so far: every count in one place, for Prometheus and for the streams it shows. No clock."""

from __future__ import annotations

from codec.layout import raw_bytes
from services.detector.metrics import DetectorMetrics
from services.detector.streams import Ending, Stream, Streams
from stream.session.close_codes import CloseCode
from stream.session.messages import RejectReason


class DetectorStatistics:
    """Counts once; metrics and streams follow. `now_ns` is monotonic."""

    def __init__(self, streams: Streams) -> None:
        self.metrics = DetectorMetrics(streams)
        self._last_frame_ns: int | None = None

    def frame_age_s(self, now_ns: int) -> float:
        """Seconds since detections were last published; NaN before the first."""
        return (now_ns - self._last_frame_ns) / 1e9 if self._last_frame_ns is not None else float("nan")

    def accept(self) -> None:
        """A camera passed the handshake."""
        self.metrics.connections.inc()

    def close(self, code: CloseCode) -> None:
        """The detector closes a camera's connection."""
        self.metrics.closed.labels(str(code.value)).inc()

    def close_subscriber(self, code: CloseCode) -> None:
        """The detector closes a consumer, for another reason than that there is no place or that it stops."""
        self.metrics.subscribers_closed.labels(str(code.value)).inc()

    def refuse(self, reason: str) -> None:
        """A connection was refused, for one of REFUSALS."""
        self.metrics.refused.labels(reason).inc()

    def reconnect(self, ending: Ending) -> None:
        """A camera came under a name whose connection before ended so."""
        self.metrics.reconnects.labels("camera", ending).inc()

    def step_clock(self) -> None:
        """The time of day was set on a camera's clock."""
        self.metrics.clock_steps.inc()

    def receive(self, stream: Stream, packet_bytes: int, now_ns: int) -> None:
        """A packet arrived."""
        stream.receive(packet_bytes, now_ns)
        self.metrics.encoded_bytes.inc(packet_bytes)
        if stream.layout:
            self.metrics.raw_bytes.inc(raw_bytes(stream.layout))

    def publish(
        self,
        stream: Stream,
        frame_size: tuple[int, int],
        *,
        keyframe: bool,
        detections: int,
        stages_ns: dict[str, int],
        tail_ns: int,
        now_ns: int,
        unix_s: float,
    ) -> None:
        """A frame's detections were published.

        `frame_size` is (H, W) in pixels, its stages are durations in ns, `tail_ns` is its share of the time that its
        batch took in the network's last layers.
        """
        stream.publish(
            frame_size,
            keyframe=keyframe,
            detections=detections,
            stages_ns=stages_ns,
            tail_ns=tail_ns,
            now_ns=now_ns,
            unix_s=unix_s,
        )
        self._last_frame_ns = now_ns
        self.metrics.frames.inc()
        self.metrics.keyframes.inc(keyframe)
        self.metrics.detections.inc(detections)
        self.metrics.observe_stages(self.metrics.stage, stages_ns)

    def infer(self, frames: int) -> None:
        """A frame was through the network's last layers, in a batch of so many."""
        self.metrics.batch.observe(frames)

    def map_steps(self, seconds: float) -> None:
        """A step map was measured, and took so long."""
        self.metrics.step_map_time.observe(seconds)

    def shed_map(self) -> None:
        """A step map was due, and there was more to do. For several threads."""
        self.metrics.step_maps_shed.inc()

    def reject(self, stream: Stream, reason: RejectReason) -> None:
        """A packet gave no detections."""
        stream.rejected[reason] += 1
        self.metrics.rejected.labels(reason).inc()

    def drop_message(self) -> None:
        """A subscriber that reads too slowly lost a message."""
        self.metrics.subscriber_drops.inc()
