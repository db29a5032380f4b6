"""Whether pictures stand still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.sources.capture_messages import Frozen, Moving

# Static scenes may come bit by bit the same for a while, as their coders then send nothing.
FROZEN_PICTURES = 50
FROZEN_NS = 5 * 10**9


class Stillness:
    """Compares each picture with the one before."""

    def __init__(self) -> None:
        self.repeated = 0  # pictures so far that were the same as the one before
        self._last: NDArray[np.uint8] | None = None
        self._run = 1  # pictures in a row, up to the last one, that are the same
        self._since_ns = 0
        self._frozen = False

    def look(self, image: NDArray[np.uint8], captured_ns: int) -> Frozen | Moving | None:
        """What the next picture changes, if it does. The picture must not be written to again."""
        last, self._last = self._last, image
        # Most pictures differ in what the first comparison sees, which costs little.
        if last is not None and np.array_equal(last[::16], image[::16]) and np.array_equal(last, image):
            self.repeated += 1
            self._run += 1
            long_enough = self._run >= FROZEN_PICTURES and captured_ns - self._since_ns >= FROZEN_NS
            if long_enough and not self._frozen:
                self._frozen = True
                return Frozen(self._run)
            return None
        self._run, self._since_ns = 1, captured_ns
        was_frozen, self._frozen = self._frozen, False
        return Moving() if was_frozen else None
