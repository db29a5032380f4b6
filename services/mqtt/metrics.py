"""What a publisher exports to Prometheus, beside its service's own metrics."""

from __future__ import annotations

from services.metrics import Metrics
from services.mqtt.outbox import DropReason
from services.mqtt.topics import DELIVERY, Kind
from stream.tasks.backoff import Failure

# What a queue can lose, a state that a newer one replaces, and what the broker confirms, and does not take.
_DROPPED: dict[Kind, tuple[DropReason, ...]] = {
    "detections": ("disconnected", "slow", "broken", "shutdown"),
    "gap": ("disconnected", "slow", "refused", "shutdown"),
    "state": ("superseded", "refused"),
    "counts": ("refused",),
    "discovery": ("refused",),
    "available": ("refused",),
}


class MqttMetrics:
    """The publisher's metrics; everything that can occur is there from the start at zero."""

    def __init__(self, metrics: Metrics) -> None:
        self.connected = metrics.gauge("mqtt_connected", "1 while there is a connection to the MQTT broker")
        self.queue = metrics.gauge(
            "mqtt_queue_length", "Messages that wait for the MQTT broker, or are on their way to it"
        )
        self.published = metrics.counter(
            "mqtt_published", "Messages that the MQTT broker got, by kind (see docs/mqtt.md)", ["kind"]
        )
        self.dropped = metrics.counter(
            "mqtt_dropped",
            "Messages that the MQTT broker did not get, by kind and reason",
            ["kind", "reason"],
        )
        self.failures = metrics.counter(
            "mqtt_failures", "Connections to the MQTT broker that failed or broke, by reason", ["reason"]
        )
        for kind in DELIVERY:
            self.published.labels(kind)
        for kind, reasons in _DROPPED.items():
            for reason in reasons:
                self.dropped.labels(kind, reason)
        for failure in Failure:
            self.failures.labels(failure.name.lower())

    def drop(self, kind: Kind, reason: DropReason) -> None:
        """A message did not reach the broker."""
        self.dropped.labels(kind, reason).inc()
