"""The machine's two clocks, read at the same moment."""

from __future__ import annotations

import time

from stream.session.camera_clock import STEP_NS
from stream.session.messages import Clock

READS = 5  # of which the tightest counts: a program may be interrupted between any two
TIGHT_NS = 5_000  # between two readings of one clock: no interrupt was there


def clock_now() -> Clock:
    """Both clocks at one moment, to the microsecond unless the machine interrupts every reading."""
    best_ns, best = None, None
    for _ in range(READS):
        before_ns, unix_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        took_ns = after_ns - before_ns
        if best_ns is None or took_ns < best_ns:
            best_ns, best = took_ns, (before_ns + took_ns // 2, unix_ns)
        if took_ns <= TIGHT_NS:
            break
    assert best is not None
    return Clock(monotonic_ns=best[0], unix_ns=best[1])


class ClockWatch:
    """Notices that the time of day was set."""

    def __init__(self) -> None:
        self._offset_ns = _offset_ns()

    def step_ns(self) -> int:
        """By how much it was since the last time that it was; 0: not at all, or by less than half a second."""
        step_ns = _offset_ns() - self._offset_ns
        if abs(step_ns) <= STEP_NS:
            return 0
        self._offset_ns += step_ns
        return step_ns


def _offset_ns() -> int:
    now = clock_now()
    return now.unix_ns - now.monotonic_ns
