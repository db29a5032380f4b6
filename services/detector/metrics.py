"""What a detector tells Prometheus."""

from __future__ import annotations

from services.metrics import Metrics
from stream.latency import DETECTOR_STAGES
from stream.session.close_codes import CloseCode
from stream.session.messages import REJECT_REASONS


class DetectorMetrics(Metrics):
    """What a detector exports."""

    def __init__(self) -> None:
        super().__init__("detector")
        self.stage = self.seconds(
            "stage_seconds", "Time of a frame by stage, receipt to publication", ["stage"]
        )
        self.frames = self.counter("frames_detected", "Frames detected on")
        self.rejected = self.counter("frames_rejected", "Packets that yielded no detections", ["reason"])
        self.keyframes = self.counter("keyframes", "Keyframes received")
        self.age = self.gauge(
            "frame_age_seconds", "Time since the last frame was published; NaN before the first"
        )
        self.streams = self.gauge("streams", "Cameras connected")
        self.connections = self.counter("stream_connections", "Sessions that were accepted")
        self.closed = self.counter("sessions_closed", "Sessions that the detector closed", ["code"])
        self.queue = self.gauge("queue_length", "Entries in a queue", ["queue"])
        self.subscribers = self.gauge("subscribers", "Consumers of detections connected")
        self.subscriber_drops = self.counter("subscriber_dropped_messages", "Messages a slow subscriber lost")
        for stage in DETECTOR_STAGES:
            self.stage.labels(stage)
        for reason in REJECT_REASONS:
            self.rejected.labels(reason)
        for code in CloseCode:
            self.closed.labels(str(code.value))
