"""A publisher as a service runs it, fed by a test, and what it has counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.metrics import Metrics
from services.mqtt.outbox import Outbox
from services.mqtt.publisher import MqttPublisher, make_publisher
from services.mqtt.settings import MqttSettings
from stream.transport.broadcast import Broadcast

PUBLISHER = "attic"


def stream_text(stream: str, state: str, reason: str = "", at: float = 1.5) -> str:
    return compact(type="stream", stream=stream, state=state, reason=reason, at=at, connection=1, frame=0)


def detections_text(stream: str, frame: int, classes: Iterable[str] = ()) -> str:
    predictions = [{"class": name} for name in classes]
    return compact(type="detections", stream=stream, frame=frame, published_at=2.5, predictions=predictions)


def gap_text(stream: str, first: int) -> str:
    return compact(type="gap", stream=stream, first=first, last=first, frames=1, reasons={"stale": 1}, at=3.5)


def compact(**message: object) -> str:
    return json.dumps(message, separators=(",", ":"))


@dataclass
class Publishing:
    """A publisher, and the broadcast that feeds it."""

    publisher: MqttPublisher
    broadcast: Broadcast
    metrics: Metrics

    @property
    def outbox(self) -> Outbox:
        return self.publisher.outbox

    def state(self, stream: str, state: str, reason: str = "") -> None:
        self.broadcast.publish(stream, "stream", stream_text(stream, state, reason))

    def detect(self, stream: str, frame: int, classes: Iterable[str] = ()) -> None:
        self.broadcast.publish(stream, "detections", detections_text(stream, frame, classes))

    def gap(self, stream: str, first: int) -> None:
        self.broadcast.publish(stream, "gap", gap_text(stream, first))

    def count(self, name: str, **labels: str) -> float:
        """A metric's value; the sum of those that carry these labels."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"splitcast_detector_mqtt_{name}" and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def publishing(url: str, **settings: object) -> AsyncIterator[Publishing]:
    """Publishes to the broker at that address meanwhile."""
    given = {"mqtt": url, "mqtt_id": PUBLISHER} | settings
    metrics = Metrics("detector")
    publisher = make_publisher(MqttSettings.load(given), metrics)
    running = Publishing(publisher, Broadcast(), metrics)
    async with publisher.running():
        with running.broadcast.attach(publisher.outbox):
            yield running
