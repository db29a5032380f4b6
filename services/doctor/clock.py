"""How far this machine's clock is from the detector's, by the `Date` of its HTTP answers (RFC 9110, 6.6.1).

A date has whole seconds. An answer to a request sent at `s` and received at `r` that is dated `d` was made while the
detector's clock stood between `d` and `d + 1`: so that clock is ahead by more than `d - r` and less than `d + 1 - s`.
Each request that is sent so that it arrives where the next second may begin there halves what is left, down to a round
trip. Nothing has to be answered for it that a proxy would not pass on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from services.doctor.finding import Finding, doubtful, fine, unchecked, wrong

MOST_REQUESTS = 12
NARROW_S = 0.02
LATE_S = 0.5  # of which consumers notice: a detector tells steps of that size
ABSURD_S = 60.0  # beyond which certificates and recordings are wrong, too


@dataclass(frozen=True, slots=True)
class ClockBounds:
    """Between which the peer's clock is ahead of this machine's, in seconds."""

    low_s: float = -float("inf")
    high_s: float = float("inf")

    def narrowed(self, sent_s: float, received_s: float, date_s: int) -> ClockBounds:
        """After one more answer; times are this machine's, as Unix time."""
        return ClockBounds(max(self.low_s, date_s - received_s), min(self.high_s, date_s + 1 - sent_s))

    @property
    def width_s(self) -> float:
        """Negative where the answers contradict each other: a clock was set, or several detectors answer."""
        return self.high_s - self.low_s

    @property
    def middle_s(self) -> float:
        return (self.low_s + self.high_s) / 2

    def wait_s(self, now_s: float, way_s: float) -> float:
        """Until a request should be sent, which takes `way_s` to get there: 0 to 1 s."""
        return -(now_s + way_s + self.middle_s) % 1.0


async def compare_clocks(ask: Callable[[], Awaitable[str]]) -> tuple[ClockBounds, float]:
    """Bounds of the peer's clock, and the fastest round trip; `ask` makes a request and returns its answer's Date.

    Raises ValueError where that is no date, and what `ask` does.
    """
    bounds, fastest_s = ClockBounds(), float("inf")
    for _ in range(MOST_REQUESTS):
        sent_s, began_s = time.time(), time.monotonic()
        date = await ask()
        took_s = time.monotonic() - began_s
        bounds = bounds.narrowed(sent_s, sent_s + took_s, _unix_s(date))
        fastest_s = min(fastest_s, took_s)
        if bounds.width_s <= max(NARROW_S, 1.5 * fastest_s):  # also where the answers contradict each other
            break
        await asyncio.sleep(bounds.wait_s(time.time(), fastest_s / 2))
    return bounds, fastest_s


def _unix_s(date: str) -> int:
    """Unix time of a header. Raises ValueError."""
    try:
        return round(parsedate_to_datetime(date).timestamp())
    except (OverflowError, OSError) as error:  # of a year that this machine's C library does not know
        raise ValueError(str(error)) from None


def judge_clock(bounds: ClockBounds) -> Finding:
    """What is to be said of two clocks."""
    if bounds.width_s < 0:
        return unchecked(
            "the detector's answers contradict each other: a clock was set just now, or several answer"
        )
    offset_s, half_s = bounds.middle_s, bounds.width_s / 2
    facts = {"offset_s": round(offset_s, 4), "uncertainty_s": round(half_s, 4)}
    side = "ahead of" if offset_s > 0 else "behind"
    measured = f"the detector's clock is {abs(offset_s):.2f} s (+-{half_s:.2f}) {side} this machine's"
    if abs(offset_s) - half_s <= LATE_S:
        return fine(measured, **facts)
    advice = "let both follow a time server: timedatectl set-ntp true"
    if abs(offset_s) > ABSURD_S:
        return wrong(f"{measured}: the times of detections are wrong", advice, **facts)
    return doubtful(f"{measured}: the times of detections are a camera's", advice, **facts)
