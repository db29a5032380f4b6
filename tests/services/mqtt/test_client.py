"""Connections that end in any way leave nothing behind, and brokers that are none are left at once."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import pytest

from services.chaos.service import ChaosProxy, chaos_proxy
from services.chaos.settings import Address
from services.mqtt import client as client_module
from services.mqtt.broker import Broker, BrokerAddress
from services.mqtt.client import BrokerClient, HungUp, Refused, Unwanted, connected, make_client
from services.mqtt.failures import explain
from stream.tasks.backoff import Failure
from stream.transport.tls import ClientTls
from tests.certificates import Authority
from tests.mosquitto import HOST, mosquitto, needs_mosquitto, tls_lines
from tests.services.waiting import LIVENESS_S, until

CONNACK = bytes([0x20, 3, 0, 0, 0])  # MQTT 5, 3.2: accepted, no properties


def descriptors() -> int:
    gc.collect()
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


@asynccontextmanager
async def answering(*answers: bytes, hang_up: bool = True) -> AsyncIterator[Broker]:
    """Something that listens, and says this whatever it hears."""

    over: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.current_task())
        await reader.read(4096)
        for answer in answers:
            writer.write(answer)
        with suppress(ConnectionError):
            while not hang_up and await reader.read(4096):
                pass
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield Broker(BrokerAddress(HOST, server.sockets[0].getsockname()[1], tls=False))
    finally:
        server.close()
        await asyncio.gather(*filter(None, over))


async def attempt(broker: Broker) -> None:
    """Connect, subscribe, and read until something ends it."""
    client = await make_client(broker, max_incoming_bytes=1000, max_incoming=10)
    async with connected(client):
        await client.subscribe("#", timeout=1.0)
        async for _ in client.messages:
            pass


GARBAGE = {
    "nothing": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(64),
    "a cut answer": CONNACK[:3],
    "an answer without an end": b"\x20\xff\xff\xff\xff\xff",
    "no answer but a message": b"\x30\x05\x00\x01a\x00b",
    "an answer of another version": bytes([0x20, 2, 0, 1]),
    "properties that are none": b"\x20\x06\x00\x00\x03\xff\xff\xff",
    "a login that is refused": bytes([0x20, 3, 0, 134, 0]),
    "an answer, and then noise": CONNACK + b"\xff" * 100,
    "an answer, and a cut message": CONNACK + b"\x30\x7fab",
    "an answer, and a message without a topic": CONNACK + b"\x30\x03\x00\x00\x00",
    "an answer, and a topic that is not UTF-8": CONNACK + b"\x30\x06\x00\x02\xff\xfe\x00x",
    "an answer, and a confirmation of nothing": CONNACK + b"\x40\x02\x00\x07",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_whatever_answers_is_left_and_explained(garbage):
    before = descriptors()
    async with answering(garbage) as broker, asyncio.timeout(LIVENESS_S):
        with pytest.raises(Exception) as told:  # noqa: PT011 - whatever it is, it is explained
            await attempt(broker)
        assert explain(told.value, broker.address)[1]
    await until(lambda: descriptors() <= before)


async def test_a_broker_that_hangs_up_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_S", LIVENESS_S * 10)
    async with answering() as broker, asyncio.timeout(LIVENESS_S):
        with pytest.raises(HungUp):
            await attempt(broker)


async def test_a_broker_that_never_answers_is_left(monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_S", 0.1)
    before = descriptors()
    async with answering(hang_up=False) as broker:
        with pytest.raises(aiomqtt.MqttError):
            await attempt(broker)
    await until(lambda: descriptors() <= before)


async def test_an_attempt_that_is_given_up_leaves_nothing_behind():
    before = descriptors()
    async with answering(CONNACK, hang_up=False) as broker:
        for wait_s in (0.0, 0.001, 0.01):
            task = asyncio.ensure_future(attempt(broker))
            await asyncio.sleep(wait_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: descriptors() <= before + 1)  # the server's own


UNWANTED = {
    "an answer of 256 MiB": b"\x20\xff\xff\xff\x7f",
    "a message of 256 MiB": CONNACK + b"\x30\xff\xff\xff\x7f\x00\x01a\x00",
    "a message larger than what is taken": CONNACK + b"\x30\xe9\x07",  # 1001 bytes
    "a message of QoS 2": CONNACK + b"\x34\x07\x00\x01a\x00\x01\x00x",
}


@pytest.mark.parametrize("unwanted", UNWANTED.values(), ids=UNWANTED)
async def test_a_broker_that_sends_what_it_may_not_is_left_before_it_is_taken(unwanted):
    before = descriptors()
    async with answering(unwanted, hang_up=False) as broker, asyncio.timeout(LIVENESS_S):
        with pytest.raises(Exception) as told:  # noqa: PT011 - aiomqtt tells it as the cause of its own
            await attempt(broker)
        assert explain(told.value, broker.address)[0] is Failure.REFUSED
        assert isinstance(told.value, Unwanted) or isinstance(told.value.__cause__, Unwanted)
    await until(lambda: descriptors() <= before)


async def test_a_broker_that_hangs_up_right_after_its_answer_is_not_waited_for():
    async with answering(CONNACK) as broker, asyncio.timeout(LIVENESS_S):
        client = await make_client(broker, max_incoming_bytes=1000, max_incoming=10)
        with pytest.raises(aiomqtt.MqttError) as told:
            async with connected(client):
                await client.subscribe("#", timeout=LIVENESS_S * 10)
        assert explain(told.value, broker.address) == (Failure.NOT_READY, "the connection broke")


async def test_messages_that_nobody_has_taken_are_bounded_and_counted():
    message = b"\x30\x05\x00\x01a\x00b"
    async with answering(CONNACK + 25 * message, hang_up=False) as broker:
        client = await make_client(broker, max_incoming_bytes=1000, max_incoming=10)
        async with asyncio.timeout(LIVENESS_S):
            await client.open()
            await until(lambda: client.lost == 15)
        assert len(client.messages) == 10
        await client.abort()


async def test_a_message_does_not_wait_for_the_confirmation_of_the_one_before():
    async with answering(CONNACK, hang_up=False) as broker:
        client = await make_client(broker, max_incoming_bytes=1000, max_incoming=10)
        await client.open()
        assert client._client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await client.abort()


async def test_what_a_broker_takes_at_last_is_refused_no_more():
    confirmations = [b"\x40\x03\x00\x01\x87", b"\x40\x02\x00\x02"]  # not authorized, and then taken

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (CONNACK, *confirmations):
            await reader.read(4096)
            writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    address = BrokerAddress(HOST, server.sockets[0].getsockname()[1], tls=False)
    client = await make_client(Broker(address), max_incoming_bytes=1000, max_incoming=10)
    async with asyncio.timeout(LIVENESS_S), connected(client):
        with pytest.raises(Refused, match="Not authorized"):
            await client.publish("topic", "text", qos=1)
        await client.publish("topic", "text", qos=1)
    server.close()


@pytest.mark.parametrize("refused", [[0], [1], [0, 1], []])
async def test_of_messages_that_are_answered_at_once_each_has_its_own_answer(refused):
    answers = [b"\x40\x03\x00" + bytes([1 + i, 0x97 if i in refused else 0]) for i in range(2)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(CONNACK)
        got = b""
        while got.count(b"topic") < 2:
            got += await reader.read(4096)
        writer.write(b"".join(answers))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    address = BrokerAddress(HOST, server.sockets[0].getsockname()[1], tls=False)
    client = await make_client(Broker(address), max_incoming_bytes=1000, max_incoming=10)
    async with asyncio.timeout(LIVENESS_S), connected(client):
        told = await asyncio.gather(
            *(client.publish("topic", "text", qos=1) for _ in answers), return_exceptions=True
        )
        assert [i for i, error in enumerate(told) if isinstance(error, Refused)] == refused
        assert not client._refusals
    server.close()


async def stand_still(client: BrokerClient, proxy: ChaosProxy) -> None:
    async with connected(client):
        with proxy.fault("blackhole"):
            await client.publish("topic", "text", qos=1, timeout=0.1)


@needs_mosquitto
async def test_connections_that_stand_still_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_S", 0.1)
    async with (
        mosquitto(tmp_path) as broker,
        chaos_proxy(Address(HOST, broker.port), messages=False) as proxy,
    ):
        address = BrokerAddress(HOST, proxy.address.port, tls=False)
        before = descriptors()
        for _ in range(5):
            client = await make_client(Broker(address), max_incoming_bytes=1000, max_incoming=10)
            with pytest.raises(aiomqtt.MqttError):
                await stand_still(client, proxy)
        await until(lambda: descriptors() <= before)


@needs_mosquitto
async def test_handshakes_that_fail_leave_nothing_behind(tmp_path):
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    async with mosquitto(tmp_path, *tls_lines(authority.sign(), authority.file)) as broker:
        address = BrokerAddress(HOST, broker.port, tls=True)
        before = descriptors()
        for _ in range(5):
            with pytest.raises(aiomqtt.MqttError):
                await attempt(Broker(address, ClientTls(stranger.file)))
        await until(lambda: descriptors() <= before)
