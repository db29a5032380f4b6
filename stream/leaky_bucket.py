"""How often a peer may do something: on average, and at once. No clock: times are arguments, on a steady clock."""

from __future__ import annotations


class LeakyBucket:
    """One an interval on average, and a burst of them at once. What is refused does not count."""

    def __init__(self, interval_ns: int, burst: int) -> None:
        self._interval_ns, self._burst_ns = interval_ns, burst * interval_ns
        self._empty_ns = 0  # when it is empty again

    def take(self, now_ns: int) -> bool:
        """Whether what came at `now_ns` is within the bounds."""
        empty_ns = max(self._empty_ns, now_ns) + self._interval_ns
        if empty_ns > now_ns + self._burst_ns:
            return False
        self._empty_ns = empty_ns
        return True
