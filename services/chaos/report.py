"""What passed a proxy and what its faults did, as JSON. No clock: times are arguments, seconds since its start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from services.chaos.faults import Direction, MessageKind

MOST_EVENTS = 1000  # kept of each fault, the first ones; all are counted


@dataclass(slots=True)
class Passed:
    """What has reached its end in one direction."""

    bytes: int = 0
    messages: Counter[MessageKind] = field(default_factory=Counter)  # binary: without keyframes

    def describe(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "messages": dict(self.messages)}


@dataclass(slots=True)
class FaultRecord:
    """What one fault has done, and when it was on."""

    text: str
    count: int = 0  # messages chosen, connections struck
    switched_on: int = 0
    on_since_s: float | None = None  # None: it is off
    on_before_s: float = 0.0  # how long it was on, all times before this one together
    first_s: float | None = None
    last_s: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def switch(self, on: bool, now_s: float) -> None:
        """It goes on or off; nothing changes if it is."""
        if on and self.on_since_s is None:
            self.switched_on += 1
            self.on_since_s = now_s
        elif not on and self.on_since_s is not None:
            self.on_before_s += now_s - self.on_since_s
            self.on_since_s = None

    def add(self, now_s: float, connection: int, **facts: Any) -> None:
        """It did something to a connection, or to a message of it."""
        self.count += 1
        self.first_s = now_s if self.first_s is None else self.first_s
        self.last_s = now_s
        if len(self.events) < MOST_EVENTS:
            self.events.append({"at_s": round(now_s, 4), "connection": connection, **facts})

    def describe(self, now_s: float) -> dict[str, Any]:
        on_s = self.on_before_s + (0.0 if self.on_since_s is None else now_s - self.on_since_s)
        return {
            "fault": self.text,
            "on": self.on_since_s is not None,
            "switched_on": self.switched_on,
            "on_s": round(on_s, 4),
            "count": self.count,
            "first_s": None if self.first_s is None else round(self.first_s, 4),
            "last_s": None if self.last_s is None else round(self.last_s, 4),
            "events": self.events,
            "events_left_out": self.count - len(self.events),
        }


@dataclass(slots=True)
class ChaosReport:
    """The account of a proxy."""

    to: str
    seed: int
    started_unix_s: float
    accepted: int = 0
    open: int = 0
    unreachable: int = 0  # connections that ended at once, as the server could not be reached
    passed: dict[Direction, Passed] = field(default_factory=lambda: {"up": Passed(), "down": Passed()})
    faults: list[FaultRecord] = field(default_factory=list)

    def describe(self, now_s: float) -> dict[str, Any]:
        """As JSON."""
        return {
            "to": self.to,
            "seed": self.seed,
            "started_at": self.started_unix_s,
            "seconds": round(now_s, 3),
            "connections": {"accepted": self.accepted, "open": self.open, "unreachable": self.unreachable},
            "passed": {direction: passed.describe() for direction, passed in self.passed.items()},
            "faults": [record.describe(now_s) for record in self.faults],
        }
