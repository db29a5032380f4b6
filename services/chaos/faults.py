"""The faults, and the texts that say them: `flip:kind=keyframe,count=2`. No clock, no socket."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codec.spec_text import parse_spec

Direction: TypeAlias = Literal["up", "down"]
"""Up: from the client to the server."""
End: TypeAlias = Literal["client", "server"]
MessageKind: TypeAlias = Literal["text", "binary", "keyframe"]
"""Of a WebSocket message; keyframe: a binary one that holds a packet without a reference."""

DAY_S = 86_400.0
YEARS_S = 1e9
Milliseconds = Annotated[float, Field(ge=0, le=DAY_S * 1e3)]


class Fault(BaseModel):
    """What all faults say: when they are on, in seconds after the proxy's start."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: Annotated[float, Field(ge=0, le=YEARS_S)] = 0.0
    duration: Annotated[float, Field(ge=0, le=YEARS_S)] | None = None  # None: for good
    period: Annotated[float, Field(gt=0, le=YEARS_S)] | None = None  # from one start to the next

    @model_validator(mode="after")
    def _check_period(self) -> Self:
        if self.period is not None and (self.duration is None or self.period <= self.duration):
            raise ValueError("a fault with a period needs a duration, which is shorter")
        return self

    def windows(self) -> Iterator[tuple[float, float]]:
        """When it is on: from and until, in order and perhaps without end."""
        start_s = self.start
        while True:
            yield start_s, math.inf if self.duration is None else start_s + self.duration
            if self.period is None:
                return
            start_s += self.period


# --- on all bytes that pass ---


class ByteFault(Fault):
    """A fault of the way itself."""

    direction: Literal["both", "up", "down"] = "both"


class Latency(ByteFault):
    """Bytes come `ms` later, more or less by up to `jitter` ms; their order stays."""

    ms: Milliseconds
    jitter: Milliseconds = 0.0


class Bandwidth(ByteFault):
    """All connections together pass `kbps` kbit/s each way."""

    kbps: Annotated[float, Field(gt=0, le=1e9)]


class BlackHole(ByteFault):
    """Nothing passes and nobody is told, not even of an end; what was sent passes afterwards."""


class SlowClose(ByteFault):
    """That one end has closed reaches the other `ms` later."""

    ms: Milliseconds


# --- on connections ---


class ConnectionFault(Fault):
    """Strikes the connections that are open at its start, and those that come while it is on."""

    duration: Annotated[float, Field(ge=0, le=YEARS_S)] | None = 0.0


class Reset(ConnectionFault):
    """Both ends are told by a reset."""


class HalfOpen(ConnectionFault):
    """The connection is dead, and `side` is not told: it talks to nobody. The other end is told by a reset."""

    side: Literal["both", "client", "server"] = "both"

    @property
    def untold(self) -> tuple[End, ...]:
        return ("client", "server") if self.side == "both" else (self.side,)


# --- on WebSocket messages ---


class MessageFault(Fault):
    """A fault of single messages: which, of those that fit, counted from 1 since it was switched on."""

    kind: Literal["any", "text", "binary", "keyframe"] = "any"
    direction: Literal["both", "up", "down"] = "both"
    at: Annotated[int, Field(ge=1)] = 1  # the first
    every: Annotated[int, Field(ge=1)] = 1
    count: Annotated[int, Field(ge=1)] | None = None  # at most so many
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0

    def fits(self, direction: Direction, kind: MessageKind) -> bool:
        """Whether a message is one of those that it may choose."""
        kinds = {"any": ("text", "binary", "keyframe"), "binary": ("binary", "keyframe")}
        return self.direction in ("both", direction) and kind in kinds.get(self.kind, (self.kind,))


class Delay(MessageFault):
    """A message, and all behind it, comes `ms` later, more or less by up to `jitter` ms."""

    ms: Milliseconds
    jitter: Milliseconds = 0.0


class Reorder(MessageFault):
    """A message is held for `ms`, and what comes meanwhile overtakes it."""

    ms: Milliseconds = 500.0


class Truncate(MessageFault):
    """A message ends early: `keep`, of 1, is left."""

    keep: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Flip(MessageFault):
    """So many bits of a message are inverted, anywhere."""

    bits: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class Duplicate(MessageFault):
    """A message comes so many times more."""

    copies: Annotated[int, Field(ge=1, le=100)] = 1


class Lose(MessageFault):
    """A message never comes."""


class Oversize(MessageFault):
    """A message is filled up to `mib` MiB."""

    mib: Annotated[float, Field(gt=0, le=256)] = 16.0


FAULTS: dict[str, type[Fault]] = {
    "latency": Latency,
    "bandwidth": Bandwidth,
    "blackhole": BlackHole,
    "slow-close": SlowClose,
    "reset": Reset,
    "half-open": HalfOpen,
    "delay": Delay,
    "reorder": Reorder,
    "truncate": Truncate,
    "flip": Flip,
    "duplicate": Duplicate,
    "lose": Lose,
    "oversize": Oversize,
}


def parse_fault(text: str) -> Fault:
    """The fault that a text such as `latency:ms=250,jitter=50,start=10,duration=30` says.

    Raises ValueError, which says what may stand there.
    """
    name, values = parse_spec(text)
    if name not in FAULTS:
        raise ValueError(f"{name[:80]!r} is no fault; there are {', '.join(FAULTS)}")
    try:
        return FAULTS[name].model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}: {_complaint(error, FAULTS[name])}") from None


def _complaint(error: ValidationError, fault: type[Fault]) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"][:1]))[:80]
    match first["type"]:
        case "missing":
            return f"{key}=... is needed"
        case "extra_forbidden":
            return f"there is no {key!r}; it takes {', '.join(fault.model_fields)}"
    return f"{key}: {first['msg']}" if key else first["msg"].removeprefix("Value error, ")
