"""A connection to a broker by aiomqtt, which notices at once what ends it, and can be ended at once.

aiomqtt waits for the answer of a broker that has hung up, and for a goodbye that cannot be sent; both would take many
seconds, and there is no public way to end them. So this touches what is private of aiomqtt 2 and paho 2, and nothing
else of ours does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from services.mqtt.broker import Broker

CONNECT_S = 3.0  # for TCP, and for each step of TLS
ANSWER_S = 5.0  # for a broker's answer to a new client, and for a goodbye
KEEPALIVE_S = 10  # a broker takes a client for dead after half as much again, and publishes its last will

_QUIET = logging.getLogger(f"{__name__}.paho")
"""Where aiomqtt and paho complain of what they raise as well."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class HungUp(aiomqtt.MqttError):
    """The broker ended the connection before it had answered."""


class BrokerClient(aiomqtt.Client):
    """One connection; make it anew for the next one."""

    def _client_connect(self) -> None:
        self._client.connect_timeout = CONNECT_S
        super()._client_connect()

    def _on_disconnect(self, *arguments: Any) -> None:
        if not self._connected.done():
            self._connected.set_exception(HungUp("the broker ended the connection before it had answered"))
        super()._on_disconnect(*arguments)

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
        await self.__aenter__()

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
        timeout=ANSWER_S,
        keepalive=KEEPALIVE_S,
        max_queued_incoming_messages=max_incoming,
        logger=_QUIET,
    )
    client.pending_calls_threshold = 2**16  # it warns of more, and those are bounded elsewhere
    return client
