"""Consumers of detections, for tests."""

from __future__ import annotations

import asyncio
import json

from services.detections_address import detections_url
from stream.errors import ConnectionLost
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.transport.tls import ClientTls
from stream.transport.websocket import connect
from tests.services.waiting import until


async def subscribe(
    url: str,
    messages: list[dict],
    stream: str | None = None,
    types: str = "detections",
    *,
    tls: ClientTls | None = None,
) -> int:
    """Collect messages of these types until the detector closes; the close code."""
    try:
        address = f"{detections_url(url, stream)}?types={types}"
        async with connect(address, DETECTIONS_PROTOCOL, tls=tls) as link:
            async for text in link:
                messages.append(json.loads(text))  # noqa: PERF401 - readers look while it grows
    except ConnectionLost as lost:
        return lost.code
    raise AssertionError("the link ended without a close")


async def subscribed(
    running,
    url: str,
    messages: list[dict],
    stream: str | None = None,
    types: str = "detections",
    *,
    tls: ClientTls | None = None,
) -> asyncio.Future:
    before = len(running.detector.broadcast)
    task = asyncio.ensure_future(subscribe(url, messages, stream, types, tls=tls))
    await until(lambda: len(running.detector.broadcast) > before)
    return task
