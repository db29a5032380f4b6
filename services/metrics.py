"""Prometheus metrics of both services; the only file that knows Prometheus.

Every label value that can occur is there from the start at zero, so that rates are right from the first event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from platform import python_version

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from stream.frame_counts import DROPS
from stream.latency import DETECTOR_STAGES, STAGES
from stream.rate.control import REASONS
from stream.session.session import CloseCode
from stream.transport.websocket import WireBytes

VERSION = version("splitcast")

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every counter, which nobody queries

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """A registry of its own with what both services tell."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._prefix = f"splitcast_{service}"
        build = self.gauge("build_info", "Version of this service; always 1", ["version", "python"])
        build.labels(VERSION, python_version()).set(1)
        self.raw_bytes = self.counter("raw_bytes", "Tensors that crossed the split, as float32")
        self.encoded_bytes = self.counter("encoded_bytes", "Packets, as the codec made them")
        self.wire_sent = self.counter("wire_sent_bytes", "Bytes sent on feature connections, all above TCP")
        self.wire_received = self.counter(
            "wire_received_bytes", "Bytes received on feature connections, all above TCP"
        )
        self.detections = self.counter("detections", "Objects detected")

    def counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def seconds(self, name: str, text: str, labels: Iterable[str] = ()) -> Histogram:
        return Histogram(f"{self._prefix}_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    def observe_stages(self, histogram: Histogram, durations_ns: Mapping[str, int]) -> None:
        for stage, duration_ns in durations_ns.items():
            histogram.labels(stage).observe(duration_ns / 1e9)

    async def handle(self, _request: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(
            body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


class WireMeter:
    """Books what a connection has put on the wire since the last booking, in the metrics and in `total`."""

    def __init__(self, metrics: Metrics, wire: WireBytes, total: WireBytes) -> None:
        self.total = total
        self._metrics, self._wire, self._booked = metrics, wire, WireBytes()

    def book(self) -> None:
        sent = self._wire.sent - self._booked.sent
        received = self._wire.received - self._booked.received
        self._metrics.wire_sent.inc(sent)
        self._metrics.wire_received.inc(received)
        self.total.sent += sent
        self.total.received += received
        self._booked = WireBytes(self._booked.sent + sent, self._booked.received + received)


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
        for reason in ("first", "requested", "periodic", "smaller", "scene", "always"):
            self.keyframes.labels(reason)
        for rate_reason in REASONS:
            self.rate_reason.labels(rate_reason)
        for peer in ("source", "detector"):
            self.reconnects.labels(peer)
            self.connected.labels(peer)


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
        for reason in ("corrupt", "missing_reference", "error"):
            self.rejected.labels(reason)
        for code in CloseCode:
            self.closed.labels(str(code.value))
