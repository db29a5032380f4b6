"""The paper's zero-run code: codewords of bits + 1 bits (Sec. VI).

A codeword is 0 and then a level, or 1 and then the length of a run of zero levels, minus 1.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptPacket
from codec.layout import FloatArray
from codec.rle import kernels
from codec.rle.codewords import codeword_bytes
from codec.rle.kernels import Levels

Element = TypeVar("Element", np.uint8, np.float32)


def decode_coefficients(payload: memoryview, bits: int, table: FloatArray, size: int) -> FloatArray:
    """Read `size` coefficients in one pass, each from `table`, the values of the 2**bits levels.

    Raises CorruptPacket unless the codewords, and zero bits up to the next byte, fill the payload.
    """
    coefficients = np.empty(size, np.float32)
    read = kernels.decode_coefficients(_bytes(payload), bits, _of_codewords(table), coefficients)
    _check_end(payload, bits, read)
    return coefficients


def decode_levels(payload: memoryview, bits: int, size: int) -> Levels:
    """Read `size` levels, 0 to 2**bits - 1. Raises CorruptPacket like decode_coefficients."""
    levels = np.empty(size, np.uint8)
    identity = np.arange(2**bits, dtype=np.uint8)
    read = kernels.decode_levels(_bytes(payload), bits, _of_codewords(identity), levels)
    _check_end(payload, bits, read)
    return levels


def _bytes(payload: memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(payload, np.uint8)


def _of_codewords(table: NDArray[Element]) -> NDArray[Element]:
    return np.concatenate((table, np.full_like(table, table[0])))


def _check_end(payload: memoryview, bits: int, codewords: int) -> None:
    if codewords < 0:
        raise CorruptPacket("codewords do not add up to the tensor's size")
    if len(payload) != codeword_bytes(codewords, bits):
        raise CorruptPacket("bytes follow the last codeword")
    padding_bits = 8 * len(payload) - codewords * (bits + 1)
    if payload[-1] & ((1 << padding_bits) - 1):
        raise CorruptPacket("the padding after the last codeword is not zero")
