"""What became of every packet of a replay, in order, each told once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.recording.player import KeyframePlace, PlayedPacket

_FIELDS = ("class_id", "class", "confidence", "x", "y", "width", "height")
TRIES = 2  # of a packet that the detector rejects; it may have lost its reference by then


class DetectionsDigest:
    """SHA-256 over detections as they are published, a line a frame (docs/recording.md)."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, number: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """The detections of the packet with that number, from 0."""
        values = [[prediction.get(field) for field in _FIELDS] for prediction in predictions]
        self._hash.update(json.dumps([number, values], separators=(",", ":")).encode() + b"\n")

    @property
    def text(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class Entry:
    """A packet that was sent and is not settled."""

    number: int
    captured_ns: int
    chain: KeyframePlace
    rejected: int = 0  # how often
    outcome: str | None = None  # why it was given up
    objects: int | None = None  # detected, once that is known
    predictions: Sequence[Mapping[str, Any]] = ()  # where they are watched


class Ledger:
    """Every packet is detected, or rejected for a reason; packets = detected + rejected + pending.

    With `watched` a packet counts as detected once its detections have come, else once it is acknowledged.
    """

    def __init__(self, *, watched: bool, on_settled: Callable[[str], None] = lambda outcome: None) -> None:
        """`on_settled` is told of each packet: "detected", or why it was rejected."""
        self.watched, self._on_settled = watched, on_settled
        self.packets = self.detected = self.objects = self.sent = 0
        self.rejected: Counter[str] = Counter()
        self.digest = DetectionsDigest()
        self._pending: deque[Entry] = deque()
        self._broken: KeyframePlace | None = None  # the chain whose rest can be decoded no more

    @property
    def pending(self) -> int:
        """Packets that were sent and are not settled."""
        return len(self._pending)

    @property
    def oldest(self) -> KeyframePlace | None:
        """From where to play again, so that all that is pending comes."""
        return self._pending[0].chain if self._pending else None

    def is_new(self, packet: PlayedPacket) -> bool:
        """Whether the packet was not sent before; others only lead to those that are pending."""
        return packet.number >= self.packets

    def is_hopeless(self, packet: PlayedPacket) -> bool:
        """Whether the packet refers to one that the detector does not take."""
        return packet.chain == self._broken and not packet.keyframe

    def send(self, packet: PlayedPacket) -> None:
        """The packet goes out."""
        self.sent += 1
        if self.is_new(packet):
            self.packets += 1
            self._pending.append(Entry(packet.number, packet.captured_ns, packet.chain))

    def give_up(self, packet: PlayedPacket, reason: str) -> None:
        """The packet is not sent."""
        self._broken = packet.chain
        if self.is_new(packet):
            self.packets += 1
            self._pending.append(Entry(packet.number, packet.captured_ns, packet.chain, outcome=reason))
        elif entry := self._find(packet):
            entry.outcome = entry.outcome or reason
        self._settle()

    def acknowledge(self, packet: PlayedPacket, objects: int) -> None:
        """The detector has detected so many objects on the packet."""
        if not self.watched and (entry := self._find(packet)):
            entry.objects = objects
            self._settle()

    def see(self, captured_ns: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Detections were published of the packet with that time of capture; once more, of one that is settled."""
        for entry in self._pending:
            if entry.captured_ns == captured_ns:
                entry.objects, entry.predictions = len(predictions), predictions
                self._settle()
                return

    def reject(self, packet: PlayedPacket, reason: str, *, final: bool) -> bool:
        """The detector gave no detections. Whether the packet should come again, behind its keyframe."""
        entry = self._find(packet)
        if entry is None:
            return False
        entry.rejected += 1
        if not final and entry.rejected < TRIES and packet.chain != self._broken:
            return True
        if not final:
            self._broken = packet.chain
        entry.outcome = reason
        self._settle()
        return False

    def abandon(self, reason: str) -> None:
        """What was sent and is not settled comes to nothing."""
        for entry in self._pending:
            entry.outcome = entry.outcome or reason
        self._settle()

    def _find(self, packet: PlayedPacket) -> Entry | None:
        return next((entry for entry in self._pending if entry.number == packet.number), None)

    def _settle(self) -> None:
        while self._pending:
            entry = self._pending[0]
            if entry.objects is not None:
                self.detected += 1
                self.objects += entry.objects
                self.digest.add(entry.number, entry.predictions)
            elif entry.outcome is not None:
                self.rejected[entry.outcome] += 1
            else:
                return
            self._pending.popleft()
            self._on_settled("detected" if entry.objects is not None else str(entry.outcome))
