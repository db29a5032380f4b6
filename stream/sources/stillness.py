"""Whether pictures stand still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.sources.capture_messages import Frozen, Moving

# A scene without a movement may come bit by bit the same for a while, as a video coder then sends nothing.
FROZEN_PICTURES = 50
FROZEN_NS = 5 * 10**9

# A camera whose picture stands still may well code it anew, which differs by so many gray levels where the bit rate
# leaves room. Were it more, a quiet scene that is coded at a low rate would count as frozen.
CODING_NOISE = 3

_EVERY = 32  # rows that are compared first
_BAND = 16  # rows that are compared at once, for the processor's cache


class Stillness:
    """Compares pictures with those before."""

    def __init__(self) -> None:
        self.repeated = 0  # pictures so far that were bit by bit the same as the one before
        self._last: NDArray[np.uint8] | None = None
        self._first: NDArray[np.uint8] | None = None  # of the pictures in a row that look the same
        self._run = 0  # how many they are, up to the last one
        self._since_ns = 0
        self._frozen = False

    def look(self, image: NDArray[np.uint8], captured_ns: int) -> Frozen | Moving | None:
        """What the next picture changes, if it does. The picture must not be written to again."""
        last, self._last = self._last, image
        same = last is not None and _is_same(last, image)
        self.repeated += same
        if same or (self._first is not None and _is_near(self._first, image)):
            self._run += 1
            long_enough = self._run >= FROZEN_PICTURES and captured_ns - self._since_ns >= FROZEN_NS
            if long_enough and not self._frozen:
                self._frozen = True
                return Frozen(self._run)
            return None
        self._first, self._run, self._since_ns = image, 1, captured_ns
        was_frozen, self._frozen = self._frozen, False
        return Moving() if was_frozen else None


def _is_same(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    # Most pictures differ in what the first comparison sees, which costs little.
    return np.array_equal(image[::_EVERY], other[::_EVERY]) and np.array_equal(image, other)


def _is_near(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether no value differs by more than CODING_NOISE."""
    if image.shape != other.shape:
        return False
    rows = [slice(None, None, _EVERY), *(slice(top, top + _BAND) for top in range(0, len(image), _BAND))]
    return all(_largest_difference(image[some], other[some]) <= CODING_NOISE for some in rows)


def _largest_difference(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int((np.maximum(image, other) - np.minimum(image, other)).max())
