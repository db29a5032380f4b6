"""What is said of each block before its levels: vector, whether it has levels, step (docs/bitstream.md, "Blocks")."""

# ruff: noqa: PLR0912, PLR0915 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import boolean, int8, int64, uint8, uint16, uint64, void
from numba.types import Array
from numba.types import NamedTuple as NamedTupleType
from numpy.typing import NDArray

from codec.feature.contexts import MAX_CHANGE, MAX_VECTOR, MOTION, SHARP, SKIP, STEP
from codec.feature.motion import Vectors
from codec.feature.range_coder import Bit, Coder, Probabilities, decode_bit, encode_bit
from codec.feature.transform import Lasts
from codec.jit import Bytes, Int, inlined, kernel

Changes: TypeAlias = NDArray[np.int8]

NEARLY_THE_SAME = 2  # quarters of an octave: so small a change of a block's step is not worth telling


class FrameBlocks(NamedTuple):
    """What a group's frame says of its B blocks, in raster order, `across` a row, before their levels."""

    changes: Changes  # (B,): of each block's step from the frame's
    before: Changes  # (B,): those of the last frame, which stay where a block has no levels
    coded: Bytes  # (B,): 0 where a block has no levels in any component
    vectors: Vectors  # (B, 2): (y, x) in quarters of a sample
    sharp: Bytes  # (B,): 1 where the sharper filter interpolates; 0 where a block does not move by parts of a sample
    across: int


_FRAME = NamedTupleType(
    (
        Array(int8, 1, "C"), Array(int8, 1, "C"), Array(uint8, 1, "C"), Array(int8, 2, "C"),
        Array(uint8, 1, "C"), int64,
    ),
    FrameBlocks,
)  # fmt: skip
_CHANGES, _CODED = Array(int8, 1, "C"), Array(uint8, 1, "C")
_PROBABILITIES = Array(uint16, 2, "C")
_CODER = Array(uint64, 1, "C")


@kernel(void(_CHANGES, _CHANGES, _CHANGES))
def choose_changes(predicted: Changes, before: Changes, changes: Changes) -> None:
    """Set a difference's changes of steps (B,) to those predicted, or to those before where that is nearly the same."""
    for b in range(changes.size):
        is_far = abs(np.int64(predicted[b]) - np.int64(before[b])) > NEARLY_THE_SAME
        changes[b] = predicted[b] if is_far else before[b]


@kernel(void(Array(int8, 2, "C"), _CHANGES, _CHANGES, _CODED))
def tell_coded(lasts: Lasts, before: Changes, changes: Changes, coded: Bytes) -> None:
    """Set which blocks (B,) have levels, by their lasts (K, B); the others keep their steps."""
    for b in range(coded.size):
        coded[b] = 0
    for k in range(lasts.shape[0]):
        for b in range(coded.size):
            coded[b] |= np.uint8(lasts[k, b] >= 0)
    for b in range(coded.size):
        changes[b] = changes[b] if coded[b] else before[b]


@inlined
def _expected_change(changes: Changes, b: int, across: int) -> Int:
    """A block's change of step as far as its neighbors tell."""
    if b % across == 0:
        return np.int64(changes[b - across]) if b >= across else 0
    if b < across:
        return np.int64(changes[b - 1])
    return (np.int64(changes[b - 1]) + np.int64(changes[b - across]) + 1) >> 1


@inlined
def _sharp_context(sharp: Bytes, b: int, across: int) -> Int:
    """Of the bit that says whether a block is sharp: how many of the left and the upper neighbor are."""
    context = SHARP + 1
    if b % across and sharp[b - 1]:
        context += 1
    if b >= across and sharp[b - across]:
        context += 1
    return context


@kernel(int64(_FRAME, boolean, _PROBABILITIES, Array(uint8, 1, "C"), _CODER))
def encode_blocks(
    frame: FrameBlocks, keyframe: bool, probabilities: Probabilities, out: Bytes, coder: Coder
) -> int:
    """Append what is said of each block: its vector and filter, whether it has levels, its change of step.

    In a keyframe all blocks have levels and none moves. Returns 0, or -1 where `out` is too small.
    """
    changes, before, coded, vectors, sharp, across = frame
    low, size, position = coder[0], coder[1], np.int64(coder[2])
    blocks = changes.size
    # 1. A bit, in a difference: does any block move. After a 1 another: is any interpolated by the sharper filter.
    moving, sharpening = False, False
    if not keyframe:
        for b in range(blocks):
            moving |= vectors[b, 0] != 0 or vectors[b, 1] != 0
            sharpening |= sharp[b] != 0
        low, size, position = encode_bit(moving, MOTION, probabilities, out, low, size, position)
        if moving:
            low, size, position = encode_bit(sharpening, SHARP, probabilities, out, low, size, position)
    first = STEP + (0 if keyframe else 4 + 2 * MAX_CHANGE)
    odd = np.int64(0)
    for b in range(blocks):
        # 2. The vector: a bit for another than left's, one for another than above's, and five for each part.
        if moving:
            left = b - 1 if b % across else -1
            above = b - across
            left_y, left_x = (np.int64(vectors[left, 0]), np.int64(vectors[left, 1])) if left >= 0 else (0, 0)
            above_y, above_x = (
                (np.int64(vectors[above, 0]), np.int64(vectors[above, 1])) if above >= 0 else (0, 0)
            )
            y, x = np.int64(vectors[b, 0]), np.int64(vectors[b, 1])
            same = y == left_y and x == left_x
            low, size, position = encode_bit(not same, MOTION + 1, probabilities, out, low, size, position)
            if not same and (left_y != above_y or left_x != above_x):
                same = y == above_y and x == above_x
                low, size, position = encode_bit(
                    not same, MOTION + 2, probabilities, out, low, size, position
                )
            if not same:
                for axis in range(2):
                    value = (y if axis == 0 else x) + MAX_VECTOR
                    node = np.int64(1)
                    for i in range(4, -1, -1):
                        bit = (value >> i) & 1
                        low, size, position = encode_bit(
                            bit != 0, MOTION + 3 + 32 * axis + node, probabilities, out, low, size, position
                        )
                        node = 2 * node + bit
            # 3. A bit, where it has parts of a sample: is the sharper filter taken.
            if sharpening and ((y | x) & 3) != 0:
                low, size, position = encode_bit(
                    sharp[b] != 0, _sharp_context(sharp, b, across), probabilities, out, low, size, position
                )
        # 4. A bit, in a difference: has the block levels.
        if not keyframe:
            context = SKIP
            if b % across and coded[b - 1]:
                context += 1
            if b >= across and coded[b - across]:
                context += 1
            low, size, position = encode_bit(coded[b] != 0, context, probabilities, out, low, size, position)
            if not coded[b]:
                changes[b] = before[b]
                continue
        # 5. The change of step against the one expected: a bit for any, its sign, and its size in ones.
        expected = _expected_change(changes, b, across) if keyframe else np.int64(before[b])
        off = np.int64(changes[b]) - expected
        low, size, position = encode_bit(
            off != 0, first + min(odd, np.int64(2)), probabilities, out, low, size, position
        )
        odd = abs(off)
        if off:
            low, size, position = encode_bit(off < 0, first + 3, probabilities, out, low, size, position)
            for i in range(2 * MAX_CHANGE - 1):
                more = odd > i + 1
                low, size, position = encode_bit(more, first + 4 + i, probabilities, out, low, size, position)
                if not more:
                    break
    coder[0], coder[1], coder[2] = low, size, position
    return 0 if position <= out.size else -1


@kernel(int64(_FRAME, boolean, _PROBABILITIES, Array(uint8, 1, "C", readonly=True), _CODER))
def decode_blocks(
    frame: FrameBlocks, keyframe: bool, probabilities: Probabilities, data: Bytes, coder: Coder
) -> int:
    """Read what `encode_blocks` wrote; returns 0, or -1 where it holds what no encoder writes."""
    changes, before, coded, vectors, sharp, across = frame
    code, size, position = coder[0], coder[1], np.int64(coder[2])
    blocks = changes.size
    # 1. A bit, in a difference: does any block move. After a 1 another: is any interpolated by the sharper filter.
    moving: Bit = False
    sharpening: Bit = False
    if not keyframe:
        moving, code, size, position = decode_bit(MOTION, probabilities, data, code, size, position)
        if moving:
            sharpening, code, size, position = decode_bit(SHARP, probabilities, data, code, size, position)
    first = STEP + (0 if keyframe else 4 + 2 * MAX_CHANGE)
    odd = np.int64(0)
    for b in range(blocks):
        coded[b] = 1
        vectors[b, 0], vectors[b, 1] = 0, 0
        sharp[b] = 0
        # 2. The vector: a bit for another than left's, one for another than above's, and five for each part.
        if moving:
            left = b - 1 if b % across else -1
            above = b - across
            left_y, left_x = (np.int64(vectors[left, 0]), np.int64(vectors[left, 1])) if left >= 0 else (0, 0)
            above_y, above_x = (
                (np.int64(vectors[above, 0]), np.int64(vectors[above, 1])) if above >= 0 else (0, 0)
            )
            y, x = left_y, left_x
            other, code, size, position = decode_bit(MOTION + 1, probabilities, data, code, size, position)
            if other and (left_y != above_y or left_x != above_x):
                y, x = above_y, above_x
                other, code, size, position = decode_bit(
                    MOTION + 2, probabilities, data, code, size, position
                )
            if other:
                for axis in range(2):
                    node = np.int64(1)
                    for _ in range(5):
                        bit, code, size, position = decode_bit(
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
            # 3. A bit, where it has parts of a sample: is the sharper filter taken.
            if sharpening and ((y | x) & 3) != 0:
                is_sharp, code, size, position = decode_bit(
                    _sharp_context(sharp, b, across), probabilities, data, code, size, position
                )
                sharp[b] = np.uint8(is_sharp)
        # 4. A bit, in a difference: has the block levels.
        if not keyframe:
            context = SKIP
            if b % across and coded[b - 1]:
                context += 1
            if b >= across and coded[b - across]:
                context += 1
            some, code, size, position = decode_bit(context, probabilities, data, code, size, position)
            if not some:
                coded[b] = 0
                changes[b] = before[b]
                continue
        # 5. The change of step against the one expected: a bit for any, its sign, and its size in ones.
        expected = _expected_change(changes, b, across) if keyframe else np.int64(before[b])
        off = np.int64(0)
        some, code, size, position = decode_bit(
            first + min(odd, np.int64(2)), probabilities, data, code, size, position
        )
        if some:
            negative, code, size, position = decode_bit(first + 3, probabilities, data, code, size, position)
            off = np.int64(1)
            for i in range(2 * MAX_CHANGE - 1):
                more, code, size, position = decode_bit(
                    first + 4 + i, probabilities, data, code, size, position
                )
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
