"""What a camera tells Prometheus."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from codec.interface import KEYFRAME_REASONS
from services.camera.reconnection import LOSS_REASONS
from services.camera.settings import CameraSettings
from services.certificates import keep_renewed, serve, server_context
from services.listening import naming_address
from services.metrics import TLS_FAILED, Metrics
from services.recording.backlog import LATE_LOSSES
from services.recording.segment_writer import LOSS_CAUSES
from stream.frame_counts import DROPS
from stream.latency import STAGES
from stream.rate.control import REASONS
from stream.session.messages import REJECT_REASONS
from stream.transport.listener import MADE_WAY, TOO_MANY_CONNECTIONS, Listener
from stream.transport.places import Places

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 64  # scrapes and probes
# What an operator of many cameras reads (docs/sizing.md): a series costs a Prometheus some kilobytes, and all of a
# camera's are ten times as many.
BRIEF = frozenset(
    {
        "splitcast_camera_build_info",
        "splitcast_camera_info",
        "splitcast_camera_connected",
        "splitcast_camera_source_state",
        "splitcast_camera_retry_at_timestamp_seconds",
        "splitcast_camera_reconnects_total",
        "splitcast_camera_frame_age_seconds",
        "splitcast_camera_frames_captured_total",
        "splitcast_camera_frames_detected_total",
        "splitcast_camera_frames_dropped_total",
        "splitcast_camera_frames_in_flight",
        "splitcast_camera_latency_seconds_sum",
        "splitcast_camera_latency_seconds_count",
        "splitcast_camera_packets_total",
        "splitcast_camera_keyframes_total",
        "splitcast_camera_encoded_bytes_total",
        "splitcast_camera_wire_sent_bytes_total",
        "splitcast_camera_detections_total",
        "splitcast_camera_decode_errors_total",
        "splitcast_camera_link_bytes_per_second",
        "splitcast_camera_recording_lost_packets_total",
        "splitcast_camera_quantizer_step",
        "splitcast_camera_certificate_expires_timestamp_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)
# And of one that may detect by itself.
BRIEF_FALLBACK = frozenset(
    {
        "splitcast_camera_frames_detected_locally_total",
        "splitcast_camera_fallback_active",
        "splitcast_camera_fallback_kept_messages",
        "splitcast_camera_mqtt_connected",
        "splitcast_camera_mqtt_dropped_total",
    }
)
# And of one that keeps what an outage would lose.
BRIEF_KEEPS = frozenset(
    {
        "splitcast_camera_frames_recorded_total",
        "splitcast_camera_late_kept_packets_total",
        "splitcast_camera_late_packets_total",
        "splitcast_camera_late_waiting_packets",
    }
)
CONNECTED = "splitcast_camera_connected"  # whose 0 is what matters


class BriefRegistry(Collector):
    """Of a registry what has one of the names, and of series with labels those alone that have something to tell.

    What never occurred, is not so, or is unknown, is left out: most reasons of most things.
    """

    def __init__(self, registry: CollectorRegistry, names: frozenset[str]) -> None:
        self._registry, self._names = registry, names

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            samples = [sample for sample in metric.samples if sample.name in self._names and _tells(sample)]
            if samples:
                metric.samples = samples
                yield metric


def _tells(sample: Sample) -> bool:
    if not sample.labels or sample.name == CONNECTED:
        return True
    return sample.value != 0 and not math.isnan(sample.value)


class CameraMetrics(Metrics):
    """What a camera exports."""

    def __init__(self, *, full: bool = True, fallback: bool = False, keeps: bool = False) -> None:
        super().__init__("camera")
        self.refused = self.counter(
            "connections_refused",
            "Connections to /metrics that were refused, or made way for newer ones, by reason",
            ["reason"],
        )
        self._add_frames()
        self._add_link()
        self._add_recording()
        self._add_fallback()
        self._add_late()
        self._start_at_zero()
        if not full:
            told = BRIEF | (BRIEF_FALLBACK if fallback else set()) | (BRIEF_KEEPS if keeps else set())
            self.served = BriefRegistry(self.registry, told)

    def _add_frames(self) -> None:
        self.info = self.gauge(
            "info",
            "Stream, network, split point and codec of this camera; always 1",
            ["stream", "model", "split", "codec"],
        )
        self.stage = self.seconds(
            "stage_seconds", "Time of a detected frame by stage; the stages add up to the latency", ["stage"]
        )
        self.latency = self.seconds(
            "latency_seconds",
            "Time from the capture of a frame to its acknowledgement, on the camera's clock",
        )
        self.age = self.gauge(
            "frame_age_seconds", "Time since the newest detected frame was captured; NaN before the first"
        )
        self.captured = self.counter("frames_captured", "Frames captured")
        self.detected = self.counter("frames_detected", "Frames acknowledged by the detector")
        self.dropped = self.counter(
            "frames_dropped",
            "Frames that got no detections, by the stage that lost them and the reason",
            ["stage", "reason"],
        )
        self.in_flight = self.gauge("frames_in_flight", "Frames captured that have no outcome yet")
        self.keyframes = self.counter("keyframes", "Keyframes sent, by reason", ["reason"])
        self.packets = self.counter("packets", "Packets sent")
        self.reconnects = self.counter(
            "reconnects",
            "Times that a lost source or detector came back, by why it was lost",
            ["peer", "reason"],
        )
        self.retry_at = self.gauge(
            "retry_at_timestamp_seconds",
            "When a lost source or detector is tried again, in Unix time; NaN where it is there",
            ["peer"],
        )
        self.source_state = self.gauge(
            "source_state", "1 for what the source does, 0 for the other states", ["state"]
        )
        self.repeated = self.counter(
            "frames_repeated", "Frames whose picture is that of the frame before, bit by bit"
        )
        self.decode_errors = self.counter(
            "decode_errors", "Damage found in the source's coded video: pictures may be wrong, or missing"
        )
        self.connected = self.gauge(
            "connected",
            "1 while the source is open or the detector has accepted this camera, else 0",
            ["peer"],
        )
        self.queue = self.gauge(
            "queue_length",
            "Entries in a queue: packets that are unanswered, calls that wait for the worker or run on it",
            ["queue"],
        )
        self.jpeg_bytes = self.gauge(
            "jpeg_frame_bytes",
            "Size of a frame, scaled as the network sees it, as a JPEG of quality 90; NaN before the first",
        )
        self.preview_bytes = self.counter("preview_bytes", "Size of the previews sent, as JPEG")

    def _add_recording(self) -> None:
        self.recorded_packets = self.counter(
            "recorded_packets", "Packets written to the recording (--record)"
        )
        self.recorded_bytes = self.counter("recorded_bytes", "Bytes of the packets written to the recording")
        self.recording_lost = self.counter(
            "recording_lost_packets", "Packets that were to be recorded and are not, by reason", ["reason"]
        )

    def _add_fallback(self) -> None:
        self.detected_locally = self.counter(
            "frames_detected_locally", "Frames detected on the camera, without a detector (--fallback local)"
        )
        self.fallback_active = self.gauge(
            "fallback_active", "1 while frames are detected on the camera, else 0"
        )
        self.fallback_kept = self.gauge(
            "fallback_kept_messages", "Messages of frames detected on the camera that are kept for consumers"
        )

    def _add_late(self) -> None:
        self.recorded = self.counter(
            "frames_recorded",
            "Frames that no detector got and that were recorded (--record-when disconnected)",
        )
        self.late_packets = self.counter(
            "late_packets",
            "Packets kept in an outage, by what became of them: detected when sent late, or why not",
            ["outcome"],
        )
        self.late_kept = self.counter(
            "late_kept_packets",
            "Packets kept to be sent late (--record-when disconnected), also found at the start",
        )
        self.late_waiting = self.gauge("late_waiting_packets", "Packets kept and neither sent late nor lost")

    def _add_link(self) -> None:
        self.step_maps = self.counter("step_maps", "Step maps received from the detector (--feedback)")
        self.link_rate = self.gauge("link_bytes_per_second", "Estimate of the rate that the link carries")
        self.link_delay = self.gauge(
            "link_delay_seconds", "Estimate of the round trip of an empty packet on an idle link"
        )
        self.link_queue = self.gauge(
            "link_queue_seconds", "Time that the last answered packet waited for the link, an estimate"
        )
        self.step = self.gauge(
            "quantizer_step", "Quantizer step of the last frame, 16 to the octave; NaN if the codec has none"
        )
        self.rate_reason = self.gauge(
            "rate_reason",
            "1 for the reason that chose the quantizer step of the last frame, 0 for the others",
            ["reason"],
        )
        self.rate_target = self.gauge(
            "rate_target_bytes_per_second", "Target rate set by --target-kbps; NaN if unset"
        )
        self.latency_target = self.gauge(
            "latency_target_seconds", "Target latency set by --max-latency-ms; NaN if unset"
        )

    def _start_at_zero(self) -> None:
        for refusal in (TOO_MANY_CONNECTIONS, MADE_WAY, TLS_FAILED):
            self.refused.labels(refusal)
        for stage in STAGES:
            self.stage.labels(stage)
        for stage, reason in DROPS:
            self.dropped.labels(stage, reason)
        for reason in (*KEYFRAME_REASONS, "always"):
            self.keyframes.labels(reason)
        for cause in LOSS_CAUSES:
            self.recording_lost.labels(cause)
        for outcome in ("detected", *REJECT_REASONS, "too_large", *LATE_LOSSES):
            self.late_packets.labels(outcome)
        for rate_reason in REASONS:
            self.rate_reason.labels(rate_reason)
        self.reconnects.labels("source", "lost")
        for loss in LOSS_REASONS:
            self.reconnects.labels("detector", loss)
        for peer in ("source", "detector"):
            self.connected.labels(peer)
            self.retry_at.labels(peer).set(math.nan)


@asynccontextmanager
async def serve_metrics(
    metrics: CameraMetrics, config: CameraSettings, routes: Sequence[web.RouteDef] = ()
) -> AsyncIterator[None]:
    """Serve /metrics, /livez and `routes` on the configured address, if any. Raises CannotListen, SettingsError."""
    if not config.metrics_port:
        yield
        return
    app = web.Application()

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    app.router.add_get("/metrics", metrics.handle)
    app.router.add_get("/livez", live)
    app.router.add_routes(routes)
    context = await server_context(config.metrics_tls, partial(_tell_tls_failure, metrics))
    metrics.watch_certificate(context)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    renewing = asyncio.ensure_future(keep_renewed(context))
    try:
        with naming_address(config.metrics_host, config.metrics_port, "--metrics-"):
            listener = Listener.bound(
                config.metrics_host,
                config.metrics_port,
                Places(MAX_CONNECTIONS),
                on_refuse=partial(_tell_refusal, metrics),
            )
        server = await serve(runner, listener, context)
        try:
            yield
        finally:
            server.close()
    finally:
        renewing.cancel()
        await runner.cleanup()


def _tell_refusal(metrics: CameraMetrics, reason: str, address: str) -> None:
    metrics.refused.labels(reason).inc()
    log.warning("connection refused", port="metrics", reason=reason, peer=address)


def _tell_tls_failure(metrics: CameraMetrics, reason: str, peer: str) -> None:
    metrics.refused.labels(TLS_FAILED).inc()
    log.warning("TLS handshake failed", port="metrics", reason=reason, peer=peer)
