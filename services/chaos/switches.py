"""Which faults are on, and what they choose. No clock, no socket."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TypeVar

from services.chaos.faults import ByteFault, ConnectionFault, Direction, Fault, MessageFault, MessageKind
from services.chaos.report import FaultRecord

F = TypeVar("F", bound=Fault)


class Switch:
    """A fault that is on or off; it begins to count anew each time that it goes on."""

    def __init__(self, fault: Fault, record: FaultRecord, random: Random) -> None:
        self.fault, self.record, self.random = fault, record, random
        self.on = False
        self._fitted = self._chosen = 0

    def turn(self, on: bool, now_s: float) -> None:
        """Switch it at that time, in seconds since the proxy's start."""
        if on and not self.on:
            self._fitted = self._chosen = 0
        self.on = on
        self.record.switch(on, now_s)

    def chooses(self, direction: Direction, kind: MessageKind) -> bool:
        """Whether a message fault that is on takes this message, which it counts."""
        fault = self.fault
        if not (self.on and isinstance(fault, MessageFault) and fault.fits(direction, kind)):
            return False
        self._fitted += 1
        number = self._fitted - fault.at
        if number < 0 or number % fault.every or self._chosen == fault.count:
            return False
        if fault.probability < 1 and self.random.random() >= fault.probability:
            return False
        self._chosen += 1
        return True


class Switches:
    """All faults of a proxy."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.all: list[Switch] = []

    def add(self, fault: Fault, text: str) -> Switch:
        """A fault more, which is off. Its random numbers are the same in each run with this seed."""
        switch = Switch(fault, FaultRecord(text), Random(f"{self._seed} {len(self.all)}"))
        self.all.append(switch)
        return switch

    def on(self, kind: type[F], direction: Direction | None = None) -> Iterator[tuple[F, Switch]]:
        """Faults of a class that are on, in the order they were added; for bytes those of the direction."""
        for switch in self.all:
            fault = switch.fault
            if not (switch.on and isinstance(fault, kind)):
                continue
            if isinstance(fault, ByteFault) and direction and fault.direction not in ("both", direction):
                continue
            yield fault, switch

    def messages(self, direction: Direction, kind: MessageKind) -> Iterator[Switch]:
        """Message faults that take this message, in the order they were added."""
        for switch in self.all:
            if switch.chooses(direction, kind):
                yield switch

    def strikes(self) -> Iterator[tuple[ConnectionFault, Switch]]:
        """Connection faults that are on."""
        return self.on(ConnectionFault)
