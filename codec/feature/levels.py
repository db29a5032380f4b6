"""The levels of a frame, range coded by what is around them (docs/bitstream.md, "Levels")."""

# ruff: noqa: PLR0912, PLR0915, PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int8, int16, int32, int64, uint8, uint16, uint64
from numba.types import Array
from numba.types import NamedTuple as NamedTupleType
from numpy.typing import NDArray

from codec.feature.alphabets import SYMBOLS
from codec.feature.contexts import (
    BLOCK,
    END,
    FIRST,
    LAST,
    OTHER,
    PLANE,
)
from codec.feature.expectation import (
    UNSEEN,
    Signs,
    classify_levels,
    expected_block,
    learn_shown,
    magnitude_class,
    magnitude_log,
    shown_step,
    sign_context,
)
from codec.feature.range_coder import (
    Coder,
    Distributions,
    Met,
    Probabilities,
    decode_bit,
    decode_bits,
    decode_escape,
    decode_symbol,
    encode_bit,
    encode_bits,
    encode_escape,
    encode_symbol,
)
from codec.feature.transform import Lasts, Levels
from codec.jit import Bytes, Int, Ints, inlined, kernel

MAX_LEVEL = 2**15 - 1


class FrameLevels(NamedTuple):
    """The levels of a group's frame: K components, B blocks in raster order, `across` a row."""

    levels: Levels  # (K, 16, B), each block's in zigzag order
    lasts: Lasts  # (K, B): place of a block's last level that is not zero, -1 if there is none
    steps: Ints  # (B,)
    deltas: Ints  # (B,): width of each block's step
    coded: Bytes  # (B,): 0 where a block has no levels in any component
    across: int


class LevelContexts(NamedTuple):
    """What levels are coded by, and what is learned from them for the next frame."""

    prior: Ints  # (K, 16): magnitude expected of each coefficient
    weights: Ints  # (5, 16): of a level's neighbors, in 1/256
    block_weights: Ints  # (6,): of a block's
    energy: Ints  # (K, B): magnitudes of the last frame's blocks going in, of this one's coming out
    sums: Ints  # (K, 16): each coefficient's sum of magnitudes over the blocks, coming out
    probabilities: Probabilities
    distributions: Distributions
    met: Met
    shown_weight: int  # SHOWN_WEIGHT, or 0 where the priors were not measured


class LevelWorkspace(NamedTuple):
    """What the kernels work in: two components, this one and the one before, with a margin, and one block."""

    magnitudes: NDArray[np.int32]  # (2, P, 16), of P blocks with their margin
    block_sum: Ints  # (2, P)
    shown: Ints  # (B,): by how much the components so far were larger than their priors, in 1/256 octaves
    signs: Signs  # (P,): -1, 0 or 1, of the first frequency
    classes: Ints  # (16,)
    column: Ints  # (16,): levels of the block, or their magnitudes


def workspace_for(blocks: int, across: int) -> LevelWorkspace:
    """What levels of so many blocks are coded in."""
    padded = (across + 2) * (blocks // across + 2)
    return LevelWorkspace(
        magnitudes=np.zeros((2, padded, 16), np.int32),
        block_sum=np.zeros((2, padded), np.int32),
        shown=np.zeros(blocks, np.int32),
        signs=np.zeros(padded, np.int8),
        classes=np.zeros(16, np.int32),
        column=np.zeros(16, np.int32),
    )


_ROW, _TABLE = Array(int32, 1, "C"), Array(int32, 2, "C")
_FRAME = NamedTupleType(
    (Array(int16, 3, "C"), Array(int8, 2, "C"), _ROW, _ROW, Array(uint8, 1, "C"), int64), FrameLevels
)
_PROBABILITIES = Array(uint16, 2, "C")
_CONTEXTS = NamedTupleType(
    (_TABLE, _TABLE, _ROW, _TABLE, _TABLE, _PROBABILITIES, Array(int16, 2, "C"), Array(int16, 1, "C"), int64),
    LevelContexts,
)
_WORKSPACE = NamedTupleType(
    (Array(int32, 3, "C"), _TABLE, _ROW, Array(int8, 1, "C"), _ROW, _ROW), LevelWorkspace
)
_OUT = Array(uint8, 1, "C")
_DATA = Array(uint8, 1, "C", readonly=True)
_CODER = Array(uint64, 1, "C")


@inlined
def _leave_zero(magnitudes: Ints, block_sum: Ints, energy: Ints, k: Int, b: Int, now: Int, p: Int) -> None:
    energy[k, b] = 0
    block_sum[now, p] = 0
    for f in range(magnitudes.shape[2]):
        magnitudes[now, p, f] = 0


@inlined
def _remember_block(
    column: Ints, delta: Int, magnitudes: Ints, block_sum: Ints, sums: Ints, k: Int, now: Int, p: Int
) -> np.int32:
    """Keep the magnitudes of a block's levels for its neighbors' contexts; returns their sum."""
    inside = np.int32(0)
    for f in range(column.size):
        scaled = min(np.int32(abs(column[f]) * np.int32(delta)), np.int32(65535))
        magnitudes[now, p, f] = scaled
        sums[k, f] += scaled
        inside = np.int32(inside + scaled)
    inside = min(inside, np.int32(65535))
    block_sum[now, p] = inside
    return inside


@kernel(int64(_FRAME, _CONTEXTS, int64, _OUT, _CODER, _WORKSPACE))
def encode_levels(
    frame: FrameLevels,
    contexts: LevelContexts,
    frame_step: int,
    out: Bytes,
    coder: Coder,
    workspace: LevelWorkspace,
) -> int:
    """Append the levels of a frame's blocks; returns 0, or -1 where `out` is too small.

    `workspace` is `workspace_for` these blocks. Writes nothing where no block has levels.
    """
    levels, lasts, steps, deltas, coded, across = frame
    prior, weights, block_weights, energy, sums, probabilities, distributions, met, shown_weight = contexts
    magnitudes, block_sum, shown, signs, classes, column = workspace
    components, _, blocks = levels.shape
    down = blocks // across
    stride = across + 2
    magnitudes[:] = 0
    block_sum[:] = 0
    shown[:] = 0
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
        # A bit: no block has a level of this component.
        context = PLANE + magnitude_class(prior_sum << np.int32(4), frame_step)
        prior_log = magnitude_log(prior_sum)
        low, size, position = encode_bit(empty, context, probabilities, out, low, size, position)
        if empty:
            magnitudes[now] = 0
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
                    _leave_zero(magnitudes, block_sum, energy, k, b, now, p)
                    continue
                # 1. A bit: the block has levels of this component.
                step = steps[b]
                expected = expected_block(
                    block_weights, prior_sum, block_sum, energy[k, b], now, before, p, stride
                )
                class_step = shown_step(step, shown_weight, shown, b)
                context = magnitude_class(expected, class_step)
                last = np.int64(lasts[k, b])
                low, size, position = encode_bit(
                    last >= 0, BLOCK + context, probabilities, out, low, size, position
                )
                if last < 0:
                    learn_shown(shown, b, step - UNSEEN, prior_log)
                    _leave_zero(magnitudes, block_sum, energy, k, b, now, p)
                    continue
                # 2. A symbol: the place of the last level that is not 0.
                low, size, position = encode_symbol(
                    last, LAST + context, distributions, met, out, low, size, position
                )
                classify_levels(
                    classes, weights, prior, k, magnitudes, energy[k, b], class_step, now, before, p, stride
                )
                # 3. A symbol for each place up to the last: the magnitude, in plain bits where no symbol stands for it.
                for f in range(column.size):
                    column[f] = levels[k, f, b]
                negatives = np.int64(0)
                signed = np.int64(0)
                kind = np.int64(FIRST)
                for f in range(last + 1):
                    level = column[f]
                    magnitude = abs(level)
                    coded_size = magnitude
                    if f == last:
                        kind = np.int64(END)
                        coded_size -= np.int32(1)
                    symbol = min(coded_size, np.int32(SYMBOLS - 1))
                    alphabet = kind + classes[f]
                    kind = np.int64(OTHER)
                    low, size, position = encode_symbol(
                        symbol, alphabet, distributions, met, out, low, size, position
                    )
                    if symbol == SYMBOLS - 1:
                        low, size, position = encode_escape(
                            np.int64(coded_size - symbol), out, low, size, position
                        )
                    if f:
                        # Without branches, since a processor cannot foresee which levels are zero.
                        signed += np.int64(magnitude != 0)
                        negatives = (negatives << np.int64(magnitude != 0)) | np.int64(level < 0)
                    # 4. A bit: the sign of the first frequency's level, if that is not 0.
                    elif magnitude:
                        sign = sign_context(signs, p, stride)
                        low, size, position = encode_bit(
                            level < 0, sign, probabilities, out, low, size, position
                        )
                        signs[p] = -1 if level < 0 else 1
                # 5. Plain bits: the signs of all other levels that are not 0.
                low, size, position = encode_bits(negatives, signed, out, low, size, position)
                inside = _remember_block(column, deltas[b], magnitudes, block_sum, sums, k, now, p)
                learn_shown(shown, b, magnitude_log(inside), prior_log)
                energy[k, b] = inside
    coder[0], coder[1], coder[2] = low, size, position
    return 0 if position <= out.size else -1


@kernel(int64(_FRAME, _CONTEXTS, int64, _DATA, _CODER, _WORKSPACE))
def decode_levels(
    frame: FrameLevels,
    contexts: LevelContexts,
    frame_step: int,
    data: Bytes,
    coder: Coder,
    workspace: LevelWorkspace,
) -> int:
    """Read what `encode_levels` wrote; returns 0, or -1 where it holds what no encoder writes.

    `frame.levels` is filled in all components but those that are empty, which `frame.lasts` tells.
    """
    levels, lasts, steps, deltas, coded, across = frame
    prior, weights, block_weights, energy, sums, probabilities, distributions, met, shown_weight = contexts
    magnitudes, block_sum, shown, signs, classes, column = workspace
    components, _, blocks = levels.shape
    down = blocks // across
    stride = across + 2
    magnitudes[:] = 0
    block_sum[:] = 0
    shown[:] = 0
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
        # A bit: no block has a level of this component.
        context = PLANE + magnitude_class(prior_sum << np.int32(4), frame_step)
        prior_log = magnitude_log(prior_sum)
        empty, code, size, position = decode_bit(context, probabilities, data, code, size, position)
        if empty:
            magnitudes[now] = 0
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
                    _leave_zero(magnitudes, block_sum, energy, k, b, now, p)
                    continue
                # 1. A bit: the block has levels of this component.
                step = steps[b]
                expected = expected_block(
                    block_weights, prior_sum, block_sum, energy[k, b], now, before, p, stride
                )
                class_step = shown_step(step, shown_weight, shown, b)
                context = magnitude_class(expected, class_step)
                some, code, size, position = decode_bit(
                    BLOCK + context, probabilities, data, code, size, position
                )
                if not some:
                    learn_shown(shown, b, step - UNSEEN, prior_log)
                    _leave_zero(magnitudes, block_sum, energy, k, b, now, p)
                    continue
                # 2. A symbol: the place of the last level that is not 0.
                last, code, size, position = decode_symbol(
                    LAST + context, distributions, met, data, code, size, position
                )
                lasts[k, b] = last
                classify_levels(
                    classes, weights, prior, k, magnitudes, energy[k, b], class_step, now, before, p, stride
                )
                # 3. A symbol for each place up to the last: the magnitude, in plain bits where no symbol stands for it.
                column[:] = 0
                signed = np.int64(0)
                kind = np.int64(FIRST)
                for f in range(last + 1):
                    if f == last:
                        kind = np.int64(END)
                    magnitude, code, size, position = decode_symbol(
                        kind + classes[f], distributions, met, data, code, size, position
                    )
                    kind = np.int64(OTHER)
                    if magnitude == SYMBOLS - 1:
                        more, code, size, position = decode_escape(data, code, size, position)
                        if more < 0:
                            return -1
                        magnitude += more
                    if f == last:
                        magnitude += 1
                    if magnitude > MAX_LEVEL:
                        return -1
                    column[f] = magnitude
                    if f:
                        signed += np.int64(magnitude != 0)
                    # 4. A bit: the sign of the first frequency's level, if that is not 0.
                    elif magnitude:
                        sign = sign_context(signs, p, stride)
                        negative, code, size, position = decode_bit(
                            sign, probabilities, data, code, size, position
                        )
                        signs[p] = -1 if negative else 1
                        levels[k, 0, b] = -magnitude if negative else magnitude
                # 5. Plain bits: the signs of all other levels that are not 0.
                negatives, code, size, position = decode_bits(signed, data, code, size, position)
                for f in range(last, 0, -1):
                    level = np.int64(column[f])
                    negative_mask = -(negatives & np.int64(level != 0))
                    levels[k, f, b] = (level ^ negative_mask) - negative_mask
                    negatives >>= np.int64(level != 0)
                inside = _remember_block(column, deltas[b], magnitudes, block_sum, sums, k, now, p)
                learn_shown(shown, b, magnitude_log(inside), prior_log)
                energy[k, b] = inside
    coder[0], coder[1], coder[2] = code, size, position
    return 0
