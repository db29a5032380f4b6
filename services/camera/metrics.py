"""What a camera tells Prometheus."""

from __future__ import annotations

from codec.interface import KEYFRAME_REASONS
from services.metrics import Metrics
from stream.frame_counts import DROPS
from stream.latency import STAGES
from stream.rate.control import REASONS


class CameraMetrics(Metrics):
    """What a camera exports."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.info = self.gauge(
            "info", "What this camera sends; always 1", ["stream", "model", "split", "codec"]
        )
        self.stage = self.seconds(
            "stage_seconds", "Time of a detected frame by stage; adds up to latency", ["stage"]
        )
        self.latency = self.seconds("latency_seconds", "Capture to acknowledgement, on the camera's clock")
        self.age = self.gauge("frame_age_seconds", "Age of the newest detected frame; NaN before the first")
        self.captured = self.counter("frames_captured", "Frames captured")
        self.detected = self.counter("frames_detected", "Frames acknowledged by the detector")
        self.dropped = self.counter("frames_dropped", "Frames without detections", ["stage", "reason"])
        self.in_flight = self.gauge("frames_in_flight", "Frames captured and neither detected nor dropped")
        self.keyframes = self.counter("keyframes", "Keyframes by reason", ["reason"])
        self.packets = self.counter("packets", "Packets sent")
        self.reconnects = self.counter("reconnects", "Times a lost peer was found again", ["peer"])
        self.connected = self.gauge("connected", "1 while the peer is there", ["peer"])
        self.queue = self.gauge("queue_length", "Entries in a queue", ["queue"])
        self.jpeg_bytes = self.gauge(
            "jpeg_frame_bytes", "A frame as the head sees it, as JPEG of quality 90; NaN before the first"
        )
        self.link_rate = self.gauge("link_bytes_per_second", "What the link carries, an estimate")
        self.link_delay = self.gauge("link_delay_seconds", "An empty packet's way and back, an estimate")
        self.link_queue = self.gauge(
            "link_queue_seconds", "By which the last answered packet was later than on an idle link"
        )
        self.step = self.gauge("quantizer_step", "Of the last frame; 16 more double it; NaN if there is none")
        self.rate_reason = self.gauge(
            "rate_reason", "1 for what chose the step of the last frame", ["reason"]
        )
        self.rate_target = self.gauge("rate_target_bytes_per_second", "As asked for; NaN if nothing was")
        self.latency_target = self.gauge("latency_target_seconds", "As asked for; NaN if nothing was")
        self.preview_bytes = self.counter("preview_bytes", "Previews sent, as JPEG")
        for stage in STAGES:
            self.stage.labels(stage)
        for stage, reason in DROPS:
            self.dropped.labels(stage, reason)
        for reason in (*KEYFRAME_REASONS, "always"):
            self.keyframes.labels(reason)
        for rate_reason in REASONS:
            self.rate_reason.labels(rate_reason)
        for peer in ("source", "detector"):
            self.reconnects.labels(peer)
            self.connected.labels(peer)
