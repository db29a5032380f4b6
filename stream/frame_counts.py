"""The account of every captured frame: captured = detected + detected_locally + recorded + dropped + in_flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from stream.session.messages import REJECT_REASONS, RejectReason

# Every drop a camera can count, as (stage, reason); metrics start all of them at zero.
DROPS = (
    ("grab", "overwritten"),  # a newer frame came before this one was read
    ("grab", "superseded"),  # a newer frame came while the window was full
    ("grab", "rate"),  # a newer frame came while rate control held this one back
    ("grab", "disconnected"),  # a newer frame came while there was no detector
    ("grab", "stale"),  # too old by the time that it could be sent
    ("grab", "unreadable"),
    ("grab", "shutdown"),
    ("head", "error"),
    ("encode", "error"),
    ("tail", "error"),  # of the camera's own
    ("encode", "too_large"),  # a packet of more bytes than the detector takes
    ("network", "connection_lost"),
    ("network", "stale"),  # it reached the detector too late
    ("network", "shutdown"),
    *(("detector", reason) for reason in REJECT_REASONS if reason != "stale"),
)


class FrameCounts:
    """Counts frames on the camera's side; each captured frame gets one outcome."""

    def __init__(
        self,
        on_drop: Callable[[str, str, int], None] = lambda stage, reason, count: None,
        on_record: Callable[[], None] = lambda: None,
        on_detect_locally: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_drop` is told of drops, the others of each frame that has their outcome."""
        self.captured = 0
        self.detected = 0
        self.detected_locally = 0  # by the camera itself, without a detector
        self.recorded = 0  # without a detector
        self.in_flight = 0
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._on_drop, self._on_record, self._on_detect_locally = on_drop, on_record, on_detect_locally

    def capture(self) -> None:
        """A frame entered this process."""
        self.captured += 1
        self.in_flight += 1

    def detect(self) -> None:
        """A frame in flight was acknowledged."""
        self.in_flight -= 1
        self.detected += 1

    def detect_locally(self) -> None:
        """A frame in flight was detected on the camera, and is sent to no detector."""
        self.in_flight -= 1
        self.detected_locally += 1
        self._on_detect_locally()

    def record(self) -> None:
        """A frame in flight was recorded, and is sent to no detector."""
        self.in_flight -= 1
        self.recorded += 1
        self._on_record()

    def drop(self, stage: str, reason: str, count: int = 1) -> None:
        """Frames in flight were lost at `stage`, for a `reason` of DROPS."""
        assert (stage, reason) in DROPS
        if count:
            self.in_flight -= count
            self.dropped[stage, reason] += count
            self._on_drop(stage, reason, count)

    def reject(self, reason: RejectReason) -> None:
        """The detector answered a frame in flight without detections."""
        self.drop("network" if reason == "stale" else "detector", reason)

    def miss(self, reason: str, count: int = 1) -> None:
        """Frames were captured but lost before this process saw them."""
        self.captured += count
        self.in_flight += count
        self.drop("grab", reason, count)

    @property
    def dropped_total(self) -> int:
        return self.dropped.total()

    @property
    def kept(self) -> int:
        """Frames of which something came."""
        return self.detected + self.detected_locally + self.recorded

    @property
    def account(self) -> dict[str, int]:
        """All counts by name; without what only some cameras do, where it was not done."""
        optional = {"detected_locally": self.detected_locally, "recorded": self.recorded}
        return {
            "captured": self.captured,
            "detected": self.detected,
            **{name: count for name, count in optional.items() if count},
            "dropped": self.dropped_total,
        }

    @property
    def done(self) -> int:
        """Frames with an outcome: the number, from 0, of the oldest in flight."""
        return self.kept + self.dropped_total
