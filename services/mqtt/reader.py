"""Reads what publishers tell a broker, for as long as it takes."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Collection

import aiomqtt

from services.mqtt.broker import Broker
from services.mqtt.client import BrokerClient, connected, make_client
from services.mqtt.failures import explain
from services.mqtt.topics import DELIVERY, LEAVES, Topics
from services.printable import printable
from stream.redact import redact_url
from stream.tasks.backoff import Backoff

MAX_BYTES = 2**20  # of a message: the largest that a detector makes has a tenth of it
MAX_WAITING = 256  # messages that are read before they are shown
TELL_S = 1.0  # between two times that losses are told
_KINDS = {"detections": "detections", "state": "stream", "gaps": "gap"}
"""Types of messages by the last word of their topic."""


class Losses:
    """Tells people, on standard error, how many messages of a connection came faster than they were taken."""

    def __init__(self, client: BrokerClient) -> None:
        self._client, self._told, self._told_s = client, 0, -TELL_S

    def tell(self, now_s: float) -> None:
        """If there are further ones; `now_s` is of any one clock."""
        lost = self._client.lost - self._told
        if lost and now_s - self._told_s >= TELL_S:
            print(f"{lost} messages were lost: read faster", file=sys.stderr)
            self._told, self._told_s = self._client.lost, now_s


async def broker_messages(
    broker: Broker, prefix: str, stream: str | None = None, types: Collection[str] | None = None
) -> AsyncIterator[str]:
    """Texts that publishers tell the broker, for ever, of all streams or of one; a lost broker is tried again.

    `types` are those of messages that are wanted; None: all.
    """
    backoff = Backoff(random.Random())
    topics = Topics(prefix, "")
    filters = [
        (topics.of(stream or "+", leaf), DELIVERY[LEAVES[leaf]].qos)
        for leaf, kind in _KINDS.items()
        if types is None or kind in types
    ]
    while True:
        try:
            client = await make_client(broker, max_incoming_bytes=MAX_BYTES, max_incoming=MAX_WAITING)
            async with connected(client):
                granted = await client.subscribe(filters)
                if any(getattr(code, "value", code) >= 0x80 for code in granted):
                    print(f"the broker lets this user not read everything below {prefix}/", file=sys.stderr)
                losses = Losses(client)
                async for message in client.messages:
                    backoff.reset()
                    losses.tell(time.monotonic())
                    if text := _text_of(message, topics):
                        yield text
        except Exception as error:  # a library's defect costs a connection
            failure, reason = explain(error, broker.address)
            delay_s = backoff.next_delay_s(failure, time.monotonic())
            reason = printable(redact_url(reason))
            print(f"no broker: {reason}; again in {delay_s:.1f} s", file=sys.stderr)
        await asyncio.sleep(delay_s)


def _text_of(message: aiomqtt.Message, topics: Topics) -> str | None:
    """The message as a text; None where nothing is left of it, or it is of another stream than its topic.

    Brokers decide by the topic who may publish: what a message says of itself anybody could write.
    """
    payload = message.payload
    if not isinstance(payload, bytes | bytearray) or not payload:
        return None
    text = payload.decode(errors="replace")
    stream, _ = topics.stream_and_leaf(str(message.topic)) or ("", "")
    try:
        said = json.loads(text)["stream"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return text  # shown as it came
    if said == stream:
        return text
    print(f"left out: a message below {printable(str(message.topic))} is of another stream", file=sys.stderr)
    return None
