"""Frames a second, as a token allows them. No clock: times are arguments, in ns of any steady clock."""

from __future__ import annotations

BURST_NS = 500_000_000  # what a link or a busy camera gathers may come at once
LONGEST_NS = 10**18  # between two frames: 30 years, as a rate may be as near to 0 as a peer likes


class FramePace:
    """Tells how long a stream's next frame has to wait, so that it has no more than its frames a second.

    A camera paces itself so. To a detector that is a stream's, and not a connection's: a camera that connects anew
    gains nothing. There a packet waits and is not refused, so that the window fills of a camera that does not know its
    rate, and it drops what is too much before it is encoded.
    """

    def __init__(self, frames_per_s: float | None = None) -> None:
        self._due_ns: int | None = None  # when the next one would come of a camera that keeps to its rate
        self.limit(frames_per_s)

    def limit(self, frames_per_s: float | None) -> None:
        """The rate from now on, that of the token of the camera; None: any."""
        self._interval_ns = round(min(1e9 / frames_per_s, LONGEST_NS)) if frames_per_s else 0

    def wait_ns(self, now_ns: int) -> int:
        """How long a frame would have to wait that were taken now."""
        return 0 if self._due_ns is None else max(0, self._due_ns - now_ns)

    def take(self, now_ns: int) -> int:
        """Count a frame that is to be worked on; ns that it has to wait before."""
        due_ns = now_ns if self._due_ns is None else max(self._due_ns, now_ns - BURST_NS)
        self._due_ns = due_ns + self._interval_ns
        return max(0, due_ns - now_ns)
