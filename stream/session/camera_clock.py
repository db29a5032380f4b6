"""A camera's clocks, seen by a detector that does not trust its own to agree. No clock: times are arguments."""

from __future__ import annotations

from stream.session.messages import Clock

STEP_NS = 500_000_000  # a time of day that moves so much against a steady clock between two reports was set
LATELY_NS = 30_000_000_000  # how long a difference of clocks counts, and at most twice as long


class CameraClock:
    """The camera's time of day, which follows what the camera says of it."""

    def __init__(self, clock: Clock) -> None:
        self._offset_ns = clock.unix_ns - clock.monotonic_ns

    def follow(self, clock: Clock) -> float | None:
        """Go by a newer pair of clocks: by how many seconds the time of day was set; None where it was not."""
        last_ns, self._offset_ns = self._offset_ns, clock.unix_ns - clock.monotonic_ns
        step_ns = self._offset_ns - last_ns
        return step_ns / 1e9 if abs(step_ns) > STEP_NS else None

    def unix_ns(self, captured_ns: int) -> int:
        """The camera's time of day at an instant of its monotonic clock."""
        return captured_ns + self._offset_ns


class FrameAges:
    """How old frames are, though the camera's clock and the detector's have nothing in common.

    The smallest difference between arrival and capture that was seen lately stands for a frame that took no time; so
    an age is at least zero, and leaves out what even the fastest frame took. What is seen lately bounds how far two
    clocks drift apart meanwhile, and how long one that was stopped for a while is misjudged.
    """

    def __init__(self) -> None:
        self._least_ns: int | None = None  # of the span that runs
        self._last_least_ns: int | None = None  # of the one before
        self._since_ns = 0

    def arrive(self, captured_ns: int, now_ns: int) -> None:
        """A packet came at `now_ns`; `captured_ns` is on the camera's clock."""
        difference_ns = now_ns - captured_ns
        if self._least_ns is None or now_ns - self._since_ns >= LATELY_NS:
            self._last_least_ns, self._least_ns, self._since_ns = self._least_ns, difference_ns, now_ns
        else:
            self._least_ns = min(self._least_ns, difference_ns)

    def age_s(self, captured_ns: int, now_ns: int) -> float:
        """Seconds since that frame, of which a packet has come, was captured."""
        known = [least for least in (self._least_ns, self._last_least_ns) if least is not None]
        return max(0.0, (now_ns - captured_ns - min(known)) / 1e9)
