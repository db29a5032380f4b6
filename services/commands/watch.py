"""Prints what a detector publishes."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping

from services.certificates import client_tls
from services.commands.message_lines import readable
from services.commands.settings import WatchSettings
from services.commands.shards import ShardMerge
from services.detections_address import detections_url
from services.errors import BadAddress, SettingsError
from services.logs import to_json
from services.own_token import current_headers
from services.printable import printable
from services.settings import ClientSettings
from stream.errors import ConnectionLost, TlsFailed
from stream.redact import redact_url
from stream.session.close_codes import CloseCode
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.tasks.background import run_with_background
from stream.tasks.backoff import Backoff, Failure
from stream.transport.websocket import connect

_DENIED_STATUSES = (401, 403)
_PASSING_STATUSES = (*_DENIED_STATUSES, 407, 408, 425, 429)  # rights may be given, too
WAITING_MESSAGES = 64  # read, and not printed yet: a detector counts those that it then cannot get rid of
SILENCE_S = 10.0  # after which a detector that does not even answer pings is tried anew


class Presence:
    """Tells people, on standard error, whether a detector is there; of one among several only what has changed."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is what to call it; None: it is the only one."""
        self._address, self._away = address, False

    def lose(self, reason: str, delay_s: float) -> None:
        """It is gone, or an attempt to reach it has failed: the next one comes after so long."""
        reason = printable(redact_url(reason))
        if self._address is None:
            print(f"no detector: {reason}; again in {delay_s:.1f} s", file=sys.stderr)
        elif not self._away:
            print(f"no detector at {self._address}: {reason}; it is tried again", file=sys.stderr)
        self._away = True

    def return_(self) -> None:
        """It is there."""
        if self._address is not None and self._away:
            print(f"the detector at {self._address} is there again", file=sys.stderr)
        self._away = False


async def messages(
    url: str, client: ClientSettings | None = None, presence: Presence | None = None
) -> AsyncIterator[str]:
    """Texts that the detector publishes, for ever; a lost detector is tried again.

    `client` says how the two know each other. Raises BadAddress where something else than a detector answers.
    """
    backoff, presence = Backoff(random.Random()), presence or Presence()
    while True:
        try:
            headers = await current_headers(client) if client else None
            tls = client_tls(client) if client else None
            async with connect(url, DETECTIONS_PROTOCOL, headers=headers, tls=tls) as link:
                presence.return_()
                watching = asyncio.ensure_future(link.abort_when_silent(SILENCE_S))
                try:
                    async for data in link:
                        backoff.reset()
                        if isinstance(data, str):
                            yield data
                finally:
                    watching.cancel()
        except ConnectionLost as lost:
            if is_no_detector(lost):
                raise BadAddress(f"no detector at {redact_url(url)}: {redact_url(lost.reason)}") from None
            delay_s = backoff.next_delay_s(_failure_of(lost), time.monotonic())
            presence.lose(lost.reason, delay_s)
        await asyncio.sleep(delay_s)


def is_no_detector(lost: ConnectionLost) -> bool:
    """Whether what answered will not become a detector: a page, a path that nobody serves, another protocol.

    A proxy whose detector is not there, or that has had enough for a while, answers with other statuses.
    """
    if lost.status is None:
        return lost.code == CloseCode.BAD_SUBPROTOCOL
    return 200 <= lost.status < 500 and lost.status not in _PASSING_STATUSES


def _failure_of(lost: ConnectionLost) -> Failure:
    if isinstance(lost, TlsFailed):
        return Failure.REFUSED
    return Failure.DENIED if lost.status in _DENIED_STATUSES else Failure.NOT_READY


def run_watch(settings: WatchSettings) -> None:
    """Print messages until interrupted, or `count` of them. Raises BadAddress, SettingsError."""
    asyncio.run(_watch(_sources(settings), settings))


def json_line(text: str) -> str:
    """The message as JSON on one line, of characters that every terminal has; what is no JSON as a JSON text."""
    try:
        return to_json(json.loads(text))
    except (ValueError, RecursionError):
        return to_json(text)


def _sources(settings: WatchSettings) -> dict[str, AsyncIterator[str]]:
    """What is watched, by its address. Raises BadAddress, SettingsError."""
    if broker := settings.mqtt_broker:
        from services.mqtt.reader import broker_messages

        types = settings.types.split(",") if settings.types else None
        return {settings.addresses[0]: broker_messages(broker, settings.mqtt_prefix, settings.stream, types)}
    urls = [detections_url(address, settings.stream, settings.types) for address in settings.addresses]
    try:
        for url in urls:
            settings.check_way(url)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    several = len(urls) > 1
    return {url: messages(url, settings, Presence(redact_url(url) if several else None)) for url in urls}


async def _watch(sources: Mapping[str, AsyncIterator[str]], settings: WatchSettings) -> None:
    """Print what comes from all of them, in the order in which it comes."""
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING_MESSAGES)

    async def read(address: str, texts: AsyncIterator[str]) -> None:
        async for text in texts:
            await told.put((address, text))

    async def show() -> None:
        merge, printed = ShardMerge(), 0
        while printed != settings.count:
            address, text = await told.get()
            if len(sources) > 1 and not merge.admits(address, text):
                continue
            print(json_line(text) if settings.as_json else readable(text), flush=True)
            printed += 1

    await run_with_background(show(), *(read(*source) for source in sources.items()))
