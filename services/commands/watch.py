"""Prints what a detector publishes."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from services.commands.message_lines import readable
from services.commands.settings import WatchSettings
from services.errors import BadAddress
from stream.errors import ConnectionLost
from stream.redact import redact_url
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.backoff import Backoff, Failure
from stream.transport.websocket import connect

SILENCE_S = 10.0  # after which a detector that does not even answer pings is tried anew


def detections_url(address: str, stream: str | None = None, types: str | None = None) -> str:
    """The WebSocket address of all streams' messages, or of one's, on the detector at `address`.

    `types` lists the types of messages wanted, with commas; None: all.

    `address` is host:port or an http(s):// or ws(s):// URL; one that names a path of its own is kept as it is.
    Raises BadAddress.
    """
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    try:
        parts = urlsplit(address if "://" in address else f"ws://{address}")
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or a bracket that is not closed
        good = False
    if not good:
        raise BadAddress(f"{redact_url(address)!r} is not an address; write host:port or ws://host:port")
    path = parts.path.rstrip("/")
    if not path:
        path = f"/v1/streams/{stream}/detections" if stream else "/v1/detections"
    elif stream:
        raise BadAddress("give --stream or a path, not both")
    query = f"types={types}" if types else ""
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, query, ""))


async def messages(url: str) -> AsyncIterator[str]:
    """Texts that the detector publishes, for ever; a lost detector is tried again."""
    backoff = Backoff(random.Random())
    while True:
        try:
            async with connect(url, DETECTIONS_PROTOCOL) as link:
                watching = asyncio.ensure_future(link.abort_when_silent(SILENCE_S))
                try:
                    async for data in link:
                        backoff.reset()
                        if isinstance(data, str):
                            yield data
                finally:
                    watching.cancel()
        except ConnectionLost as lost:
            delay_s = backoff.next_delay_s(Failure.NOT_READY, time.monotonic())
            print(f"no detector: {redact_url(lost.reason)}; again in {delay_s:.1f} s", file=sys.stderr)
        await asyncio.sleep(delay_s)


def run_watch(settings: WatchSettings) -> None:
    """Print messages until interrupted, or `count` of them. Raises BadAddress."""
    url = detections_url(settings.url, settings.stream, settings.types)
    asyncio.run(_watch(url, settings.as_json, settings.count))


async def _watch(url: str, as_json: bool, count: int | None) -> None:
    printed = 0
    async for text in messages(url):
        print(text if as_json else readable(text), flush=True)
        printed += 1
        if printed == count:
            return
