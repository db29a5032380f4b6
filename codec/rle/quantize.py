"""Linear min-max quantization with 2 to 8 bits per coefficient (paper, Sec. V)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptPacket, NonFiniteTensor
from codec.layout import FloatArray
from codec.rle import kernels
from codec.rle.kernels import Levels

MIN_BITS, MAX_BITS = 2, 8

_GREATEST_FINITE_KEY = 0x7F7FFFFF


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Least and greatest coefficient of one tensor: finite float32 values, held exactly as floats."""

    minimum: float
    maximum: float

    WIRE: ClassVar = struct.Struct(">ff")

    @classmethod
    def of(cls, coefficients: FloatArray, name: str) -> Self:
        """Range of a contiguous float32 array, one axis; -0.0 is less than 0.0.

        Raises NonFiniteTensor of `name` if a coefficient is NaN or infinite.
        """
        least, greatest = kernels.order_range(coefficients.view(np.int32))
        if least < ~_GREATEST_FINITE_KEY or greatest > _GREATEST_FINITE_KEY:
            raise NonFiniteTensor(name)
        return cls(_float_of_key(least), _float_of_key(greatest))

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Range at the start of a section; raises CorruptPacket if no tensor has it."""
        minimum, maximum = cls.WIRE.unpack_from(data)
        # False for NaN too
        if not float("-inf") < minimum <= maximum < float("inf"):
            raise CorruptPacket(f"a tensor's range is {minimum} to {maximum}")
        return cls(minimum, maximum)

    def pack(self) -> bytes:
        """Minimum and maximum as 4-byte floats."""
        return self.WIRE.pack(self.minimum, self.maximum)

    def scale(self, bits: int) -> float:
        """Levels per unit: 0 if all coefficients are equal.

        In float64, where the difference of two float32 values cannot overflow.
        """
        if self.minimum == self.maximum:
            return 0.0
        return ((1 << bits) - 1) / (self.maximum - self.minimum)

    def table(self, bits: int) -> FloatArray:
        """Coefficient of each of the 2**bits levels."""
        step = (self.maximum - self.minimum) / (2**bits - 1)
        values: FloatArray = (self.minimum + np.arange(2**bits) * step).astype(np.float32)
        return values

    def nearest_levels(self, values: FloatArray, bits: int) -> Levels:
        """Level in this range of each value, which may lie outside it."""
        levels: NDArray[np.float64] = np.floor(
            (values.astype(np.float64) - self.minimum) * self.scale(bits) + 0.5
        )
        return levels.clip(0, 2**bits - 1).astype(np.uint8)


def _float_of_key(key: int) -> float:
    pattern = key if key >= 0 else key ^ 0x7FFFFFFF
    (value,) = struct.unpack("=f", struct.pack("=i", pattern))
    return float(value)
