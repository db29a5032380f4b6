"""A connection to a broker by aiomqtt, which notices at once what ends it, and can be ended at once.

aiomqtt waits for the answer of a broker that has hung up, and for a goodbye that cannot be sent; both would take many
seconds, and there is no public way to end them. So this touches what is private of aiomqtt 2 and paho 2, and nothing
else of ours does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from services.mqtt.broker import Broker

CONNECT_S = 3.0  # for TCP, and for each step of TLS
ANSWER_S = 5.0  # for a broker's answer to a new client, and for a goodbye
KEEPALIVE_S = 10  # a broker takes a client for dead after half as much again, and publishes its last will

_KIND_AND_QOS_2, _PUBLISH_QOS_2 = 0xF4, 0x34  # of the first byte of a packet: MQTT 5, 3.3.1
_AT_ONCE = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Else a message waits until the broker has confirmed the one before, for which it takes up to 40 ms."""

_QUIET = logging.getLogger(f"{__name__}.paho")
"""Where aiomqtt and paho complain of what they raise as well."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class HungUp(aiomqtt.MqttError):
    """The broker ended the connection before it had answered."""


class Unwanted(aiomqtt.MqttError):
    """The broker sent what it was told not to send."""


class Refused(aiomqtt.MqttError):
    """The broker has the message, and does nothing with it: it lets this user not write there, for one."""


class BrokerClient(aiomqtt.Client):
    """One connection; make it anew for the next one."""

    def __init__(self, *arguments: Any, max_incoming_bytes: int, **options: Any) -> None:
        """As aiomqtt's; `max_incoming_bytes` bounds a packet of the broker."""
        super().__init__(*arguments, **options)
        self.lost = 0  # messages that came while as many waited as may
        self._max_incoming_bytes = max_incoming_bytes
        self._unwanted: Unwanted | None = None  # why this end has ended the connection
        self._refusals: dict[int, str] = {}  # by message id, why the broker does not take what is awaited
        self._receive_any = self._client._sock_recv
        self._client._sock_recv = self._receive  # type: ignore[assignment]

    def _receive(self, size: int) -> bytes:
        """The next bytes of a packet that has so many left. Raises ConnectionError, by which paho ends the connection.

        paho tells the broker how large a packet may be, and takes 256 MiB all the same. Of QoS 2 it keeps every message
        until the broker releases it, and reads as many at a time as it keeps.
        """
        if size > self._max_incoming_bytes:
            self._unwanted = Unwanted(
                f"the broker sends a packet of {size} bytes, and was told that {self._max_incoming_bytes} are the most"
            )
        elif self._client._in_packet["command"] & _KIND_AND_QOS_2 == _PUBLISH_QOS_2:
            self._unwanted = Unwanted("the broker sends messages of QoS 2, and none was subscribed to")
        if self._unwanted:
            raise ConnectionError(str(self._unwanted))
        return self._receive_any(size)

    def _client_connect(self) -> None:
        self._client.connect_timeout = CONNECT_S
        super()._client_connect()

    def _on_disconnect(self, *arguments: Any) -> None:
        if not self._connected.done():
            hung_up = HungUp("the broker ended the connection before it had answered")
            self._connected.set_exception(self._unwanted or hung_up)
        elif self._unwanted and not self._disconnected.done():
            self._disconnected.set_exception(self._unwanted)
        super()._on_disconnect(*arguments)

    def _on_message(self, *arguments: Any) -> None:
        self.lost += self._queue.full()
        super()._on_message(*arguments)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        if reason_code.is_failure and mid in self._pending_publishes:
            self._refusals[mid] = str(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    @contextmanager
    def _pending_call(self, mid: int, *arguments: Any) -> Iterator[None]:
        """As aiomqtt's. Raises Refused where the broker confirms that it does not take the message."""
        with super()._pending_call(mid, *arguments):
            try:
                yield
            finally:
                reason = self._refusals.pop(mid, None)
            if reason:
                raise Refused(reason)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """As aiomqtt's, but at once: by the next round of the loop the descriptor may be that of another socket."""
        if self._loop_thread != threading.get_ident():  # while it connects
            super()._on_socket_register_write(client, userdata, sock)
        else:
            self._loop.add_writer(sock.fileno(), self._write)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # whatever it is, nothing more can be written
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    async def open(self) -> None:
        """Connect. Raises MqttError; OSError and ValueError where aiomqtt lets them through."""
        self._loop_thread = threading.get_ident()
        ended = self._disconnected
        await self.__aenter__()
        self._disconnected = ended  # aiomqtt forgets what ended the connection right behind the answer

    async def subscribe(self, *arguments: Any, **options: Any) -> tuple[int, ...] | list[ReasonCode]:
        """As aiomqtt's, but for no longer than there is a connection. Raises MqttError."""
        asking = asyncio.ensure_future(super().subscribe(*arguments, **options))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait((self._disconnected, asking), return_when=asyncio.FIRST_COMPLETED)
            if self._disconnected.done():
                raise aiomqtt.MqttError(
                    "Disconnected during subscription"
                ) from self._disconnected.exception()
            return await asking
        finally:
            asking.cancel()

    async def say_goodbye(self) -> None:
        """Leave, so that the broker forgets the last will. Raises MqttError where that takes long."""
        await self.__aexit__(None, None, None)

    async def abort(self) -> None:
        """End the connection, whatever state it is in."""
        await asyncio.sleep(0)  # what was to be watched for is watched by now
        self._client._sock_close()
        for state in (self._connected, self._disconnected):
            if state.done() and not state.cancelled():
                state.exception()  # known, and of no further interest


@asynccontextmanager
async def connected(client: BrokerClient) -> AsyncIterator[BrokerClient]:
    """The client with a connection, which is ended afterwards: with a goodbye, unless something is raised."""
    opening = asyncio.ensure_future(client.open())
    try:
        await asyncio.shield(opening)
        yield client
        await client.say_goodbye()
    finally:
        if opening.done():
            await client.abort()
        else:  # its thread goes on until it has a connection, or none
            opening.add_done_callback(lambda _: asyncio.ensure_future(client.abort()))
            opening.add_done_callback(lambda done: done.cancelled() or done.exception())


async def make_client(
    broker: Broker,
    *,
    identifier: str | None = None,
    will: aiomqtt.Will | None = None,
    max_incoming_bytes: int,
    max_incoming: int,
) -> BrokerClient:
    """A client of the broker that speaks MQTT 5, by which it can say how large a message it takes.

    `identifier` None: the broker gives it one. Raises SettingsError and BadCertificate where a file cannot be used.
    """
    address, tls = broker.address, broker.tls
    password = await asyncio.to_thread(broker.password)
    context = await asyncio.to_thread(tls.context) if tls else None
    limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    limits.MaximumPacketSize = max_incoming_bytes
    client = BrokerClient(
        address.host,
        address.port,
        username=address.user,
        password=password,
        identifier=identifier,
        will=will,
        tls_context=context,
        protocol=aiomqtt.ProtocolVersion.V5,
        properties=limits,
        socket_options=[_AT_ONCE],
        timeout=ANSWER_S,
        keepalive=KEEPALIVE_S,
        max_queued_incoming_messages=max_incoming,
        max_incoming_bytes=max_incoming_bytes,
        logger=_QUIET,
    )
    client.pending_calls_threshold = 2**16  # it warns of more, and those are bounded elsewhere
    return client
