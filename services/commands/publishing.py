"""What a service broadcasts, at an MQTT broker too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.metrics import Metrics
from services.mqtt.settings import MqttSettings
from stream.transport.broadcast import Broadcast


@asynccontextmanager
async def publishing(broadcast: Broadcast, metrics: Metrics, settings: MqttSettings) -> AsyncIterator[None]:
    """What is broadcast meanwhile goes to an MQTT broker too, if there is one."""
    if settings.mqtt_broker is None:
        yield
        return
    from services.mqtt.publisher import make_publisher

    publisher = make_publisher(settings, metrics)
    async with publisher.running():
        with broadcast.attach(publisher.outbox):
            yield
