"""The tensors that cross the split: their names, order and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One float32 tensor that crosses the split, without the batch axis: usually (C, H, W)."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return prod(self.shape)

    @property
    def raw_bytes(self) -> int:
        """Size as the 4-byte floats that the paper counts from (Tables I and II)."""
        return 4 * self.size


Layout: TypeAlias = tuple[TensorSpec, ...]


def raw_bytes(layout: Layout) -> int:
    """Size in bytes of all tensors of a layout as float32."""
    return sum(tensor.raw_bytes for tensor in layout)
