"""The adaptive range coder of the feature codec (docs/bitstream.md, "Range coder"): bits, and symbols of alphabets.

Decoding is integer arithmetic throughout, so every machine reads the same numbers. A coder's state is three words:
low, size and position of an encoder, or code, size and position of a decoder. Kernels hold it in local variables.
"""

# ruff: noqa: PLR0917 - a coder's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import int64, uint8, uint64, void
from numba.types import Array
from numpy.typing import NDArray

from codec.feature.alphabets import LEAST_SHARE, SYMBOLS
from codec.jit import Bytes, Int, inlined, kernel

Probabilities: TypeAlias = NDArray[
    np.uint16
]  # (N, 2): two estimates of P(0) of each binary context, in 1/32768
Distributions: TypeAlias = NDArray[np.int16]  # (N, 16): share of smaller symbols of each alphabet, in 1/32768
Met: TypeAlias = NDArray[np.int16]  # (N,): how many symbols each alphabet has met, up to SETTLED
Coder: TypeAlias = NDArray[np.uint64]  # (3,): a coder's state between kernels
Bit: TypeAlias = bool | np.bool_
Word: TypeAlias = np.uint64
Writing: TypeAlias = tuple[Word, Word, np.int64]  # low, size and position
Reading: TypeAlias = tuple[Bit, Word, Word, np.int64]  # a bit, code, size and position

MAX_PREFIX = 14  # of the Exp-Golomb code of what no symbol stands for

HALF_SETTLED, SETTLED = 32, 128
"""After so many symbols an alphabet learns half as fast from each, and half as fast again.

Against an alphabet that goes on as it began, keyframes are 1.3 to 1.7 % smaller, and differences of busy clips about as
much. Where the start was not measured, learning slowly from the first symbol on would give all of that back.
"""

_TARGETS = np.array(
    [
        [i * LEAST_SHARE + (32768 - SYMBOLS * LEAST_SHARE if i > symbol else 0) for i in range(SYMBOLS)]
        for symbol in range(SYMBOLS)
    ],
    np.int16,
)
"""What the shares of smaller symbols tend to while one symbol is met."""


@inlined
def _adapt(probabilities: Probabilities, context: Int, bit: Bit) -> None:
    # Without branches, since which bit comes is what a processor cannot foresee.
    row = np.uint64(context)
    target = np.int32(32768) & (np.int32(bit) - np.int32(1))
    fast = np.int32(probabilities[row, 0])
    slow = np.int32(probabilities[row, 1])
    probabilities[row, 0] = fast + ((target - fast) >> np.int32(5))
    probabilities[row, 1] = slow + ((target - slow) >> np.int32(7))


@inlined
def _zero_share(probabilities: Probabilities, context: Int) -> Word:
    """P(0) in 1/32768."""
    row = np.uint64(context)
    share = (np.int32(probabilities[row, 0]) + np.int32(probabilities[row, 1])) >> 1
    return np.uint64(min(max(share, np.int32(32)), np.int32(32736)))


@inlined
def _flush_word(out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
    """Four bytes of low that are settled."""
    if position + 4 <= out.size:
        out[position] = low >> np.uint64(56)
        out[position + 1] = (low >> np.uint64(48)) & np.uint64(255)
        out[position + 2] = (low >> np.uint64(40)) & np.uint64(255)
        out[position + 3] = (low >> np.uint64(32)) & np.uint64(255)
    return low << np.uint64(32), size << np.uint64(32), position + 4


@inlined
def _carry(out: Bytes, position: np.int64) -> None:
    i = min(position, np.int64(out.size)) - 1
    while i >= 0 and out[i] == 255:
        out[i] = 0
        i -= 1
    if i >= 0:
        out[i] += 1


@inlined
def encode_bit(
    bit: Bit,
    context: Int,
    probabilities: Probabilities,
    out: Bytes,
    low: Word,
    size: Word,
    position: np.int64,
) -> Writing:
    below = (size >> np.uint64(15)) * _zero_share(probabilities, context)
    mask = np.uint64(0) - np.uint64(bit)  # all bits set, or none
    moved = low + (below & mask)
    if moved < low:
        _carry(out, position)
    low = moved
    size = below + ((size - below - below) & mask)
    _adapt(probabilities, context, bit)
    if size < np.uint64(1 << 32):
        low, size, position = _flush_word(out, low, size, position)
    return low, size, position


@inlined
def _encode_raw_bit(bit: Bit, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
    """One bit that is as often 0 as 1."""
    size >>= np.uint64(1)
    moved = low + (size & (np.uint64(0) - np.uint64(bit)))
    if moved < low:
        _carry(out, position)
    low = moved
    if size < np.uint64(1 << 32):
        low, size, position = _flush_word(out, low, size, position)
    return low, size, position


@inlined
def _next_word(data: Bytes, position: np.int64) -> Word:
    word = np.uint64(0)
    if position + 4 <= data.size:
        word = (
            (np.uint64(data[position]) << np.uint64(24))
            | (np.uint64(data[position + 1]) << np.uint64(16))
            | (np.uint64(data[position + 2]) << np.uint64(8))
            | np.uint64(data[position + 3])
        )
    else:
        for i in range(4):
            word <<= np.uint64(8)
            if position + i < data.size:
                word |= np.uint64(data[position + i])
    return word


@inlined
def decode_bit(
    context: Int, probabilities: Probabilities, data: Bytes, code: Word, size: Word, position: np.int64
) -> Reading:
    below = (size >> np.uint64(15)) * _zero_share(probabilities, context)
    bit = code >= below
    mask = np.uint64(0) - np.uint64(bit)  # all bits set, or none
    code -= below & mask
    size = below + ((size - below - below) & mask)
    _adapt(probabilities, context, bit)
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return bit, code, size, position


@inlined
def _decode_raw_bit(data: Bytes, code: Word, size: Word, position: np.int64) -> Reading:
    size >>= np.uint64(1)
    bit = code >= size
    code -= size & (np.uint64(0) - np.uint64(bit))
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return bit, code, size, position


@inlined
def _adapt_alphabet(distributions: Distributions, met: Met, alphabet: Int, symbol: Int) -> None:
    # The range of a variable, here and below, keeps numba from unrolling a loop that vector instructions do better.
    row, target = distributions[np.uint64(alphabet)], _TARGETS[np.uint64(symbol)]
    count = met[np.uint64(alphabet)]
    if count < SETTLED:
        met[np.uint64(alphabet)] = count + np.int16(1)
        rate = np.int16(5) if count < HALF_SETTLED else np.int16(6)
        for i in range(min(row.size, SYMBOLS)):
            row[i] = np.int16(row[i] + np.int16(np.int16(target[i] - row[i]) >> rate))
        return
    # Written out for the rate that nearly all have: a shift by a constant, and no choice to wait for.
    for i in range(min(row.size, SYMBOLS)):
        # In 16 bits throughout, so that one vector instruction does it for all.
        change = np.int16(np.int16(target[i] - row[i]) >> np.int16(7))
        row[i] = np.int16(row[i] + change)


@inlined
def encode_symbol(
    symbol: Int,
    alphabet: Int,
    distributions: Distributions,
    met: Met,
    out: Bytes,
    low: Word,
    size: Word,
    position: np.int64,
) -> Writing:
    # Without a sign, an index is not asked whether it counts from the end.
    row, place = np.uint64(alphabet), np.uint64(symbol)
    first = distributions[row, place]
    end = distributions[row, place + np.uint64(1)] if symbol < SYMBOLS - 1 else np.int32(32768)
    unit = size >> np.uint64(15)
    moved = low + unit * np.uint64(first)
    if moved < low:
        _carry(out, position)
    low = moved
    size = unit * np.uint64(end - first)
    _adapt_alphabet(distributions, met, alphabet, symbol)
    if size < np.uint64(1 << 32):
        low, size, position = _flush_word(out, low, size, position)
    return low, size, position


@inlined
def decode_symbol(
    alphabet: Int,
    distributions: Distributions,
    met: Met,
    data: Bytes,
    code: Word,
    size: Word,
    position: np.int64,
) -> tuple[np.int64, Word, Word, np.int64]:
    row = np.uint64(alphabet)
    unit = size >> np.uint64(15)
    # The first three without branches, since which of them it is no processor foresees; then one after the other.
    symbol = (
        np.uint64(code >= unit * np.uint64(distributions[row, np.uint64(1)]))
        + np.uint64(code >= unit * np.uint64(distributions[row, np.uint64(2)]))
        + np.uint64(code >= unit * np.uint64(distributions[row, np.uint64(3)]))
    )
    if symbol == np.uint64(3):
        while symbol < np.uint64(SYMBOLS - 1) and code >= unit * np.uint64(
            distributions[row, symbol + np.uint64(1)]
        ):
            symbol += np.uint64(1)
    first = unit * np.uint64(distributions[row, symbol])
    end = unit * np.uint64(
        distributions[row, symbol + np.uint64(1)] if symbol < np.uint64(SYMBOLS - 1) else 32768
    )
    code -= first
    size = end - first
    _adapt_alphabet(distributions, met, alphabet, np.int64(symbol))
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return np.int64(symbol), code, size, position


@inlined
def encode_bits(value: Int, bits: Int, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
    """Up to 16 bits, each as often 0 as 1."""
    size >>= np.uint64(bits)
    moved = low + np.uint64(value) * size
    if moved < low:
        _carry(out, position)
    low = moved
    if size < np.uint64(1 << 32):
        low, size, position = _flush_word(out, low, size, position)
    return low, size, position


@inlined
def decode_bits(
    bits: Int, data: Bytes, code: Word, size: Word, position: np.int64
) -> tuple[np.int64, Word, Word, np.int64]:
    size >>= np.uint64(bits)
    value = min(code // size, (np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    code -= value * size
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return np.int64(value), code, size, position


@inlined
def encode_escape(rest: Int, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
    """What a magnitude is more than the largest symbol, from 0, in an Exp-Golomb code."""
    escaped = rest + 1
    width = 0
    while (escaped >> (width + 1)) != 0:
        width += 1
        low, size, position = _encode_raw_bit(True, out, low, size, position)
    low, size, position = _encode_raw_bit(False, out, low, size, position)
    return encode_bits(escaped - (1 << width), width, out, low, size, position)


@inlined
def decode_escape(
    data: Bytes, code: Word, size: Word, position: np.int64
) -> tuple[np.int64, Word, Word, np.int64]:
    """What a magnitude is more than the largest symbol, or -1 where that is longer than any encoder's."""
    width = 0
    bit, code, size, position = _decode_raw_bit(data, code, size, position)
    while bit:
        width += 1
        if width > MAX_PREFIX:
            return np.int64(-1), code, size, position
        bit, code, size, position = _decode_raw_bit(data, code, size, position)
    value, code, size, position = decode_bits(width, data, code, size, position)
    return value + (1 << width) - 1, code, size, position


def start_encoder() -> Coder:
    """State of an encoder before its first bit."""
    return np.array([0, 2**64 - 1, 0], np.uint64)


@kernel(int64(Array(uint8, 1, "C"), Array(uint64, 1, "C")))
def finish_encoder(out: Bytes, coder: Coder) -> np.int64:
    """Write what is left, as short as the decoder's zeros allow; returns the number of bytes, or -1."""
    low, size, position = coder[0], coder[1], np.int64(coder[2])
    if position + 8 > out.size:
        return np.int64(-1)
    for bits in range(63, -1, -1):
        mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
        value = (low + mask) & ~mask
        if value - low < size:
            break
    if value < low:
        _carry(out, position)
    end = position
    for i in range(8):
        byte = (value >> np.uint64(56 - 8 * i)) & np.uint64(255)
        out[position + i] = byte
        if byte:
            end = position + i + 1
    return end


@kernel(void(Array(uint8, 1, "C", readonly=True), Array(uint64, 1, "C")))
def start_decoder(data: Bytes, coder: Coder) -> None:
    """State of a decoder before its first bit."""
    coder[0] = (_next_word(data, np.int64(0)) << np.uint64(32)) | _next_word(data, np.int64(4))
    coder[1] = np.uint64(2**64 - 1)
    coder[2] = 8
