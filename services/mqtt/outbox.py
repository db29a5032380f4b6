"""What is on its way to the broker: a bounded queue of what passes, and beside it what is kept. No I/O and no clock."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from services.mqtt.counts import Counts, counts_text
from services.mqtt.retained import Discover, Retained
from services.mqtt.topics import Kind, Outgoing, Topics, with_fields
from stream.late_name import is_late

MAX_BYTES = 8 * 2**20  # of what waits

DropReason: TypeAlias = Literal["disconnected", "slow", "broken", "superseded", "refused", "shutdown"]
"""Why a message did not reach the broker.

disconnected: the queue was full while there was no broker. slow: it was full, as the broker took too little. broken:
it was being sent when the connection broke. superseded: a newer state came before it was sent. refused: the broker
said that it does not take it. shutdown: the publisher stopped before.
"""

OnDrop: TypeAlias = Callable[[Kind, DropReason], None]


class Outbox:
    """Takes what is broadcast, and hands out what the broker gets next: what is kept, gaps, and then detections.

    When it is full the oldest detections go, and gaps only where nothing but gaps is left. The next message of the
    stream says how many went before it. `capacity` is in messages.
    """

    def __init__(self, topics: Topics, capacity: int, discover: Discover, on_drop: OnDrop) -> None:
        self._topics, self._capacity, self._on_drop = topics, capacity, on_drop
        self.retained = Retained(topics, discover, lambda: on_drop("state", "superseded"))
        self.connected = False  # whether there is a broker
        self._gaps: deque[Outgoing] = deque()
        self._detections: deque[Outgoing] = deque()
        self._bytes = 0
        self._on_the_way = 0  # messages that were handed out, and have not ended
        self._lost: Counter[str] = Counter()  # messages by stream, since the last one that was handed out
        self._counts: dict[str, Counts] = {}  # of streams that are here
        self._closed = False
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """How many messages wait, or are on their way."""
        return self.waiting + self._on_the_way

    @property
    def waiting(self) -> int:
        """How many messages wait to be handed out."""
        return len(self._gaps) + len(self._detections) + len(self.retained)

    # --- in ---

    def put(self, stream: str, kind: str, text: str) -> None:
        """Take a text that is broadcast. Never waits."""
        if kind == "stream":
            self.retained.update_state(stream, text)
            if not self.retained.is_present(stream):
                self._lost.pop(stream, None)
                if self._counts.pop(stream, None):
                    self.retained.update_counts(stream, counts_text(stream, None, json.loads(text)["at"]))
        elif kind == "gap":
            self._queue(self._gaps, Outgoing("gap", self._topics.of(stream, "gaps"), text, stream))
        elif kind == "detections":
            topic = self._topics.of(stream, "detections")
            self._queue(self._detections, Outgoing("detections", topic, text, stream))
            self._count(stream, text)
        self._ready.set()

    def end_second(self, unix_s: float) -> None:
        """A second is over, as counts see it."""
        for stream, counts in self._counts.items():
            if counts.end_second():
                self.retained.update_counts(stream, counts_text(stream, counts.shown, unix_s))
                self._ready.set()

    def hear(self, topic: str, payload: bytes, *, kept: bool) -> None:
        """A message of somebody else, as `Retained.hear` takes it."""
        self.retained.hear(topic, payload, kept=kept)
        if self.retained:
            self._ready.set()

    def renew(self) -> None:
        """There is a broker, which may have forgotten everything."""
        self.connected = True
        self.retained.renew()
        self._ready.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._ready.set()

    # --- out ---

    async def next(self) -> Outgoing | None:
        """What the broker gets next, waiting for it; None when there is nothing left, and nothing more comes."""
        while True:
            if message := self.retained.take() or self._pop():
                self._on_the_way += 1
                return message
            if self._closed:
                return None
            self._ready.clear()
            await self._ready.wait()

    def confirm(self, message: Outgoing) -> None:
        """The broker has the message."""
        self._on_the_way -= 1
        self.retained.confirm(message)

    def refuse(self, message: Outgoing) -> None:
        """The broker does not take the message: what is kept is tried again on the next connection."""
        self._on_the_way -= 1
        if message.kind == "gap":
            self._drop(message, "refused")
        else:
            self._on_drop(message.kind, "refused")

    def give_back(self, message: Outgoing) -> None:
        """The broker may not have got the message; what may be told twice is sent again."""
        self._on_the_way -= 1
        if message.delivery.retain:
            self.retained.give_back(message)
        elif message.kind == "gap":
            self._bytes += len(message.payload)
            self._gaps.appendleft(message)
            self._make_room()
        else:
            self._drop(message, "broken")
        self._ready.set()

    def abandon(self) -> None:
        """Nobody gets what is left."""
        for queue in (self._gaps, self._detections):
            while queue:
                self._drop(self._take_from(queue), "shutdown")

    def _pop(self) -> Outgoing | None:
        queue = self._gaps or self._detections
        if not queue:
            return None
        message = self._take_from(queue)
        lost = self._lost.pop(message.stream, 0)
        if not lost:
            return message
        payload = with_fields(message.payload, dropped=lost)
        return Outgoing(message.kind, message.topic, payload, message.stream)

    # --- room ---

    def _queue(self, queue: deque[Outgoing], message: Outgoing) -> None:
        queue.append(message)
        self._bytes += len(message.payload)
        self._make_room()

    def _make_room(self) -> None:
        while len(self._gaps) + len(self._detections) > self._capacity or self._bytes > MAX_BYTES:
            oldest = self._take_from(self._detections or self._gaps)
            self._drop(oldest, "slow" if self.connected else "disconnected")

    def _take_from(self, queue: deque[Outgoing]) -> Outgoing:
        message = queue.popleft()
        self._bytes -= len(message.payload)
        return message

    def _drop(self, message: Outgoing, reason: DropReason) -> None:
        self._on_drop(message.kind, reason)
        if self.retained.is_present(message.stream):  # whoever is gone may have nothing more to say
            self._lost[message.stream] += 1

    def _count(self, stream: str, text: str) -> None:
        if is_late(stream) or not self.retained.is_present(stream):  # nobody is there now whom it shows
            return
        message = json.loads(text)
        counts = self._counts.setdefault(stream, Counts())
        if counts.add(prediction["class"] for prediction in message["predictions"]):
            self.retained.update_counts(stream, counts_text(stream, counts.shown, message["published_at"]))
