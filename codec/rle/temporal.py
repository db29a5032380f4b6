"""Prediction of a frame's levels from the previous frame's.

Both ends predict from decoded levels, so an error of quantization is never carried on. The ranges of two
frames differ: a level of the reference stands for the level nearest to its value in the new range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.rle import kernels
from codec.rle.kernels import Levels
from codec.rle.quantize import level_values, nearest_levels
from codec.value_range import ValueRange


@dataclass(slots=True, eq=False)
class Reference:
    """One tensor of the last decoded frame."""

    range: ValueRange
    levels: Levels  # one axis

    def residual(self, levels: Levels, value_range: ValueRange, bits: int) -> Levels:
        """Difference of a frame's levels from the predicted ones, modulo 2**bits."""
        residual = np.empty_like(levels)
        prediction = self._prediction(value_range, bits)
        kernels.subtract_reference(levels, self.levels, prediction, bits, residual)
        return residual

    def add(self, residual: Levels, value_range: ValueRange, bits: int) -> Levels:
        """The levels that left this residual."""
        levels = self.levels.copy()
        kernels.add_reference(residual, levels, self._prediction(value_range, bits), bits)
        return levels

    def _prediction(self, value_range: ValueRange, bits: int) -> NDArray[np.uint8]:
        return nearest_levels(value_range, level_values(self.range, bits), bits)
