"""The packets of a recording in the order and at the times in which they go out."""

from __future__ import annotations

import asyncio
import time

from services.recording.player import KeyframePlace, PlayedPacket, Player
from stream.tasks.worker import Worker

MAX_GAP_S = 10.0  # without a packet: a longer one, in which nothing was recorded, passes in that time


class Line:
    """One packet at a time, read on a thread; may be taken back to a keyframe."""

    def __init__(self, player: Player, speed: float | None) -> None:
        self._player, self._speed = player, speed
        self._worker = Worker("player")
        self._upcoming: PlayedPacket | None = None
        self._is_read = False  # what comes next, even that nothing does
        self._due_s: float | None = None  # of the packet that was sent last for the first time
        self._captured_ns = 0  # of the same
        self._newest = -1  # its number

    def close(self) -> None:
        """Let go of the thread."""
        self._worker.close()

    async def peek(self) -> PlayedPacket | None:
        """The packet that is to go out next; None behind the last. Raises OSError, NoRecording."""
        if not self._is_read:
            self._upcoming = await self._worker.run(self._player.next)
            self._is_read = True
        return self._upcoming

    def advance(self) -> None:
        """That packet has gone out, or never will."""
        self._upcoming, self._is_read = None, False

    async def rewind(self, place: KeyframePlace) -> None:
        """Let the keyframe at that place be the next."""
        await self._worker.run(self._player.go_to, place)
        self.advance()

    async def until_due(self, packet: PlayedPacket) -> None:
        """Wait for the packet's time, if it is sent for the first time, and at a speed."""
        if packet.number <= self._newest:
            return
        elapsed_s = (packet.captured_ns - self._captured_ns) / 1e9
        self._newest, self._captured_ns = packet.number, packet.captured_ns
        if self._speed is None:
            return
        now_s = time.monotonic()
        if self._due_s is None:
            self._due_s = now_s
        else:
            self._due_s += min(elapsed_s, MAX_GAP_S) / self._speed
        await asyncio.sleep(self._due_s - now_s)
