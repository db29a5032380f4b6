"""Linear min-max quantization with 2 to 8 bits per coefficient (paper, Sec. V)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray
from codec.rle.kernels import Levels
from codec.value_range import ValueRange


def levels_per_unit(value_range: ValueRange, bits: int) -> float:
    """What a coefficient's distance from the minimum is multiplied by: 0 if all coefficients are equal.

    In float64, where the difference of two float32 values cannot overflow.
    """
    if value_range.minimum == value_range.maximum:
        return 0.0
    return ((1 << bits) - 1) / (value_range.maximum - value_range.minimum)


def level_values(value_range: ValueRange, bits: int) -> FloatArray:
    """Coefficient that each of the 2**bits levels stands for."""
    step = (value_range.maximum - value_range.minimum) / (2**bits - 1)
    values: FloatArray = (value_range.minimum + np.arange(2**bits) * step).astype(np.float32)
    return values


def nearest_levels(value_range: ValueRange, values: FloatArray, bits: int) -> Levels:
    """Level in a range of each value, which may lie outside it."""
    scale = levels_per_unit(value_range, bits)
    levels: NDArray[np.float64] = np.floor((values.astype(np.float64) - value_range.minimum) * scale + 0.5)
    return levels.clip(0, 2**bits - 1).astype(np.uint8)
