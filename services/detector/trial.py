"""A camera's trial: it would be welcome, and measures the way to this detector before anything depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from services.access.tokens import Quota
from services.metrics import VERSION
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from stream.session.detector import DetectorSession
from stream.transport.websocket import Link

TRIAL_S = 30.0  # from the welcome on
TRIAL_BYTES = 32 * 2**20
# No memory is promised to trials, and each may have a message of the largest size under way.
TRIALS_AT_ONCE = 4


class Trials:
    """How many go on."""

    def __init__(self) -> None:
        self._running = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """For as long as a trial goes on. Raises SessionError where there are enough."""
        if self._running >= TRIALS_AT_ONCE:
            raise SessionError(CloseCode.TRY_AGAIN_LATER, f"{TRIALS_AT_ONCE} other trials go on")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


async def serve_trial(link: Link, session: DetectorSession, max_packet_bytes: int, quota: Quota) -> NoReturn:
    """Say welcome, then answer every packet at once and throw it away, until the camera leaves or has had enough.

    Raises ConnectionLost once it has left, SessionError where it sends more, or for longer, than a trial may.
    """
    await link.send(session.welcome(max_packet_bytes, f"splitcast/{VERSION}", quota.frames_per_s))
    packets, left_bytes = 0, TRIAL_BYTES
    try:
        async with asyncio.timeout(TRIAL_S):
            while True:
                packet = await link.receive()
                if isinstance(packet, str):
                    raise SessionError(CloseCode.BAD_MESSAGE, "a text in a trial, which has packets alone")
                session.receive_packet(len(packet))
                left_bytes -= len(packet)
                if left_bytes < 0:
                    raise SessionError(CloseCode.PACKET_TOO_LARGE, f"a trial may send {TRIAL_BYTES} bytes")
                await link.send(session.acknowledge(packets % 2**32, 0, {}))
                packets += 1
    except TimeoutError:
        raise SessionError(CloseCode.TIMEOUT, f"a trial may last {TRIAL_S:g} s") from None
