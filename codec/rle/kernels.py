"""The loops over coefficients, compiled at import and cached on disk.

They take contiguous arrays, hold no lock, and check nothing that their callers know. Fast math stays off: both ends
must compute the same levels, bit for bit.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from numba import float32, float64, int64, uint8, uint16, void
from numba.types import Array, UniTuple
from numpy.typing import NDArray

from codec.jit import kernel
from codec.layout import FloatArray

Levels: TypeAlias = NDArray[np.uint8]  # 0 to 2**bits - 1
Bytes: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint16]
Element = TypeVar("Element", np.uint8, np.float32)

CHUNK = 4096  # levels and codewords of a chunk stay in the first-level cache


def _read(dtype: object) -> Array:
    return Array(dtype, 1, "C", readonly=True)


def _write(dtype: object) -> Array:
    return Array(dtype, 1, "C")


@kernel(void(_read(float32), float64, float64, _write(uint8)))
def quantize(coefficients: FloatArray, minimum: float, scale: float, levels: Levels) -> None:
    """Level of each coefficient: floor((x - minimum) * scale + 0.5), never negative."""
    for i in range(coefficients.size):
        levels[i] = np.uint8(np.int32((np.float64(coefficients[i]) - minimum) * scale + 0.5))


@kernel(void(_read(uint8), _read(float32), _write(float32)))
def dequantize(levels: Levels, table: FloatArray, coefficients: FloatArray) -> None:
    """Coefficient of each level, from a table of 2**bits."""
    for i in range(levels.size):
        coefficients[i] = table[levels[i]]


@kernel(void(_read(uint8), _read(uint8), _read(uint8), int64, _write(uint8)))
def subtract_reference(
    levels: Levels, reference: Levels, prediction: Levels, bits: int, residual: Levels
) -> None:
    """Level minus predicted level, modulo 2**bits."""
    mask = (1 << bits) - 1
    for i in range(levels.size):
        residual[i] = (np.int64(levels[i]) - np.int64(prediction[reference[i]])) & mask


@kernel(void(_read(uint8), _write(uint8), _read(uint8), int64))
def add_reference(residual: Levels, reference: Levels, prediction: Levels, bits: int) -> None:
    """Turn the reference's levels into this frame's, in place."""
    mask = (1 << bits) - 1
    for i in range(residual.size):
        reference[i] = (np.int64(residual[i]) + np.int64(prediction[reference[i]])) & mask


@kernel(UniTuple(int64, 2)(_read(uint8), int64, int64, _write(uint16), int64))
def _append_codewords(
    levels: Levels, bits: int, run: np.int64, words: Words, used: np.int64
) -> tuple[np.int64, np.int64]:
    """Append the codewords of a chunk; return the zeros that end it and the number of codewords.

    Without branches, since whether a level is zero is what a processor cannot foresee. A run's codeword is
    written again as the run grows, so the last codeword of a chunk may still change in the next.
    """
    one = np.uint64(1)
    flag = one << np.uint64(bits)
    mask = flag - one
    zeros = np.uint64(run)
    last = np.uint64(used) - one
    for i in range(levels.size):
        level = np.uint64(levels[i])
        if_zero = np.uint64(0) - np.uint64(level == 0)  # all bits set, or none
        zeros = (zeros + one) & if_zero
        length = (zeros - one) & mask
        last += (one & ~if_zero) | np.uint64(length == 0)
        words[last] = level | ((flag | length) & if_zero)
    return np.int64(zeros), np.int64(last + one)


@kernel(void(_read(uint16), int64, int64, _write(uint8), int64))
def _pack(words: Words, groups: np.int64, width: int, out: Bytes, start: np.int64) -> None:
    """Write groups of eight codewords, most significant bit first; each fills `width` bytes."""
    for group in range(groups):
        packed = np.uint64(0)
        for k in range(8):
            packed = (packed << np.uint64(width)) | np.uint64(words[8 * group + k])
        first = start + group * width
        if width == 9:
            # 72 bits: the first byte has left the 64-bit word at its upper end
            out[first] = words[8 * group] >> 1
        for k in range(min(width, 8)):
            out[first + width - 1 - k] = packed & np.uint64(255)
            packed >>= np.uint64(8)


@kernel(UniTuple(int64, 3)(_read(uint8), int64, int64, _write(uint16), int64, _write(uint8), int64))
def _code_chunk(  # noqa: PLR0917 - a kernel's state travels as numbers
    levels: Levels, bits: int, run: np.int64, words: Words, used: np.int64, out: Bytes, written: np.int64
) -> tuple[np.int64, np.int64, np.int64]:
    """Code a chunk and write all whole groups of eight codewords but the last codeword."""
    run, used = _append_codewords(levels, bits, run, words, used)
    groups = (used - 1) // 8
    _pack(words, groups, bits + 1, out, written)
    rest = used - 8 * groups
    for i in range(rest):
        words[i] = words[8 * groups + i]
    return run, rest, written + groups * (bits + 1)


@kernel(int64(_write(uint16), int64, int64, _write(uint8), int64))
def _finish(words: Words, used: np.int64, bits: int, out: Bytes, written: np.int64) -> np.int64:
    """Write the last one to eight codewords, padded with zero bits; return the end."""
    words[used:8] = 0
    _pack(words, np.int64(1), bits + 1, out, written)
    return written + (used * (bits + 1) + 7) // 8


def workspace() -> tuple[Levels, Words]:
    """What `encode` and `encode_levels` work in: levels and codewords of a chunk."""
    return np.zeros(CHUNK, np.uint8), np.zeros(CHUNK + 8, np.uint16)


@kernel(int64(_read(float32), float64, float64, int64, _write(uint8), _write(uint8), _write(uint16)))
def encode(  # noqa: PLR0917 - a kernel's buffers are its caller's
    coefficients: FloatArray,
    minimum: float,
    scale: float,
    bits: int,
    out: Bytes,
    levels: Levels,
    words: Words,
) -> int:
    """Quantize and code in one pass (paper, Sec. VI); return the number of bytes.

    `out` holds bits + 1 bits per coefficient and bits + 1 bytes more, for the last group. `levels` and `words` are
    those of `workspace`.
    """
    run, used, written = np.int64(0), np.int64(0), np.int64(0)
    for start in range(0, coefficients.size, CHUNK):
        chunk = coefficients[start : start + CHUNK]
        quantize(chunk, minimum, scale, levels)
        run, used, written = _code_chunk(levels[: chunk.size], bits, run, words, used, out, written)
    return int(_finish(words, used, bits, out, written))


@kernel(int64(_read(uint8), int64, _write(uint8), _write(uint16)))
def encode_levels(levels: Levels, bits: int, out: Bytes, words: Words) -> int:
    """Code levels or residuals at hand; otherwise the same as `encode`."""
    run, used, written = np.int64(0), np.int64(0), np.int64(0)
    for start in range(0, levels.size, CHUNK):
        chunk = levels[start : start + CHUNK]
        run, used, written = _code_chunk(chunk, bits, run, words, used, out, written)
    return int(_finish(words, used, bits, out, written))


def _decode(payload: Bytes, bits: int, values: NDArray[Element], out: NDArray[Element]) -> int:
    """Read codewords until `out` is full; return their number, or -1 if they do not fill it exactly.

    `values` has the output of each of the 2**(bits + 1) codewords: for a run, of level 0.
    """
    one = np.uint64(1)
    width = np.uint64(bits + 1)
    length_mask = (one << np.uint64(bits)) - one
    word_mask = (one << width) - one
    # Zeros are everywhere before the first codeword is read, so a run only moves the position.
    out[:] = values[0]
    size = np.uint64(out.size)
    position, read = np.uint64(0), 0
    for start in range(0, payload.size, bits + 1):
        available = min(bits + 1, payload.size - start)
        packed = np.uint64(0)
        for k in range(available):
            packed = (packed << np.uint64(8)) | np.uint64(payload[start + k])
        packed <<= np.uint64(8 * (bits + 1 - available))
        # 72 bits at most: the first byte has then left the 64-bit word at its upper end.
        lost = np.uint64(payload[start]) << one if bits == 8 else np.uint64(0)
        shift = np.uint64(7) * width
        for _ in range(8 * available // (bits + 1)):
            word = (packed >> shift) & word_mask | lost
            shift -= width
            lost = np.uint64(0)
            if word == 0:
                # No encoder writes a lone zero level; a padding read as one would hide a short section.
                return -1
            out[position] = values[word]
            position += one + (word & length_mask) * (word >> np.uint64(bits))
            read += 1
            if position >= size:
                return read if position == size else -1
    return -1


decode_coefficients = kernel(int64(_read(uint8), int64, _read(float32), _write(float32)))(_decode)
decode_levels = kernel(int64(_read(uint8), int64, _read(uint8), _write(uint8)))(_decode)
