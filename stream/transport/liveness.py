"""Whether a peer lives, judged by the bytes that come from it and those that it takes."""

from __future__ import annotations

LOOK_S = 0.5  # between two looks at a connection
PING_S = 1.0  # a peer that has nothing else to say is heard this often
STOOD_STILL_S = 1.5  # a look that comes later than this after the one before: this process itself was stopped


class Idle:
    """How long a count has stood still, for one that looks at it every LOOK_S. Times are of any steady clock.

    A process that was itself stopped or suspended knows nothing of that time: it counts anew.
    """

    def __init__(self, count: int, now_s: float) -> None:
        self._count, self._since_s, self._looked_s = count, now_s, now_s

    def look(self, count: int, now_s: float) -> float:
        """Seconds since `count` changed."""
        if count != self._count or now_s - self._looked_s > STOOD_STILL_S:
            self._since_s = now_s
        self._count, self._looked_s = count, now_s
        return now_s - self._since_s
