"""A picture on its way from a source to the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and the moment it was captured."""

    image: NDArray[np.uint8]  # (H, W, 3), BGR as OpenCV delivers it
    captured_ns: int  # camera's monotonic clock (time.monotonic_ns), which child processes share

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])
