"""Sends what a camera recorded in an outage, once it has a detector again, beside what it sees now and behind it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Protocol

import structlog

from services.camera.session_secret import SessionSecret
from services.errors import DetectorRefused
from services.recording.backlog import Backlog
from services.recording.player import PlayedPacket, Player
from services.replay.connection import Destination
from services.replay.ledger import Ledger
from services.replay.line import Line
from services.replay.settle import settle_all
from services.settings import ClientSettings
from stream.errors import ConnectionLost, NoRecording
from stream.late_name import late_name

log = structlog.get_logger(__name__)

WINDOW = 1  # unanswered packets: one at a time, so that what is live never waits for more
STEADY_S = (
    5.0  # of a live stream, before anything is sent: other cameras come back too, and need their places first
)
POLL_S = 0.01
AWAY_S = (
    10.0  # of a live stream, after which the late one leaves: it may be its memory that the detector lacks
)
REST = 3.0  # times as long as a packet took, the next one waits: a quarter of the link and of the detector's turns
MOST_REST_S = 10.0  # less than a detector waits for a word
LIVE_FIRST = 4  # live frames that are detected before a late packet has its turn, where there is no gap


class LiveStream(Protocol):
    """What comes first."""

    @property
    def connected(self) -> bool:
        """Whether a detector takes it."""

    @property
    def connections(self) -> int:
        """How often a detector has taken it."""

    @property
    def unanswered(self) -> int:
        """Packets on their way."""

    @property
    def detected(self) -> int:
        """Frames that were."""


class LateSender:
    """Empties a backlog file by file, for as long as it runs; a file whose packets are all settled is deleted."""

    def __init__(
        self,
        client: ClientSettings,
        detector: str,
        stream: str,
        *,
        live: LiveStream,
        backlog: Backlog,
        target_kbps: float | None = None,
    ) -> None:
        self._name = late_name(stream)
        self._destination = Destination(client, detector, self._name, WINDOW)
        self._live, self._backlog, self._target_kbps = live, backlog, target_kbps
        self._steady: int | None = None  # the connection of the live stream that has lasted long enough
        self._path = Path()  # of the file that is sent
        self._sent: list[Path] = []  # files that could not be deleted
        self._ledger = Ledger(watched=False, on_settled=lambda outcome: backlog.settle(self._path, outcome))

    async def run(self) -> None:
        """Send what waits, for ever."""
        secret = await asyncio.to_thread(SessionSecret, self._name)
        try:
            await self._backlog.count_found()
            while True:
                path = await self._backlog.next_file()
                await self._send(path, secret.text)
        finally:
            secret.close()

    async def _send(self, path: Path, secret: str) -> None:
        """Settle every packet of the file."""
        self._path = path
        line = LateLine(path, self._ledger.packets, self._live, self._backlog, self._target_kbps)
        try:
            await settle_all(
                self._destination,
                line,
                self._ledger,
                secret,
                waits="what is late waits",
                until_due=self._until_steady,
            )
        except DetectorRefused as refused:
            log.error("what an outage left is refused", file=str(path), reason=str(refused))
            self._backlog.lose(path, "refused")
        except (FileNotFoundError, Deleted):
            self._backlog.lose(path, "deleted")
        except (OSError, NoRecording) as error:
            log.error("what an outage left cannot be read", file=str(path), reason=str(error))
            self._backlog.lose(path, "unreadable")
        except Exception:  # a defect of ours costs a file, and nothing that is live
            log.exception("what an outage left is not sent", file=str(path))
            self._backlog.lose(path, "unreadable")
        else:
            self._backlog.finish(path)
            self._sent = await asyncio.to_thread(_delete, [*self._sent, path])
            log.info("sent late", file=str(path), **self._backlog.account)
        finally:
            self._ledger.abandon("lost")
            line.close()

    async def _until_steady(self) -> None:
        """Wait once for each connection of the live stream, however many files follow."""
        if not self._live.connected or self._live.connections != self._steady:
            await _until_steady(self._live)
            self._steady = self._live.connections


class Deleted(Exception):
    """The file that is being sent was deleted, and what waited in it is counted."""


class LateLine(Line):
    """The packets of one file, each when the live stream leaves room.

    A packet waits for a multiple of the time that the one before took, and then for a moment in which no live packet is
    on its way.
    """

    def __init__(
        self, path: Path, first: int, live: LiveStream, backlog: Backlog, target_kbps: float | None
    ) -> None:
        super().__init__(Player([path], first), None)
        self._path, self._live, self._backlog, self._target_kbps = path, live, backlog, target_kbps
        self._sent_s: float | None = None  # when the packet before was, of `_sent_bytes`
        self._sent_bytes = 0

    async def until_due(self, packet: PlayedPacket) -> None:
        """Wait for room. Raises Deleted, or ConnectionLost where the live stream has no detector."""
        now_s = time.monotonic()
        if self._sent_s is not None:
            took_s = now_s - self._sent_s
            rest_s = REST * took_s
            if self._target_kbps:
                rest_s = max(rest_s, self._sent_bytes * 8 / (self._target_kbps * 1e3 / 2) - took_s)
            await asyncio.sleep(min(rest_s, MOST_REST_S))
        await self._until_gap()
        if not self._backlog.holds(self._path):
            raise Deleted
        self._sent_s, self._sent_bytes = time.monotonic(), len(packet.data)

    async def _until_gap(self) -> None:
        before, here_s = self._live.detected, time.monotonic()
        while not self._has_gap(before):
            if self._live.connected:
                here_s = time.monotonic()
            elif time.monotonic() - here_s >= AWAY_S:
                raise ConnectionLost("the live stream has no detector, and comes first")
            await asyncio.sleep(POLL_S)

    def _has_gap(self, before: int) -> bool:
        """Whether a late packet has its turn, which waits since so many live frames were detected."""
        if not self._live.connected:
            return False
        return not self._live.unanswered or self._live.detected - before >= LIVE_FIRST


async def _until_steady(live: LiveStream) -> None:
    """Wait until the live stream has had a detector for a while."""
    since_s: float | None = None
    while since_s is None or time.monotonic() - since_s < STEADY_S:
        if not live.connected:
            since_s = None
        elif since_s is None:
            since_s = time.monotonic()
        await asyncio.sleep(POLL_S * 10)


def _delete(paths: list[Path]) -> list[Path]:
    """Those that cannot be deleted, to be tried again."""
    left = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            left.append(path)
            log.error(
                "what was sent late cannot be deleted, and is sent again after a restart", reason=str(error)
            )
    return left
