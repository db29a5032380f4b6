"""The delay of a frame, from the camera to where its detections are used, for different ways to share the work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["split", "pixels", "all here"]


@dataclass(frozen=True, slots=True)
class LinkModel:
    """What joins the camera and the detector."""

    kbps: float  # 1000 bits per second
    rtt_ms: float = 0.0
    detector_speed: float = 1.0  # how many times faster the detector's machine is


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to share the work. Times are medians a frame on the machine that measured."""

    name: str
    kind: Kind
    camera_ms: float
    detector_ms: float  # on a machine as fast as the camera
    bytes: float  # a frame, mean
    agreement: float | None = None  # with the unsplit network; None if it was not measured
    point: str = ""  # split point
    estimated: bool = False  # bytes are a guess, and nothing was coded


def transfer_ms(placement: Placement, link: LinkModel) -> float:
    """Time that the bytes of a frame take on the link, without its delay."""
    return 8 * placement.bytes / link.kbps


def delay_ms(placement: Placement, link: LinkModel) -> float:
    """Camera, transfer, half a round trip, detector: without queues, as for one frame at a time.

    Detections are used where the detector is, so that nothing has to come back (Neurosurgeon, Kang et al., 2017, counts
    the way back, too, which is the same for every placement).
    """
    detector_ms = placement.detector_ms / link.detector_speed
    return placement.camera_ms + transfer_ms(placement, link) + link.rtt_ms / 2 + detector_ms


def frames_per_s(placement: Placement, link: LinkModel) -> float:
    """Frames per second that camera, link and detector sustain, each at work on a frame of its own."""
    slowest = max(
        placement.camera_ms, transfer_ms(placement, link), placement.detector_ms / link.detector_speed
    )
    return 1000 / slowest if slowest > 0 else float("inf")


def ranked(
    placements: Iterable[Placement], link: LinkModel, fps: float = 0.0, agreement: float = 0.0
) -> list[Placement]:
    """The placements, the one to take first.

    Those that agree too little come last, before them those that do not sustain `fps`; among others the delay counts.
    """

    def place(placement: Placement) -> tuple[bool, bool, float]:
        good = placement.agreement is None or placement.agreement >= agreement
        return not good, frames_per_s(placement, link) < fps, delay_ms(placement, link)

    return sorted(placements, key=place)
