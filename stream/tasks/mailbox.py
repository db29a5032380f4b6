"""One slot between a producer and a consumer on the same event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class MailboxClosed(Exception):
    """Nothing more comes out of the mailbox, and nothing more goes in."""


class Mailbox(Generic[T]):
    """Holds one item: the newest.

    For one producer and one consumer, both tasks of the same event loop; not thread-safe. A live producer
    uses `put`, which never waits and hands back what it displaced; one that must lose nothing uses
    `put_wait`.
    """

    def __init__(self) -> None:
        self._slot: deque[T] = deque(maxlen=1)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, item: T) -> T | None:
        """Put the item in and return the one it displaced, so that the caller can count it; else None.

        Raises MailboxClosed after `close`.
        """
        if self._closed:
            raise MailboxClosed
        displaced = self.take()
        self._slot.append(item)
        self._changed.set()
        return displaced

    async def put_wait(self, item: T) -> None:
        """Put the item in as soon as the slot is free. A cancelled call has put nothing in.

        Raises MailboxClosed when the mailbox is closed, also while waiting.
        """
        while self._slot and not self._closed:
            await self._change()
        self.put(item)

    async def get(self) -> T:
        """Take the item out, waiting for one. A cancelled call has taken nothing.

        Raises MailboxClosed once the mailbox is closed and empty.
        """
        while not self._slot:
            if self._closed:
                raise MailboxClosed
            await self._change()
        self._changed.set()
        return self._slot.popleft()

    def take(self) -> T | None:
        """Take the item out without waiting; None if there is none."""
        if not self._slot:
            return None
        self._changed.set()
        return self._slot.popleft()

    def close(self) -> None:
        """Accept nothing more. The item inside, if any, can still be taken out. May be called again."""
        self._closed = True
        self._changed.set()

    async def _change(self) -> None:
        # One event serves both sides: with one producer and one consumer, whoever waits does so because
        # the slot is in the other's state, so at most one of them waits at a time.
        self._changed.clear()
        await self._changed.wait()
