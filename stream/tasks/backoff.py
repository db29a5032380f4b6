"""How long to wait before trying again: at once after a first loss, then by what the last failure says of the peer."""

from __future__ import annotations

from enum import Enum
from random import Random


class Failure(Enum):
    """What a failed attempt says of the peer."""

    NOT_READY = "not ready"  # something answered: not yet, going away, or no one listens at that port
    UNREACHABLE = "unreachable"  # nothing answered
    REFUSED = "refused"  # it is there and does not want us, now
    DENIED = "denied"  # wrong credentials, which do not heal by themselves


NOT_READY_S = 0.5, 1.0  # cheap for a peer that is there: it never grows
UNREACHABLE_S = 0.5, 2.0  # ceiling of the first delay, and of all within LONG_OUTAGE_S
UNREACHABLE_LONG_S = 5.0  # ceiling of a delay later on
LONG_OUTAGE_S = 300.0
REFUSED_S = 1.0, 15.0  # whoever holds what we want may let go of it
DENIED_S = 4.0, 60.0  # cameras lock an account after a few wrong passwords
AT_ONCE_EVERY_S = 5.0  # what works for a moment and fails again is not tried without a wait each time


class Backoff:
    """Delays between attempts to reach one peer. Takes the time as an argument, in seconds of any one clock."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._attempt = 0
        self._lost = False  # it worked, and has not failed since
        self._at_once_s: float | None = None  # when a loss was last retried at once
        self._failing_since_s = 0.0
        self._start_anew()

    @property
    def attempt(self) -> int:
        """Delays handed out since the last `reset`."""
        return self._attempt

    def reset(self) -> None:
        """Say that it works: a failure from now on is a first loss."""
        self._attempt, self._lost = 0, True
        self._start_anew()

    def next_delay_s(self, failure: Failure, now_s: float, after_s: float | None = None) -> float:
        """Seconds to wait before the next attempt, after one that failed now.

        `after_s` is what the peer itself asks for; it may not ask to be tried without a pause. The loss of what worked
        is retried at once, but after a refusal or for wrong credentials, and not twice within AT_ONCE_EVERY_S.
        """
        first_loss, self._lost = self._lost, False
        if self._attempt == 0:
            self._failing_since_s = now_s
        self._attempt += 1
        if failure is Failure.DENIED:
            return self._growing_delay_s(failure, *DENIED_S)
        if after_s is not None:
            return max(after_s, NOT_READY_S[0])
        if failure is Failure.REFUSED:
            return self._growing_delay_s(failure, *REFUSED_S)
        if first_loss and (self._at_once_s is None or now_s - self._at_once_s >= AT_ONCE_EVERY_S):
            self._at_once_s = now_s
            return 0.0
        if failure is Failure.NOT_READY:
            return self._random.uniform(*NOT_READY_S)
        return self._unreachable_delay_s(now_s)

    def _start_anew(self) -> None:
        self._unreachable_s = UNREACHABLE_S[0]  # ceilings of the next delays
        self._ceilings_s: dict[Failure, float] = {}

    def _unreachable_delay_s(self, now_s: float) -> float:
        # Full jitter best keeps many cameras from returning together.
        delay_s = self._random.uniform(0, self._unreachable_s)
        is_long = now_s - self._failing_since_s >= LONG_OUTAGE_S
        self._unreachable_s = (
            UNREACHABLE_LONG_S if is_long else min(2 * self._unreachable_s, UNREACHABLE_S[1])
        )
        return delay_s

    def _growing_delay_s(self, failure: Failure, first_s: float, most_s: float) -> float:
        ceiling_s = self._ceilings_s.get(failure, first_s)
        self._ceilings_s[failure] = min(2 * ceiling_s, most_s)
        return self._random.uniform(ceiling_s / 2, ceiling_s)
