"""Publishes what is broadcast to an MQTT broker, for as long as it takes: one that is away is tried for ever."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiomqtt
import structlog

from services.metrics import Metrics
from services.mqtt.broker import Broker
from services.mqtt.client import BrokerClient, connected, make_client
from services.mqtt.deliveries import Deliveries, deliveries
from services.mqtt.failures import explain
from services.mqtt.homeassistant import discovery
from services.mqtt.metrics import MqttMetrics
from services.mqtt.outbox import Outbox
from services.mqtt.settings import MqttSettings
from services.mqtt.topics import OFFLINE, Outgoing, Topics
from stream.late_name import is_late
from stream.tasks.background import run_with_background
from stream.tasks.backoff import Backoff, Failure

log = structlog.get_logger(__name__)

STEADY_S = 10.0  # a connection that lasted so long was one that works
SHORT_ONES = 3  # connections that did not, after which it is no chance
FAREWELL_S = 2.0  # for what is left on a stop
MAX_INCOMING_BYTES = 8 * 2**10  # of a message: it reads states alone, of which the largest has half as much
MAX_INCOMING = 4096  # messages: the states that a broker keeps of as many streams


class MqttPublisher:
    """One service's connection to a broker. What it publishes comes into `outbox`."""

    def __init__(self, broker: Broker, topics: Topics, outbox: Outbox, metrics: MqttMetrics) -> None:
        self.outbox = outbox
        self._broker, self._topics, self._metrics = broker, topics, metrics
        self._backoff = Backoff(random.Random())
        self._connected_s: float | None = None  # since when there is a connection
        self._short_ones = 0  # connections in a row that were over soon
        metrics.queue.set_function(lambda: len(outbox))
        metrics.connected.set_function(lambda: outbox.connected)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish meanwhile; afterwards what is left, for FAREWELL_S, and that this publisher is offline."""
        if self._broker.tells_password:
            log.warning("the password goes unencrypted to the MQTT broker", broker=str(self._broker.address))
        task = asyncio.ensure_future(self._run())
        try:
            yield
        finally:
            self.outbox.retained.say_goodbye()
            self.outbox.close()
            if self.outbox.connected:
                await asyncio.wait([task], timeout=FAREWELL_S)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.outbox.abandon()

    async def _run(self) -> None:
        """Until everything is out that came before the outbox was closed."""
        while True:
            self._connected_s = None
            try:
                await self._publish()
                return
            except Exception as error:  # a library's defect costs a connection, not the service
                failure, reason = explain(error, self._broker.address)
            now_s = time.monotonic()
            if self._connected_s is not None:
                failure, reason = self._judge(now_s - self._connected_s, failure, reason)
            delay_s = self._backoff.next_delay_s(failure, now_s)
            self._metrics.failures.labels(failure.name.lower()).inc()
            address = str(self._broker.address)
            log.warning("no MQTT broker", broker=address, reason=reason, retry_s=round(delay_s, 3))
            await asyncio.sleep(delay_s)

    def _judge(self, lasted_s: float, failure: Failure, reason: str) -> tuple[Failure, str]:
        """What the end of a connection says that was there for so long."""
        if lasted_s >= STEADY_S:
            self._short_ones = 0
            self._backoff.reset()
            return failure, reason
        self._short_ones += 1
        if self._short_ones < SHORT_ONES or failure in (Failure.DENIED, Failure.REFUSED):
            return failure, reason
        # Not every broker tells a client that another one has taken its place.
        return (
            Failure.REFUSED,
            f"{reason}, soon after it was made, again and again: has another client the same --mqtt-id?",
        )

    async def _publish(self) -> None:
        """One connection. Raises what ends it."""
        client = await make_client(
            self._broker,
            identifier=f"splitcast-{self._topics.publisher}",
            will=aiomqtt.Will(self._topics.available, OFFLINE, qos=1, retain=True),
            max_incoming_bytes=MAX_INCOMING_BYTES,
            max_incoming=MAX_INCOMING,
        )
        try:
            async with connected(client):
                self._connected_s = time.monotonic()
                self.outbox.renew()
                log.info(
                    "MQTT broker connected",
                    broker=str(self._broker.address),
                    publisher=self._topics.publisher,
                )
                async with deliveries(client, self._end, self._refuse) as sending:
                    await run_with_background(
                        self._send(sending),
                        sending.until_failure(),
                        self._listen(client),
                        self._end_seconds(),
                    )
        finally:
            self.outbox.connected = False

    async def _send(self, sending: Deliveries) -> None:
        """Until nothing is left, and nothing more comes."""
        while True:
            await sending.until_place()
            message = await self.outbox.next()
            if message is None:
                break
            await sending.start(message)
        await sending.until_empty()

    def _end(self, message: Outgoing, arrived: bool) -> None:
        if arrived:
            self.outbox.confirm(message)
            self._metrics.published.labels(message.kind).inc()
        else:
            self.outbox.give_back(message)

    def _refuse(self, message: Outgoing, reason: str) -> None:
        self.outbox.refuse(message)
        log.warning(
            "the MQTT broker does not take a message: has this user the right to write there?",
            topic=message.topic,
            reason=f"{message.kind}: {reason}",
        )

    async def _listen(self, client: BrokerClient) -> None:
        """Hear of streams whose cameras others have, or had. Raises MqttError when the connection is over."""
        granted = await client.subscribe([(self._topics.states, 1), (self._topics.available, 1)])
        if any(getattr(code, "value", code) >= 0x80 for code in granted):
            log.warning("the MQTT broker lets nobody read states here", topic=self._topics.states)
        async for message in client.messages:
            payload = message.payload
            if isinstance(payload, bytes | bytearray):
                self.outbox.hear(str(message.topic), bytes(payload), kept=message.retain)

    async def _end_seconds(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.outbox.end_second(time.time())


def make_publisher(settings: MqttSettings, metrics: Metrics) -> MqttPublisher:
    """A publisher to the broker that the settings name; its metrics are beside those of its service."""
    broker = settings.mqtt_broker
    assert broker is not None
    topics, prefix = Topics(settings.mqtt_prefix, settings.mqtt_id), settings.mqtt_discovery
    mqtt_metrics = MqttMetrics(metrics)

    def discover(stream: str) -> dict[str, str]:
        return discovery(topics, prefix, stream) if prefix and not is_late(stream) else {}

    outbox = Outbox(topics, settings.mqtt_queue, discover, mqtt_metrics.drop)
    return MqttPublisher(broker, topics, outbox, mqtt_metrics)
