"""How long to wait before trying again."""

from __future__ import annotations

from random import Random


class Backoff:
    """Exponential delays with jitter, between a minimum and a maximum.

    The ceiling of the delay doubles with each attempt, from twice `minimum_s` up to `maximum_s`. The delay
    is drawn evenly from the upper part of [minimum_s, ceiling]: `jitter` 0 always waits the ceiling, 1
    draws from the whole range, which best keeps many cameras from returning together.

    Raises ValueError unless 0 < minimum_s <= maximum_s and 0 <= jitter <= 1.
    """

    def __init__(self, minimum_s: float, maximum_s: float, jitter: float, random: Random) -> None:
        if not 0 < minimum_s <= maximum_s:
            raise ValueError(f"backoff needs 0 < minimum <= maximum, got {minimum_s} s and {maximum_s} s")
        if not 0 <= jitter <= 1:
            raise ValueError(f"backoff needs a jitter between 0 and 1, got {jitter}")
        self._minimum_s, self._maximum_s = minimum_s, maximum_s
        self._jitter, self._random = jitter, random
        self._attempt, self._ceiling_s = 0, minimum_s

    @property
    def attempt(self) -> int:
        """Delays handed out since the last `reset`."""
        return self._attempt

    def next_delay_s(self) -> float:
        """Seconds to wait before the next attempt, in [minimum_s, maximum_s]."""
        self._attempt += 1
        # The ceiling is kept rather than computed from the attempt: 2.0**attempt overflows within a day.
        self._ceiling_s = min(2 * self._ceiling_s, self._maximum_s)
        spread_s = self._ceiling_s - self._minimum_s
        # Rounding may carry the difference past the minimum.
        return max(self._minimum_s, self._ceiling_s - spread_s * self._jitter * self._random.random())

    def reset(self) -> None:
        """Begin again at the minimum: call it once the thing retried has worked."""
        self._attempt, self._ceiling_s = 0, self._minimum_s
