"""One publisher, many subscribers, none of whom can slow the publisher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Sink(Protocol):
    """Takes every text at once, of all streams and kinds, and decides itself what to keep."""

    def put(self, stream: str, kind: str, text: str) -> None:
        """Take a text. Never waits, and never fails."""


class Subscription:
    """A subscriber's bounded queue of texts; when it is full the oldest text goes."""

    def __init__(
        self,
        wants_stream: Callable[[str], bool],
        kinds: frozenset[str] | None,
        capacity: int,
        on_drop: Callable[[], None],
    ) -> None:
        self._wants_stream, self._kinds = wants_stream, kinds
        self._dropped = 0  # since the last text that was taken
        self._texts: deque[str] = deque(maxlen=capacity)
        self._ready = asyncio.Event()
        self._closed = False
        self._on_drop = on_drop

    def wants(self, stream: str, kind: str) -> bool:
        """Whether texts of that kind, of that stream, belong here."""
        return (self._kinds is None or kind in self._kinds) and self._wants_stream(stream)

    def put(self, text: str) -> None:
        if len(self._texts) == self._texts.maxlen:
            self._dropped += 1
            self._on_drop()
        self._texts.append(text)
        self._ready.set()

    def close(self) -> None:
        """End the iteration once the queued texts are taken."""
        self._closed = True
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[tuple[str, int]]:
        """Texts, and how many went between the one before and this one."""
        while True:
            while self._texts:
                dropped, self._dropped = self._dropped, 0
                yield self._texts.popleft(), dropped
            if self._closed:
                return
            self._ready.clear()
            await self._ready.wait()


class Broadcast:
    """Publishes texts by stream name and kind."""

    def __init__(self, capacity: int = 64, on_drop: Callable[[], None] = lambda: None) -> None:
        self._capacity = capacity
        self._on_drop = on_drop
        self._subscriptions: set[Subscription] = set()
        self._sinks: set[Sink] = set()

    def __len__(self) -> int:
        return len(self._subscriptions)

    def is_wanted(self, stream: str, kind: str) -> bool:
        """Whether anybody would get a text of that kind, of that stream: one that nobody reads need not be made."""
        return bool(self._sinks) or any(
            subscription.wants(stream, kind) for subscription in self._subscriptions
        )

    def publish(self, stream: str, kind: str, text: str, *, to_sinks: bool = True) -> None:
        """Queue `text` for every subscriber who wants it, and hand it to every sink. Never waits."""
        for sink in self._sinks if to_sinks else ():
            sink.put(stream, kind, text)
        for subscription in self._subscriptions:
            if subscription.wants(stream, kind):
                subscription.put(text)

    @contextmanager
    def subscribe(
        self, wants_stream: Callable[[str], bool] = lambda stream: True, kinds: frozenset[str] | None = None
    ) -> Iterator[Subscription]:
        """Texts of the streams whose names are wanted, all if nothing is said, and of these kinds, from now on."""
        subscription = Subscription(wants_stream, kinds, self._capacity, self._on_drop)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @contextmanager
    def attach(self, sink: Sink) -> Iterator[None]:
        """Hand the sink every text meanwhile, also after `close`. It is no subscriber, and not counted as one."""
        self._sinks.add(sink)
        try:
            yield
        finally:
            self._sinks.discard(sink)

    def close(self) -> None:
        """Let every subscriber's iteration end."""
        for subscription in self._subscriptions:
            subscription.close()
