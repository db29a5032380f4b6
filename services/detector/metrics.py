"""What a detector exports to Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from services.detector.stream_series import StreamSeries
from services.detector.streams import ENDINGS, Stream
from services.metrics import TLS_FAILED, Metrics
from stream.latency import DETECTOR_STAGES
from stream.session.close_codes import CloseCode
from stream.session.messages import REJECT_REASONS
from stream.transport.listener import (
    MADE_WAY,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_FROM_ADDRESS,
    TOO_MANY_STRANGERS,
    TOO_OFTEN,
)

# Why a connection is refused, besides the codes that the protocol has for it (see `refusal`).
TOO_MANY_SESSIONS = "too_many_sessions"
TOO_MANY_SUBSCRIBERS = "too_many_subscribers"
NOT_READY = "not_ready"
FOREIGN_PAGE = "foreign_page"  # see `foreign_pages_refused`
BAD_REQUEST = "bad_request"
NO_BEARER = "token_missing"  # see gate.py
UNKNOWN_BEARER = "token_unknown"
NOT_GRANTED = "not_granted"
LOGIN_FAILED = "login_failed"  # see login.py
TOO_MANY_LOGINS = "too_many_logins"
REFUSALS = (
    TOO_MANY_CONNECTIONS,
    TOO_MANY_FROM_ADDRESS,
    TOO_OFTEN,
    TOO_MANY_STRANGERS,
    MADE_WAY,
    TOO_MANY_SESSIONS,
    TOO_MANY_SUBSCRIBERS,
    NOT_READY,
    FOREIGN_PAGE,
    BAD_REQUEST,
    NO_BEARER,
    UNKNOWN_BEARER,
    NOT_GRANTED,
    TLS_FAILED,
    LOGIN_FAILED,
    TOO_MANY_LOGINS,
    *(code.name.lower() for code in CloseCode),
)


class DetectorMetrics(Metrics):
    """The detector's metrics; DetectorStatistics sets them."""

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        super().__init__("detector")
        self.stage = self.seconds(
            "stage_seconds",
            "Time that a frame spent in each stage, from its packet's arrival to the publication of its detections",
            ["stage"],
        )
        self.frames = self.counter("frames_detected", "Frames whose detections were published")
        self.rejected = self.counter(
            "frames_rejected", "Packets that gave no detections, by reason (see docs/protocol.md)", ["reason"]
        )
        self.keyframes = self.counter(
            "keyframes", "Frames detected that were coded as keyframes, without reference to another frame"
        )
        self.age = self.gauge(
            "frame_age_seconds", "Time since detections were last published; NaN before the first"
        )
        self.streams = self.gauge("streams", "Cameras connected now")
        self.connections = self.counter("stream_connections", "Connections of cameras that were accepted")
        self.closed = self.counter(
            "sessions_closed",
            "Connections of cameras that the detector closed, by WebSocket close code (see docs/protocol.md)",
            ["code"],
        )
        self.queue = self.gauge(
            "queue_length", "Streams with packets that wait for their turn, or that have it", ["queue"]
        )
        self.batch = self.powers_of_two(
            "batch_frames", "Frames that each frame was with in the network's last layers, itself included"
        )
        self.step_map_time = self.seconds(
            "step_map_seconds", "Time that measuring a step map took (--feedback), beside the frames"
        )
        self.step_maps_shed = self.counter(
            "step_maps_shed", "Step maps that were due and not measured, because the detector was busy"
        )
        self._add_peers()
        self.registry.register(StreamSeries(self._prefix, streams))
        self._start_at_zero()

    def _add_peers(self) -> None:
        self.subscribers = self.gauge("subscribers", "Consumers of detections connected now")
        self.subscriber_drops = self.counter(
            "subscriber_dropped_messages", "Detection messages dropped because a consumer read too slowly"
        )
        self.subscribers_closed = self.counter(
            "subscribers_closed",
            "Consumers of detections that the detector closed for what they did or lost, by WebSocket close code",
            ["code"],
        )
        self.reconnects = self.counter(
            "reconnects",
            "Connections under a name that had one before, by how that one ended (see docs/operations.md)",
            ["peer", "reason"],
        )
        self.refused = self.counter(
            "connections_refused",
            "Connections of cameras and consumers that were refused, by reason",
            ["reason"],
        )
        self.clock_steps = self.counter(
            "clock_steps", "Times that the time of day was set on a camera's clock"
        )

    def _start_at_zero(self) -> None:
        for reason in REFUSALS:
            self.refused.labels(reason)
        for ending in ENDINGS:
            self.reconnects.labels("camera", ending)
        for stage in DETECTOR_STAGES:
            self.stage.labels(stage)
        for reason in REJECT_REASONS:
            self.rejected.labels(reason)
        for code in CloseCode:
            self.closed.labels(str(code.value))
            self.subscribers_closed.labels(str(code.value))
