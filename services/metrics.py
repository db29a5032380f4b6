"""What the Prometheus metrics of both services share. Only this file and each service's own metrics know Prometheus.

Every label value that can occur is there from the start at zero, so that rates are right from the first event.
"""

from __future__ import annotations

import asyncio
import math
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
from prometheus_client.registry import Collector

from stream.transport.tls import RenewedContext
from stream.transport.websocket import WireBytes

VERSION = version("splitcast")

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every counter, which nobody queries

LOOP_INTERVAL_S = 0.25
TLS_FAILED = "tls_failed"  # why a connection was refused: the log has more

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """A registry of its own with what both services tell."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.served: Collector = self.registry  # what /metrics tells
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._prefix = f"splitcast_{service}"
        build = self.gauge(
            "build_info", "Versions of this service and of Python, as labels; always 1", ["version", "python"]
        )
        build.labels(VERSION, python_version()).set(1)
        self.raw_bytes = self.counter(
            "raw_bytes", "Bytes that the tensors sent would take uncompressed, as float32"
        )
        self.encoded_bytes = self.counter(
            "encoded_bytes", "Bytes of the packets that carried the tensors, as compressed by the codec"
        )
        self.wire_sent = self.counter(
            "wire_sent_bytes",
            "Bytes sent between camera and detector: everything above TCP, with WebSocket frames, HTTP and TLS",
        )
        self.wire_received = self.counter(
            "wire_received_bytes",
            "Bytes received between camera and detector: everything above TCP, with WebSocket frames, HTTP and TLS",
        )
        self.detections = self.counter("detections", "Objects detected")
        self.certificate_ends = self.gauge(
            "certificate_expires_timestamp_seconds",
            "When the certificate of this service's port ends, as Unix time; NaN without TLS",
        )
        self.certificate_ends.set(math.nan)
        self.loop_delay = self.seconds(
            "event_loop_delay_seconds", "How much later than it was due the event loop ran something"
        )

    def counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"{self._prefix}_{name}", text, labels, registry=self.registry)

    def seconds(self, name: str, text: str, labels: Iterable[str] = ()) -> Histogram:
        return Histogram(f"{self._prefix}_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    def powers_of_two(self, name: str, text: str) -> Histogram:
        """Of small numbers, from 1 on."""
        buckets = [2**power for power in range(7)]
        return Histogram(f"{self._prefix}_{name}", text, registry=self.registry, buckets=buckets)

    def watch_certificate(self, context: RenewedContext | None) -> None:
        """Tell from now on when the certificate ends that is shown to who connects; None: none is."""
        if context is not None:
            self.certificate_ends.set_function(lambda: context.ends_s)

    def observe_stages(self, histogram: Histogram, durations_ns: Mapping[str, int]) -> None:
        for stage, duration_ns in durations_ns.items():
            histogram.labels(stage).observe(duration_ns / 1e9)

    async def handle(self, _request: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(body=generate_latest(self.served), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def measure_loop_delay(self) -> None:
        """Measure how late the event loop is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LOOP_INTERVAL_S
            await asyncio.sleep(LOOP_INTERVAL_S)
            self.loop_delay.observe(max(0.0, loop.time() - due_s))


class WireMeter:
    """Adds what a connection has put on the wire since the last update to the metrics and to `total`."""

    def __init__(self, metrics: Metrics, wire: WireBytes, total: WireBytes) -> None:
        self.total = total
        self._metrics, self._wire, self._counted = metrics, wire, WireBytes()

    def update(self) -> None:
        """Count the bytes since the last call."""
        sent = self._wire.sent - self._counted.sent
        received = self._wire.received - self._counted.received
        self._metrics.wire_sent.inc(sent)
        self._metrics.wire_received.inc(received)
        self.total.sent += sent
        self.total.received += received
        self._counted = WireBytes(self._counted.sent + sent, self._counted.received + received)
