"""What goes through Ray between a detector and a replica: a camera's packets as the bytes that came, plain values
otherwise. Ray pickles these classes; nothing that a camera sent is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.detector.turns import DetectedFrame
from stream.session.messages import RejectReason

DEPLOYMENT = "tail"
"""What names of deployments begin with."""


@dataclass(frozen=True, slots=True)
class DecoderPlan:
    """What a replica makes a stream's decoder of, that has none for this key."""

    key: str  # a new one wherever a decoder of the one before must not be used
    codec: str  # as in the hello, with the hash of its calibration profile
    split: str
    canvas: tuple[int, int]  # (H, W) in pixels
    live: bool


@dataclass(frozen=True, slots=True)
class WaitingPacket:
    """A packet, and how long it has waited since it came, in ns: clocks of two machines have nothing in common."""

    data: bytes
    waited_ns: int


@dataclass(frozen=True, slots=True)
class NoDetections:
    """Why a packet gives no detections."""

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaAnswer:
    """What there is to say of a packet, and what its stages took in the replica, in ns."""

    outcome: DetectedFrame | NoDetections
    stages_ns: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class TurnReply:
    """Answers to the packets of a call, in their order; None where the codec's calibration profile has to come too."""

    answers: list[ReplicaAnswer] | None
    worked_ns: int  # from the call's arrival at the replica to this reply
