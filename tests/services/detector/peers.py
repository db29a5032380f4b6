"""How a camera of the test's own speaks to a detector."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import asdict

from codec.layout import Layout
from services.detector.streams import Stream, Streams
from stream.errors import ConnectionLost
from stream.session.ack import Ack
from stream.session.messages import FEATURES_PROTOCOL
from stream.transport.websocket import Link, connect
from tests.services.waiting import LIVENESS_S
from tests.stream.session.peers import make_hello


def connect_stream(
    streams: Streams, layout: Layout, now_ns: int = 0, unix_s: float = 0.0, **hello: object
) -> Stream:
    """The stream of a camera that says hello, as soon as it was welcomed."""
    greeting = make_hello(**hello)
    stream = streams.arrive(greeting.stream, now_ns, unix_s)
    streams.greet(stream, greeting, layout, now_ns, unix_s)
    return stream


@asynccontextmanager
async def linked(url: str, token: str | None = None, query: str = ""):
    """A link on which nothing has been said yet; `query` is part of its address."""
    headers = {"Authorization": f"Bearer {token}"} if token else None
    async with (
        asyncio.timeout(LIVENESS_S),
        connect(f"{url}/v1/features{query}", FEATURES_PROTOCOL, headers=headers) as link,
    ):
        yield link


async def answer(link: Link) -> dict:
    """The detector's next message; an ack as if it were a text."""
    return said(await link.receive())


def said(data: bytes | str) -> dict:
    """What a message of the detector's says, an ack as if it were a text."""
    return {"type": "ack", **asdict(Ack.parse(data))} if isinstance(data, bytes) else json.loads(data)


async def closed(link: Link) -> ConnectionLost:
    """How the detector closes; what it says before is skipped."""
    try:
        while True:
            await link.receive()
    except ConnectionLost as lost:
        return lost
