"""What is decoded and waits for the network's last layers: one connection's frames, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from codec.interface import DecodedFrame
from stream.latency import StageClock


class StaleFrame(Exception):
    """A frame of a live camera that is no use any more."""


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedPacket:
    """A packet, its frame's number, and the clock that runs since it came."""

    data: bytes
    number: int
    received_ns: int
    clock: StageClock


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPacket:
    """A packet's frame, or why there are no detections to have of it."""

    outcome: DecodedFrame | Exception
    packet: ReceivedPacket


class DecodedPackets:
    """At most one frame with its tensors, which hold memory, among packets whose answer is known already.

    Of a live camera the newest frame stays, and one that still waits gives way to it: it was needed as a reference
    only. Of a file every frame stays, and `put` waits. For one producer and one consumer on an event loop.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._packets: deque[DecodedPacket] = deque()
        self._changed = asyncio.Condition()
        self._ended = False

    async def put(self, packet: DecodedPacket) -> None:
        """Add the next packet in order."""
        async with self._changed:
            if isinstance(packet.outcome, DecodedFrame):
                if self._live:
                    self._supersede()
                else:
                    await self._changed.wait_for(lambda: not self.has_frame)
            self._packets.append(packet)
            self._changed.notify_all()

    async def end(self) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def wait(self) -> bool:
        """Wait for something to take; False where nothing more comes."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._packets or self._ended)
            return bool(self._packets)

    @property
    def has_frame(self) -> bool:
        """Whether a frame waits, and not only answers."""
        return any(isinstance(packet.outcome, DecodedFrame) for packet in self._packets)

    async def take(self) -> list[DecodedPacket]:
        """The oldest packets up to the frame that waits, which is the last of them; all, where none does."""
        async with self._changed:
            taken: list[DecodedPacket] = []
            while self._packets:
                taken.append(self._packets.popleft())
                if isinstance(taken[-1].outcome, DecodedFrame):
                    break
            self._changed.notify_all()
            return taken

    def _supersede(self) -> None:
        for place, packet in enumerate(self._packets):
            if isinstance(packet.outcome, DecodedFrame):
                self._packets[place] = replace(packet, outcome=StaleFrame("a newer one has come"))
