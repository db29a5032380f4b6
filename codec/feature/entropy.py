"""The adaptive binary range coder of the feature codec and the contexts of its levels (docs/bitstream.md).

Decoding is integer arithmetic throughout, so every machine reads the same levels. Kernels that call one
another share this file because numba's cache only sees a change in the file that a kernel is written in.
"""

# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import boolean, int8, int16, int32, int64, uint8, uint16, uint64, void
from numba.types import Array, Tuple
from numpy.typing import NDArray

from codec.jit import inlined, kernel

Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int32]
Levels: TypeAlias = NDArray[np.int16]
Lasts: TypeAlias = NDArray[np.int8]
Signs: TypeAlias = NDArray[np.int8]
Changes: TypeAlias = NDArray[np.int8]
Vectors: TypeAlias = NDArray[np.int8]
Counts: TypeAlias = NDArray[np.int64]
Probabilities: TypeAlias = NDArray[np.uint16]
Distributions: TypeAlias = NDArray[np.int16]
Coder: TypeAlias = NDArray[np.uint64]
Room: TypeAlias = tuple[Ints, Ints, Signs, Ints, Ints]
Bit: TypeAlias = bool | np.bool_
Word: TypeAlias = np.uint64
Writing: TypeAlias = tuple[Word, Word, np.int64]  # low, size and position
Reading: TypeAlias = tuple[Bit, Word, Word, np.int64]  # a bit, code, size and position
Int: TypeAlias = int | np.int32 | np.int64  # the same to a kernel

CLASSES = 48  # contexts of a magnitude, a quarter of an octave each
SYMBOLS = 16  # of an alphabet: a level's position, or a magnitude, the last standing for all that are larger
MAX_PREFIX = 14  # of the Exp-Golomb code of larger magnitudes
MAX_LEVEL = 2**15 - 1
COEFFICIENT_WEIGHTS = 5
BLOCK_WEIGHTS = 6
PREVIOUS_LEVEL = 60  # weights of a block's magnitudes in the last frame, which no still picture tells
PREVIOUS_BLOCK = 60
MAX_CHANGE = 12  # of a block's step from the frame's, in quarters of an octave
MAX_VECTOR = 8  # of a block, in quarters of a sample, in each direction

# Where each set of binary contexts starts in the table of probabilities.
PLANE = 0  # is a component's plane all zero, by the class of its prior
BLOCK = PLANE + CLASSES  # does a block have levels
SIGN = BLOCK + CLASSES  # of the first frequency, by its neighbours' signs
STEP = SIGN + 5  # a block's step against the one expected; keyframes, then differences
SKIP = STEP + 2 * (3 + 1 + 2 * MAX_CHANGE)
MOTION = SKIP + 3  # does anything move, is a vector its left or its upper neighbour's, and trees of 32
CONTEXTS = MOTION + 3 + 64

# Where each set of alphabets starts in the table of distributions.
LAST = 0  # position of the last level of a block
FIRST = LAST + CLASSES  # magnitude at the first frequency
OTHER = FIRST + CLASSES  # at the others
END = OTHER + CLASSES  # magnitude less one of the last level
ALPHABETS = END + CLASSES

LEAST_SHARE = 8  # of a symbol, in 1/32768
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
    target = np.int32(32768) & (np.int32(bit) - np.int32(1))
    fast = np.int32(probabilities[context, 0])
    slow = np.int32(probabilities[context, 1])
    probabilities[context, 0] = fast + ((target - fast) >> np.int32(5))
    probabilities[context, 1] = slow + ((target - slow) >> np.int32(7))


@inlined
def _zero_share(probabilities: Probabilities, context: Int) -> Word:
    """P(0) in 1/32768."""
    share = (np.int32(probabilities[context, 0]) + np.int32(probabilities[context, 1])) >> 1
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
def _put(
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
def _put_raw(bit: Bit, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
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
def _take(
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
def _take_raw(data: Bytes, code: Word, size: Word, position: np.int64) -> Reading:
    size >>= np.uint64(1)
    bit = code >= size
    code -= size & (np.uint64(0) - np.uint64(bit))
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return bit, code, size, position


@inlined
def _adapt_alphabet(distributions: Distributions, alphabet: Int, symbol: Int) -> None:
    # The range of a variable, here and below, keeps numba from unrolling a loop that vector instructions do better.
    row, target = distributions[alphabet], _TARGETS[symbol]
    for i in range(row.size):
        # In 16 bits throughout, so that one vector instruction does it for all.
        change = np.int16(np.int16(target[i] - row[i]) >> np.int16(5))
        row[i] = np.int16(row[i] + change)


@inlined
def _put_symbol(
    symbol: Int,
    alphabet: Int,
    distributions: Distributions,
    out: Bytes,
    low: Word,
    size: Word,
    position: np.int64,
) -> Writing:
    first = distributions[alphabet, symbol]
    end = distributions[alphabet, symbol + 1] if symbol < SYMBOLS - 1 else np.int32(32768)
    unit = size >> np.uint64(15)
    moved = low + unit * np.uint64(first)
    if moved < low:
        _carry(out, position)
    low = moved
    size = unit * np.uint64(end - first)
    _adapt_alphabet(distributions, alphabet, symbol)
    if size < np.uint64(1 << 32):
        low, size, position = _flush_word(out, low, size, position)
    return low, size, position


@inlined
def _take_symbol(
    alphabet: Int,
    distributions: Distributions,
    data: Bytes,
    code: Word,
    size: Word,
    position: np.int64,
) -> tuple[np.int64, Word, Word, np.int64]:
    # One after the other, since most symbols are small: a processor foresees the rest while it checks.
    unit = size >> np.uint64(15)
    symbol = np.int64(0)
    first = np.uint64(0)
    end = unit * np.uint64(distributions[alphabet, 1])
    while code >= end and symbol < SYMBOLS - 1:
        symbol += 1
        first = end
        end = unit * np.uint64(distributions[alphabet, symbol + 1] if symbol < SYMBOLS - 1 else 32768)
    code -= first
    size = end - first
    _adapt_alphabet(distributions, alphabet, symbol)
    if size < np.uint64(1 << 32):
        code = (code << np.uint64(32)) | _next_word(data, position)
        size <<= np.uint64(32)
        position += 4
    return symbol, code, size, position


@inlined
def _put_bits(value: Int, bits: Int, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
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
def _take_bits(
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
def _class(expected: Int, step: Int) -> np.int32:
    """Context of a magnitude expected to be `expected`/256 units, when the step is 2**(step/16) units."""
    bounded = np.float32(min(max(np.int32(expected), np.int32(1)), np.int32((1 << 24) - 1)))
    log = (bounded.view(np.int32) >> np.int32(19)) - np.int32(2032)  # 16 log2, linear between powers of two
    found = (log - np.int32(16) - np.int32(step)) >> np.int32(2)
    return np.int32(min(max(found, np.int32(0)), np.int32(CLASSES - 1)))


@inlined
def _put_escaped(rest: Int, out: Bytes, low: Word, size: Word, position: np.int64) -> Writing:
    """What a magnitude is more than the largest symbol, from 0, in an Exp-Golomb code."""
    escaped = rest + 1
    width = 0
    while (escaped >> (width + 1)) != 0:
        width += 1
        low, size, position = _put_raw(True, out, low, size, position)
    low, size, position = _put_raw(False, out, low, size, position)
    return _put_bits(escaped - (1 << width), width, out, low, size, position)


@inlined
def _take_escaped(
    data: Bytes, code: Word, size: Word, position: np.int64
) -> tuple[np.int64, Word, Word, np.int64]:
    """What a magnitude is more than the largest symbol, or -1 where that is longer than any encoder's."""
    width = 0
    bit, code, size, position = _take_raw(data, code, size, position)
    while bit:
        width += 1
        if width > MAX_PREFIX:
            return np.int64(-1), code, size, position
        bit, code, size, position = _take_raw(data, code, size, position)
    value, code, size, position = _take_bits(width, data, code, size, position)
    return value + (1 << width) - 1, code, size, position


# Frequencies of a 4x4 block in zigzag order, as (horizontal, vertical).
ZIGZAG: tuple[tuple[int, int], ...] = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (3, 0), (2, 1))
ZIGZAG += ((1, 2), (0, 3), (1, 3), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3))


@inlined
def _sign_context(signs: Signs, b: int, stride: int) -> Int:
    return SIGN + 2 + np.int64(signs[b - 1] + signs[b - stride])


@inlined
def _expect_block(
    weights: Ints, prior: Int, block_sum: Ints, energy: Int, now: Int, before: Int, p: Int, stride: Int
) -> np.int32:
    """What the magnitudes of a block are expected to be in the mean, in 1/256."""
    return np.int32(
        (
            weights[0] * np.int64(prior)
            + weights[1] * np.int64(block_sum[now, p - 1] + block_sum[now, p - stride])
            + weights[2] * np.int64(block_sum[now, p - stride - 1] + block_sum[now, p - stride + 1])
            + weights[3] * np.int64(block_sum[before, p])
            + weights[4] * np.int64(block_sum[before, p + 1] + block_sum[before, p + stride])
            + weights[5] * np.int64(energy)
        )
        >> 4
    )


@inlined
def _classify_levels(
    classes: Ints,
    weights: Ints,
    prior: Ints,
    k: Int,
    magnitude: Ints,
    energy: Int,
    step: Int,
    now: Int,
    before: Int,
    p: Int,
    stride: Int,
) -> None:
    """Class of each of a block's 16 magnitudes, by its neighbours, the component before and the last frame."""
    outside = np.int32(energy) >> np.int32(4)
    for f in range(classes.size):
        classes[f] = _class(
            weights[0, f] * prior[k, f]
            + weights[1, f] * (magnitude[now, p - 1, f] + magnitude[now, p - stride, f])
            + weights[2, f] * (magnitude[now, p - stride - 1, f] + magnitude[now, p - stride + 1, f])
            + weights[3, f] * magnitude[before, p, f]
            + weights[4, f] * outside,
            step,
        )


@inlined
def _leave_zero(magnitude: Ints, block_sum: Ints, energy: Ints, k: Int, b: Int, now: Int, p: Int) -> None:
    energy[k, b] = 0
    block_sum[now, p] = 0
    for f in range(magnitude.shape[2]):
        magnitude[now, p, f] = 0


@inlined
def _remember_block(
    column: Ints, delta: Int, magnitude: Ints, block_sum: Ints, sums: Ints, k: Int, now: Int, p: Int
) -> np.int32:
    """Keep the magnitudes of a block's levels for its neighbours' contexts; returns their sum."""
    inside = np.int32(0)
    for f in range(column.size):
        scaled = min(np.int32(abs(column[f]) * np.int32(delta)), np.int32(65535))
        magnitude[now, p, f] = scaled
        sums[k, f] += scaled
        inside = np.int32(inside + scaled)
    inside = min(inside, np.int32(65535))
    block_sum[now, p] = inside
    return inside


_LEVELS = int16[:, :, ::1]
_LAST = Array(int8, 2, "C")
_TABLE = Array(int32, 2, "C")
_ROW = Array(int32, 1, "C")


_FLAGS = Array(uint8, 1, "C")
_OUT = Array(uint8, 1, "C")
_DATA = Array(uint8, 1, "C", readonly=True)
_CODER = Array(uint64, 1, "C")
_CONTEXTS = Array(uint16, 2, "C")
_COUNTS = Array(int64, 2, "C")
_SHARES = Array(int16, 2, "C")
_ROOM = Tuple((Array(int32, 3, "C"), _TABLE, Array(int8, 1, "C"), _ROW, _ROW))


def room_for(blocks: int, across: int) -> Room:
    """What `put_levels` and `take_levels` work in: magnitudes of two components, with a margin, and of one block."""
    padded = (across + 2) * (blocks // across + 2)
    magnitude, block_sum = np.zeros((2, padded, 16), np.int32), np.zeros((2, padded), np.int32)
    return magnitude, block_sum, np.zeros(padded, np.int8), np.zeros(16, np.int32), np.zeros(16, np.int32)


@kernel(
    int64(
        _LEVELS, _LAST, _ROW, _ROW, _FLAGS, int64, int64, _TABLE, _TABLE, _ROW, _TABLE, _CONTEXTS, _SHARES, _OUT,
        _CODER, _TABLE, _ROOM, _COUNTS, _COUNTS, boolean,
    )
)  # fmt: skip
def put_levels(
    levels: Levels,
    lasts: Lasts,
    steps: Ints,
    deltas: Ints,
    coded: Bytes,
    across: int,
    frame_step: int,
    prior: Ints,
    weights: Ints,
    block_weights: Ints,
    energy: Ints,
    probabilities: Probabilities,
    distributions: Distributions,
    out: Bytes,
    coder: Coder,
    sums: Ints,
    room: Room,
    bit_counts: Counts,
    symbol_counts: Counts,
    count: bool,
) -> int:
    """Append the levels (K, 16, B) of a frame's blocks; returns 0, or -1 where `out` is too small.

    `lasts` (K, B) is the position of each block's last level that is not zero, -1 if there is none. `energy` (K, B)
    has the last frame's magnitudes going in, this one's coming out. `sums` (K, 16) gets each coefficient's sum of
    magnitudes over the blocks. `room` is `room_for` these blocks. Writes nothing where no block has levels. With
    `count` the bits and symbols of each context are counted.
    """
    components, _, blocks = levels.shape
    down = blocks // across
    stride = across + 2
    magnitude, block_sum, signs, classes, column = room
    magnitude[:] = 0
    block_sum[:] = 0
    if not coded.any():
        energy[:] = 0
        return 0
    low, size, position = coder[0], coder[1], np.int64(coder[2])
    for k in range(components):
        now, before = k & 1, (k & 1) ^ 1
        prior_sum = np.int32(0)
        for f in range(16):
            prior_sum += prior[k, f]
            sums[k, f] = 0
        empty = True
        for b in range(blocks):
            if coded[b] and lasts[k, b] >= 0:
                empty = False
                break
        context = PLANE + _class(prior_sum << np.int32(4), frame_step)
        if count:
            bit_counts[context, np.int64(empty)] += 1
        low, size, position = _put(empty, context, probabilities, out, low, size, position)
        if empty:
            magnitude[now] = 0
            block_sum[now] = 0
            energy[k] = 0
            continue
        signs[:] = 0
        b = -1
        for y in range(down):
            p = (y + 1) * stride
            for _ in range(across):
                b += 1
                p += 1
                if not coded[b]:
                    _leave_zero(magnitude, block_sum, energy, k, b, now, p)
                    continue
                step = steps[b]
                expected = _expect_block(
                    block_weights, prior_sum, block_sum, energy[k, b], now, before, p, stride
                )
                context = _class(expected, step)
                last = np.int64(lasts[k, b])
                if count:
                    bit_counts[BLOCK + context, np.int64(last >= 0)] += 1
                low, size, position = _put(
                    last >= 0, BLOCK + context, probabilities, out, low, size, position
                )
                if last < 0:
                    _leave_zero(magnitude, block_sum, energy, k, b, now, p)
                    continue
                if count:
                    symbol_counts[LAST + context, last] += 1
                low, size, position = _put_symbol(
                    last, LAST + context, distributions, out, low, size, position
                )
                _classify_levels(
                    classes, weights, prior, k, magnitude, energy[k, b], step, now, before, p, stride
                )
                for f in range(column.size):
                    column[f] = levels[k, f, b]
                negatives = np.int64(0)
                signed = np.int64(0)
                kind = np.int64(FIRST)
                for f in range(last + 1):
                    level = column[f]
                    size_of = abs(level)
                    coded_size = size_of
                    if f == last:
                        kind = np.int64(END)
                        coded_size -= np.int32(1)
                    symbol = min(coded_size, np.int32(SYMBOLS - 1))
                    alphabet = kind + classes[f]
                    kind = np.int64(OTHER)
                    if count:
                        symbol_counts[alphabet, symbol] += 1
                    low, size, position = _put_symbol(
                        symbol, alphabet, distributions, out, low, size, position
                    )
                    if symbol == SYMBOLS - 1:
                        low, size, position = _put_escaped(
                            np.int64(coded_size - symbol), out, low, size, position
                        )
                    if f:
                        # Without branches, since a processor cannot foresee which levels are zero.
                        signed += np.int64(size_of != 0)
                        negatives = (negatives << np.int64(size_of != 0)) | np.int64(level < 0)
                    elif size_of:
                        sign = _sign_context(signs, p, stride)
                        if count:
                            bit_counts[sign, np.int64(level < 0)] += 1
                        low, size, position = _put(level < 0, sign, probabilities, out, low, size, position)
                        signs[p] = -1 if level < 0 else 1
                low, size, position = _put_bits(negatives, signed, out, low, size, position)
                inside = _remember_block(column, deltas[b], magnitude, block_sum, sums, k, now, p)
                energy[k, b] = inside
    coder[0], coder[1], coder[2] = low, size, position
    return 0 if position <= out.size else -1


@kernel(
    int64(
        _LEVELS, _LAST, _ROW, _ROW, _FLAGS, int64, int64, _TABLE, _TABLE, _ROW, _TABLE, _CONTEXTS, _SHARES, _DATA,
        _CODER, _TABLE, _ROOM,
    )
)  # fmt: skip
def take_levels(
    levels: Levels,
    lasts: Lasts,
    steps: Ints,
    deltas: Ints,
    coded: Bytes,
    across: int,
    frame_step: int,
    prior: Ints,
    weights: Ints,
    block_weights: Ints,
    energy: Ints,
    probabilities: Probabilities,
    distributions: Distributions,
    data: Bytes,
    coder: Coder,
    sums: Ints,
    room: Room,
) -> int:
    """Read what `put_levels` wrote; returns 0, or -1 where it holds what no encoder writes.

    `levels` is filled in all components but those that are empty, which `lasts` tells.
    """
    components, _, blocks = levels.shape
    down = blocks // across
    stride = across + 2
    magnitude, block_sum, signs, classes, column = room
    magnitude[:] = 0
    block_sum[:] = 0
    if not coded.any():
        energy[:] = 0
        lasts[:] = -1
        return 0
    code, size, position = coder[0], coder[1], np.int64(coder[2])
    for k in range(components):
        now, before = k & 1, (k & 1) ^ 1
        prior_sum = np.int32(0)
        for f in range(16):
            prior_sum += prior[k, f]
            sums[k, f] = 0
        context = PLANE + _class(prior_sum << np.int32(4), frame_step)
        empty, code, size, position = _take(context, probabilities, data, code, size, position)
        if empty:
            magnitude[now] = 0
            block_sum[now] = 0
            energy[k] = 0
            lasts[k] = -1
            continue
        levels[k] = 0
        if position > data.size + 8:
            return -1
        signs[:] = 0
        b = -1
        for y in range(down):
            p = (y + 1) * stride
            for _ in range(across):
                b += 1
                p += 1
                lasts[k, b] = -1
                if not coded[b]:
                    _leave_zero(magnitude, block_sum, energy, k, b, now, p)
                    continue
                step = steps[b]
                expected = _expect_block(
                    block_weights, prior_sum, block_sum, energy[k, b], now, before, p, stride
                )
                context = _class(expected, step)
                some, code, size, position = _take(BLOCK + context, probabilities, data, code, size, position)
                if not some:
                    _leave_zero(magnitude, block_sum, energy, k, b, now, p)
                    continue
                last, code, size, position = _take_symbol(
                    LAST + context, distributions, data, code, size, position
                )
                lasts[k, b] = last
                _classify_levels(
                    classes, weights, prior, k, magnitude, energy[k, b], step, now, before, p, stride
                )
                column[:] = 0
                signed = np.int64(0)
                kind = np.int64(FIRST)
                for f in range(last + 1):
                    if f == last:
                        kind = np.int64(END)
                    size_of, code, size, position = _take_symbol(
                        kind + classes[f], distributions, data, code, size, position
                    )
                    kind = np.int64(OTHER)
                    if size_of == SYMBOLS - 1:
                        more, code, size, position = _take_escaped(data, code, size, position)
                        if more < 0:
                            return -1
                        size_of += more
                    if f == last:
                        size_of += 1
                    if size_of > MAX_LEVEL:
                        return -1
                    column[f] = size_of
                    if f:
                        signed += np.int64(size_of != 0)
                    elif size_of:
                        sign = _sign_context(signs, p, stride)
                        negative, code, size, position = _take(
                            sign, probabilities, data, code, size, position
                        )
                        signs[p] = -1 if negative else 1
                        levels[k, 0, b] = -size_of if negative else size_of
                negatives, code, size, position = _take_bits(signed, data, code, size, position)
                for f in range(last, 0, -1):
                    level = np.int64(column[f])
                    negative_mask = -(negatives & np.int64(level != 0))
                    levels[k, f, b] = (level ^ negative_mask) - negative_mask
                    negatives >>= np.int64(level != 0)
                inside = _remember_block(column, deltas[b], magnitude, block_sum, sums, k, now, p)
                energy[k, b] = inside
    coder[0], coder[1], coder[2] = code, size, position
    return 0


def default_probabilities() -> NDArray[np.uint16]:
    """P(0) of each binary context, in 1/32768, where nothing was measured: levels with a geometric distribution."""
    shares = np.full(CONTEXTS, 0.5)
    zero = 1 / (1 + _class_means())
    shares[PLANE : PLANE + CLASSES] = 1 - zero**4
    shares[BLOCK : BLOCK + CLASSES] = zero**4
    return np.clip(np.round(shares * 32768), 32, 32736).astype(np.uint16)


def default_distributions() -> NDArray[np.uint16]:
    """Shares of smaller symbols (ALPHABETS, 16), in 1/32768, where nothing was measured."""
    magnitudes = (1 - 1 / (1 + _class_means()))[:, None] ** np.arange(SYMBOLS)
    counts = np.ones((ALPHABETS, SYMBOLS))
    counts[FIRST:] = np.tile(magnitudes, (3, 1))
    return cumulative_shares(counts)


def cumulative_shares(counts: NDArray[np.float64] | Counts) -> NDArray[np.uint16]:
    """Share of all smaller symbols, for each symbol of each row, in 1/32768: no symbol has less than LEAST_SHARE."""
    shares = (counts + 1e-9) / (counts + 1e-9).sum(1, keepdims=True)
    starts = np.cumsum(shares, 1) - shares
    bounds = np.floor(starts * (32768 - SYMBOLS * LEAST_SHARE)) + np.arange(SYMBOLS) * LEAST_SHARE
    rounded: NDArray[np.uint16] = bounds.astype(np.uint16)
    return rounded


def _class_means() -> NDArray[np.float64]:
    """Magnitude that each class stands for, in steps."""
    means: NDArray[np.float64] = 2.0 ** ((4 * np.arange(CLASSES) + 2 - 112) / 16)
    return means


def new_writer() -> Coder:
    """State of an encoder before its first bit."""
    return np.array([0, 2**64 - 1, 0], np.uint64)


@kernel(int64(Array(uint8, 1, "C"), Array(uint64, 1, "C")))
def finish(out: Bytes, coder: Coder) -> np.int64:
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
def start(data: Bytes, coder: Coder) -> None:
    """State of a decoder before its first bit."""
    coder[0] = (_next_word(data, np.int64(0)) << np.uint64(32)) | _next_word(data, np.int64(4))
    coder[1] = np.uint64(2**64 - 1)
    coder[2] = 8


_CHANGES = Array(int8, 1, "C")
_VECTORS = Array(int8, 2, "C")


@inlined
def _expected_change(changes: Changes, b: int, across: int) -> Int:
    """A block's change of step as far as its neighbours tell."""
    if b % across == 0:
        return np.int64(changes[b - across]) if b >= across else 0
    if b < across:
        return np.int64(changes[b - 1])
    return (np.int64(changes[b - 1]) + np.int64(changes[b - across]) + 1) >> 1


@kernel(
    int64(
        _CHANGES,
        _CHANGES,
        Array(uint8, 1, "C"),
        _VECTORS,
        int64,
        boolean,
        uint16[:, ::1],
        Array(uint8, 1, "C"),
        Array(uint64, 1, "C"),
    )
)
def put_blocks(
    changes: Changes,
    before: Changes,
    coded: Bytes,
    vectors: Vectors,
    across: int,
    keyframe: bool,
    probabilities: Probabilities,
    out: Bytes,
    coder: Coder,
) -> int:
    """Append what is said of each block: its vector, whether it has levels, its change of step from the frame's.

    In a keyframe all blocks have levels and none moves. `before` (B,) has the changes of the last frame, which stay
    for blocks without levels. Returns 0, or -1 where `out` is too small.
    """
    low, size, position = coder[0], coder[1], np.int64(coder[2])
    blocks = changes.size
    moving = False
    if not keyframe:
        for b in range(blocks):
            moving |= vectors[b, 0] != 0 or vectors[b, 1] != 0
        low, size, position = _put(moving, MOTION, probabilities, out, low, size, position)
    first = STEP + (0 if keyframe else 4 + 2 * MAX_CHANGE)
    odd = np.int64(0)
    for b in range(blocks):
        if moving:
            left = b - 1 if b % across else -1
            above = b - across
            left_y, left_x = (np.int64(vectors[left, 0]), np.int64(vectors[left, 1])) if left >= 0 else (0, 0)
            above_y, above_x = (
                (np.int64(vectors[above, 0]), np.int64(vectors[above, 1])) if above >= 0 else (0, 0)
            )
            y, x = np.int64(vectors[b, 0]), np.int64(vectors[b, 1])
            same = y == left_y and x == left_x
            low, size, position = _put(not same, MOTION + 1, probabilities, out, low, size, position)
            if not same and (left_y != above_y or left_x != above_x):
                same = y == above_y and x == above_x
                low, size, position = _put(not same, MOTION + 2, probabilities, out, low, size, position)
            if not same:
                for axis in range(2):
                    value = (y if axis == 0 else x) + MAX_VECTOR
                    node = np.int64(1)
                    for i in range(4, -1, -1):
                        bit = (value >> i) & 1
                        low, size, position = _put(
                            bit != 0, MOTION + 3 + 32 * axis + node, probabilities, out, low, size, position
                        )
                        node = 2 * node + bit
        if not keyframe:
            context = SKIP
            if b % across and coded[b - 1]:
                context += 1
            if b >= across and coded[b - across]:
                context += 1
            low, size, position = _put(coded[b] != 0, context, probabilities, out, low, size, position)
            if not coded[b]:
                changes[b] = before[b]
                continue
        expected = _expected_change(changes, b, across) if keyframe else np.int64(before[b])
        off = np.int64(changes[b]) - expected
        low, size, position = _put(
            off != 0, first + min(odd, np.int64(2)), probabilities, out, low, size, position
        )
        odd = abs(off)
        if off:
            low, size, position = _put(off < 0, first + 3, probabilities, out, low, size, position)
            for i in range(2 * MAX_CHANGE - 1):
                more = odd > i + 1
                low, size, position = _put(more, first + 4 + i, probabilities, out, low, size, position)
                if not more:
                    break
    coder[0], coder[1], coder[2] = low, size, position
    return 0 if position <= out.size else -1


@kernel(
    int64(
        _CHANGES,
        _CHANGES,
        Array(uint8, 1, "C"),
        _VECTORS,
        int64,
        boolean,
        uint16[:, ::1],
        Array(uint8, 1, "C", readonly=True),
        Array(uint64, 1, "C"),
    )
)
def take_blocks(
    changes: Changes,
    before: Changes,
    coded: Bytes,
    vectors: Vectors,
    across: int,
    keyframe: bool,
    probabilities: Probabilities,
    data: Bytes,
    coder: Coder,
) -> int:
    """Read what `put_blocks` wrote; returns 0, or -1 where it holds what no encoder writes."""
    code, size, position = coder[0], coder[1], np.int64(coder[2])
    blocks = changes.size
    moving: Bit = False
    if not keyframe:
        moving, code, size, position = _take(MOTION, probabilities, data, code, size, position)
    first = STEP + (0 if keyframe else 4 + 2 * MAX_CHANGE)
    odd = np.int64(0)
    for b in range(blocks):
        coded[b] = 1
        vectors[b, 0], vectors[b, 1] = 0, 0
        if moving:
            left = b - 1 if b % across else -1
            above = b - across
            left_y, left_x = (np.int64(vectors[left, 0]), np.int64(vectors[left, 1])) if left >= 0 else (0, 0)
            above_y, above_x = (
                (np.int64(vectors[above, 0]), np.int64(vectors[above, 1])) if above >= 0 else (0, 0)
            )
            y, x = left_y, left_x
            other, code, size, position = _take(MOTION + 1, probabilities, data, code, size, position)
            if other and (left_y != above_y or left_x != above_x):
                y, x = above_y, above_x
                other, code, size, position = _take(MOTION + 2, probabilities, data, code, size, position)
            if other:
                for axis in range(2):
                    node = np.int64(1)
                    for _ in range(5):
                        bit, code, size, position = _take(
                            MOTION + 3 + 32 * axis + node, probabilities, data, code, size, position
                        )
                        node = 2 * node + np.int64(bit)
                    value = node - 32 - MAX_VECTOR
                    if value > MAX_VECTOR:
                        return -1
                    if axis == 0:
                        y = value
                    else:
                        x = value
            vectors[b, 0], vectors[b, 1] = y, x
        if not keyframe:
            context = SKIP
            if b % across and coded[b - 1]:
                context += 1
            if b >= across and coded[b - across]:
                context += 1
            some, code, size, position = _take(context, probabilities, data, code, size, position)
            if not some:
                coded[b] = 0
                changes[b] = before[b]
                continue
        expected = _expected_change(changes, b, across) if keyframe else np.int64(before[b])
        off = np.int64(0)
        some, code, size, position = _take(
            first + min(odd, np.int64(2)), probabilities, data, code, size, position
        )
        if some:
            negative, code, size, position = _take(first + 3, probabilities, data, code, size, position)
            off = np.int64(1)
            for i in range(2 * MAX_CHANGE - 1):
                more, code, size, position = _take(first + 4 + i, probabilities, data, code, size, position)
                if not more:
                    break
                off += 1
            if negative:
                off = -off
        odd = abs(off)
        change = expected + off
        if abs(change) > MAX_CHANGE:
            return -1
        changes[b] = change
    coder[0], coder[1], coder[2] = code, size, position
    return 0
