"""The topics below which everything is published, and what a message on each of them is; docs/mqtt.md has them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["detections", "gap", "state", "counts", "discovery", "available"]

ONLINE, OFFLINE = "online", "offline"


class Delivery(NamedTuple):
    """How messages of a kind are delivered."""

    qos: int  # 0: at most once, 1: at least once
    retain: bool  # the broker keeps the newest, for whoever subscribes later


DELIVERY: dict[Kind, Delivery] = {
    "detections": Delivery(0, retain=False),
    "gap": Delivery(1, retain=False),
    "state": Delivery(1, retain=True),
    "counts": Delivery(1, retain=True),
    "discovery": Delivery(1, retain=True),
    "available": Delivery(1, retain=True),
}
LEAVES: dict[str, Kind] = {"detections": "detections", "state": "state", "gaps": "gap", "counts": "counts"}
"""Last words of a stream's topics."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a stream, or a publisher."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to the broker; an empty payload takes back what the broker keeps."""

    kind: Kind
    topic: str
    payload: str
    stream: str = ""

    @property
    def delivery(self) -> Delivery:
        return DELIVERY[self.kind]


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one publisher. Names of streams have no character that means something in a topic."""

    prefix: str
    publisher: str  # its name: several may publish to one broker

    @property
    def available(self) -> str:
        """Whether this publisher is there."""
        return f"{self.prefix}/{self.publisher}/available"

    @property
    def states(self) -> str:
        """A filter of all streams' states, whoever publishes them."""
        return f"{self.prefix}/+/state"

    def of(self, stream: str, leaf: str) -> str:
        """One of LEAVES of a stream."""
        return f"{self.prefix}/{stream}/{leaf}"

    def stream_and_leaf(self, topic: str) -> tuple[str, str] | None:
        """Whose topic it is, of a stream or a publisher, and its last word; None if it is none of ours."""
        name, _, leaf = topic.removeprefix(f"{self.prefix}/").partition("/")
        return (name, leaf) if _NAME.fullmatch(name) and topic == self.of(name, leaf) else None


def with_fields(text: str, **fields: object) -> str:
    """A message, JSON of an object that is not empty, with further fields at its end."""
    return f"{text[:-1]},{json.dumps(fields, separators=(',', ':'))[1:]}" if fields else text
