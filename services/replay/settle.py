"""One connection after another, until every packet of a line is settled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from services.camera.reconnection import Reconnection
from services.replay.connection import Destination, ReplayConnection
from services.replay.ledger import Ledger
from services.replay.line import Line
from stream.errors import ConnectionLost

log = structlog.get_logger(__name__)


async def settle_all(
    destination: Destination,
    line: Line,
    ledger: Ledger,
    secret: str,
    *,
    waits: str = "no detector",
    until_due: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Send the line's packets, and try for ever; each connection waits for `until_due`.

    `waits` is what the log says of a connection that was lost.

    Raises DetectorRefused, and what reading the recording does.
    """
    reconnection = Reconnection(random.Random())
    while True:
        if until_due:
            await until_due()
        connection = ReplayConnection(destination, line, ledger, secret)
        try:
            if await connection.run():
                return
        except ConnectionLost as lost:
            delay_s = reconnection.next_delay_s(
                lost, time.monotonic(), accepted=connection.accepted, after_s=connection.retry_after_s
            )
            log.warning(
                waits,
                detector=destination.detector,
                reason=lost.reason,
                code=lost.code,
                retry_s=round(delay_s, 2),
                **({"stream": destination.stream} if destination.stream else {}),
            )
            await asyncio.sleep(delay_s)
