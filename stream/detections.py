"""The objects found in one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """N objects, the most confident first."""

    boxes: NDArray[np.float32]  # (N, 4): left, top, right, bottom in pixels of the original frame
    confidence: NDArray[np.float32]  # (N,), 0 to 1
    class_id: NDArray[np.int64]  # (N,), index into the model's class names

    def __len__(self) -> int:
        return len(self.boxes)
