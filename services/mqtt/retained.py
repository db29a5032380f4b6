"""What the broker should keep of each stream: its state, its counts, and what makes it known to Home Assistant.

A broker may lose its memory, and another publisher may have the stream after this one, or before it: whoever has a
stream's camera is right about it, and says so again where he is contradicted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from services.mqtt.homeassistant import GONE
from services.mqtt.topics import OFFLINE, ONLINE, Outgoing, Topics, with_fields

GONE_KEPT = (
    64  # streams whose camera is gone, of which the broker keeps a state: as many as a detector remembers
)
FORGOTTEN_KEPT = 1024  # topics that are still to be taken back

Discover = Callable[[str], Mapping[str, str]]


class Retained:
    """The newest message of every topic that is kept, and which of them the broker still has to get.

    `discover` gives topics and payloads of Home Assistant's discovery of a stream. `on_superseded` is called for a
    state that a newer one replaced before it was sent.
    """

    def __init__(self, topics: Topics, discover: Discover, on_superseded: Callable[[], None]) -> None:
        self._topics, self._discover, self._on_superseded = topics, discover, on_superseded
        self._messages: dict[str, Outgoing] = {}  # by topic
        self._due: dict[str, None] = {}  # topics, in their order
        self._never_sent: set[str] = set()  # topics of states that nobody was told yet
        self._present: set[str] = set()  # streams whose camera is here
        self._gone: dict[str, None] = {}  # those whose camera was, longest ago first
        self._forgotten: dict[str, None] = {}  # topics that are empty until the broker knows
        self._keep(Outgoing("available", topics.available, ONLINE))

    def __len__(self) -> int:
        """How many messages the broker still has to get."""
        return len(self._due)

    def is_present(self, stream: str) -> bool:
        """Whether the stream's camera is here."""
        return stream in self._present

    def update_state(self, stream: str, text: str) -> None:
        """A stream's state, as consumers are told it. One that is gone makes room for those that are gone after it."""
        state, topic = json.loads(text)["state"], self._topics.of(stream, "state")
        self._gone.pop(stream, None)
        if state in GONE:
            self._present.discard(stream)
            self._gone[stream] = None
        elif stream not in self._present:
            self._present.add(stream)
            for config, payload in self._discover(stream).items():
                self._keep(Outgoing("discovery", config, payload, stream))
        if topic in self._never_sent:
            self._on_superseded()
        self._never_sent.add(topic)
        self._keep(Outgoing("state", topic, with_fields(text, publisher=self._topics.publisher), stream))
        self._forget_oldest()

    def update_counts(self, stream: str, text: str) -> None:
        """What a stream shows, of which there is a state."""
        self._keep(Outgoing("counts", self._topics.of(stream, "counts"), text, stream))

    def renew(self) -> None:
        """The broker may have forgotten everything."""
        self._due = dict.fromkeys(self._messages)

    def say_goodbye(self) -> None:
        """This publisher leaves."""
        self._keep(Outgoing("available", self._topics.available, OFFLINE))

    # --- what is due ---

    def take(self) -> Outgoing | None:
        """The next message that the broker has to get, which is no more due; None: it has them all."""
        topic = next(iter(self._due), None)
        if topic is None:
            return None
        del self._due[topic]
        self._never_sent.discard(topic)
        return self._messages[topic]

    def confirm(self, message: Outgoing) -> None:
        """The broker has it."""
        if not message.payload and self._messages.get(message.topic) is message:
            self._drop(message.topic)

    def give_back(self, message: Outgoing) -> None:
        """The broker may not have got it."""
        if message.topic in self._messages:
            self._due[message.topic] = None

    # --- what others say ---

    def hear(self, topic: str, payload: bytes, *, kept: bool) -> None:
        """A message of somebody below the prefix; `kept`: the broker had it before this publisher came.

        It may be anything. Whatever is no contradiction is left alone.
        """
        if topic == self._topics.available:
            if payload != self._messages[topic].payload.encode():
                self._due[topic] = None
            return
        match self._topics.stream_and_leaf(topic):
            case (stream, "state"):
                self._hear_state(stream, _claim(payload), kept=kept)

    def _hear_state(self, stream: str, claim: Mapping[str, Any] | None, *, kept: bool) -> None:
        gone = claim is None or claim["state"] in GONE
        is_own = claim is not None and claim["publisher"] == self._topics.publisher
        if stream in self._present:
            if gone and not is_own:
                self._repeat(stream)
        elif claim and is_own:
            if kept and stream not in self._gone:
                self._adopt(stream, claim)
        elif not gone and stream in self._gone:  # its camera is with another one now
            del self._gone[stream]
            for topic in self._topics_of(stream):
                self._drop(topic)

    def _adopt(self, stream: str, claim: Mapping[str, Any]) -> None:
        """A stream that this publisher had before it was started anew: its camera is not here, or not yet."""
        lost = {"state": "lost", "reason": "started anew, and the camera is not back"}
        text = json.dumps({**claim, **({} if claim["state"] in GONE else lost)}, separators=(",", ":"))
        self._keep(Outgoing("state", self._topics.of(stream, "state"), text, stream))
        for config, payload in self._discover(stream).items():
            self._keep(Outgoing("discovery", config, payload, stream))
        self._gone = {stream: None, **self._gone}
        self._forget_oldest()

    def _repeat(self, stream: str) -> None:
        self._due |= dict.fromkeys(self._topics_of(stream))

    # --- what is kept ---

    def _forget_oldest(self) -> None:
        while len(self._gone) > GONE_KEPT:
            stream = next(iter(self._gone))
            del self._gone[stream]
            for topic in self._topics_of(stream):
                kind = self._messages[topic].kind
                self._keep(Outgoing(kind, topic, "", stream))
                self._forgotten[topic] = None
        while len(self._forgotten) > FORGOTTEN_KEPT:
            self._drop(next(iter(self._forgotten)))

    def _topics_of(self, stream: str) -> list[str]:
        """Of what is kept of a stream. Discovery first: without an entity nobody misses a value in what is empty."""
        known: Iterable[str] = (
            *self._discover(stream),
            self._topics.of(stream, "counts"),
            self._topics.of(stream, "state"),
        )
        return [topic for topic in known if topic in self._messages]

    def _keep(self, message: Outgoing) -> None:
        self._drop(message.topic)
        self._messages[message.topic] = message
        self._due[message.topic] = None

    def _drop(self, topic: str) -> None:
        self._messages.pop(topic, None)
        self._due.pop(topic, None)
        self._forgotten.pop(topic, None)


def _claim(payload: bytes) -> dict[str, Any] | None:
    """Who says that a stream is in which state; None where it is no such message."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    good = all(isinstance(message.get(field), str) for field in ("publisher", "state"))
    return message if good else None
