"""Finds the least and the greatest coefficient of a tensor, and with them whether all are finite."""

from __future__ import annotations

import struct

import numpy as np
from numba import float32, int32
from numba.types import Array, UniTuple
from numpy.typing import NDArray

from codec.errors import NonFiniteTensor
from codec.jit import kernel
from codec.layout import FloatArray
from codec.value_range import ValueRange

_GREATEST_FINITE_KEY = 0x7F7FFFFF


@kernel(UniTuple(int32, 2)(Array(int32, 1, "C", readonly=True)))
def order_range(patterns: NDArray[np.int32]) -> tuple[int, int]:
    """Least and greatest coefficient of float32 bit patterns, as order keys.

    Integers that sort like the floats: this compiles to vector instructions, which a comparison that must
    mind NaN does not, and it shows NaN and infinities as keys beyond those of the finite numbers.
    """
    least = np.int32(2**31 - 1)
    greatest = np.int32(-(2**31))
    for i in range(patterns.size):
        key = patterns[i] ^ ((patterns[i] >> np.int32(31)) & np.int32(2**31 - 1))
        least = min(least, key)
        greatest = max(greatest, key)
    return int(least), int(greatest)


@kernel(int32(Array(float32, 3, "C", readonly=True), Array(float32, 3, "C")))
def copy_planes(planes: FloatArray, target: FloatArray) -> int:
    """Copy planes (C, h, w) to the upper left of others (C, H, W); returns the bits of the greatest magnitude.

    They sort like magnitudes, and those of what is not finite come last.
    """
    patterns = planes.view(np.int32)
    components, height, width = planes.shape
    greatest = np.int32(0)
    for k in range(components):
        for y in range(height):
            line, own, other = patterns[k, y], planes[k, y], target[k, y]
            for x in range(width):
                greatest = max(greatest, np.int32(line[x] & np.int32(2**31 - 1)))
                other[x] = own[x]
    return int(greatest)


def range_of(coefficients: FloatArray, name: str) -> ValueRange:
    """Range of a contiguous float32 array, one axis; -0.0 is less than 0.0.

    Raises NonFiniteTensor of `name` if a coefficient is NaN or infinite.
    """
    least, greatest = order_range(coefficients.view(np.int32))
    if least < ~_GREATEST_FINITE_KEY or greatest > _GREATEST_FINITE_KEY:
        raise NonFiniteTensor(name)
    return ValueRange(_float_of_key(least), _float_of_key(greatest))


def _float_of_key(key: int) -> float:
    pattern = key if key >= 0 else key ^ 0x7FFFFFFF
    (value,) = struct.unpack("=f", struct.pack("=i", pattern))
    return float(value)
