"""Where bytes wait for the time at which they may go on."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import Literal, TypeAlias

from services.chaos.faults import MessageKind

MOST_BYTES = 4 * 2**20  # that wait in one direction of a connection; a single larger part may

Ending: TypeAlias = Literal["closed", "reset"]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that belong together, or how their sender ended; `kind` where they end a message."""

    data: bytes = b""
    delay_s: float = 0.0
    in_order: bool = True  # what comes later may not overtake it
    kind: MessageKind | None = None
    ending: Ending | None = None


class DelayLine:
    """Parts in the order in which they are due; its owner takes them from one task and puts them from another."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Part]] = []
        self._count = 0
        self._bytes = 0
        self._ordered_due_s = 0.0  # of the last part that nothing may overtake
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, part: Part, delay_s: float = 0.0) -> None:
        """Add a part, which is due after its own delay and this one; waits while too many bytes are here."""
        await self._room.wait()
        due_s = asyncio.get_running_loop().time() + delay_s + part.delay_s
        if part.ending:  # comes last
            due_s = max(due_s, *(due for due, _, _ in self._heap), self._ordered_due_s)
        elif part.in_order:
            due_s = self._ordered_due_s = max(due_s, self._ordered_due_s)
        self._count += 1
        heapq.heappush(self._heap, (due_s, self._count, part))
        self._resize(len(part.data))
        self._changed.set()

    async def get(self) -> Part:
        """The next part, once it is due."""
        loop = asyncio.get_running_loop()
        while True:
            wait_s = self._heap[0][0] - loop.time() if self._heap else None
            if wait_s is not None and wait_s <= 0:
                break
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        _, _, part = heapq.heappop(self._heap)
        self._resize(-len(part.data))
        return part

    def _resize(self, by: int) -> None:
        self._bytes += by
        if self._bytes < MOST_BYTES:
            self._room.set()
        else:
            self._room.clear()
