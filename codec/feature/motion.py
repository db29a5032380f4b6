"""Block motion in the feature domain: prediction of a frame from the one before it (docs/bitstream.md).

Samples are int16 of shape (H, W, K), components last, so that every step works on whole vectors of components.
Vectors are (y, x) in quarters of a feature sample: one for each block of 4x4 samples, in raster order. Everything
that a decoder computes is integer arithmetic.
"""

# ruff: noqa: PLR0912, PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import float32, int8, int16, int32, int64, uint8, uint32, void
from numba.types import Array
from numpy.typing import NDArray

from codec.feature.contexts import MAX_VECTOR
from codec.jit import Bytes, Int, Ints, inlined, kernel
from codec.layout import FloatArray

Samples: TypeAlias = NDArray[np.int16]
Vectors: TypeAlias = NDArray[np.int8]

# Cubic convolution with a = -1/4, and the sharper one with -1/2, at 0, 1/4, 1/2 and 3/4 of a sample, in 1/256.
TAPS = np.array(
    [
        [[0, 256, 0, 0], [-9, 219, 49, -3], [-8, 136, 136, -8], [-3, 49, 219, -9]],
        [[0, 256, 0, 0], [-18, 222, 58, -6], [-16, 144, 144, -16], [-6, 58, 222, -18]],
    ],
    np.int32,
)

SHARPER, SHARPER_TOGETHER = 6, 4
"""The sharper filter is taken where it leaves no more than 1 + 2**-SHARPER times what the other one leaves.

Filters blur, from frame to frame ever more, which the differences hardly tell and the network minds: most where blocks
move together, as they do when the camera moves. There it is SHARPER_TOGETHER.
"""


MARGIN = 4
"""Samples around a frame that continue its edge: as far as vectors and taps reach."""

_SAMPLES = Array(int16, 3, "C")
_READ = Array(int16, 3, "C", readonly=True)
_VECTORS = Array(int8, 2, "C", readonly=True)
_WORKSPACE = Array(int32, 2, "C")


def padded_frame(height: int, width: int, components: int) -> Samples:
    """Zeros for samples (H, W, K) with a margin on every side."""
    return np.zeros((height + 2 * MARGIN, width + 2 * MARGIN, components), np.int16)


def without_margin(samples: Samples) -> Samples:
    """The frame (H, W, K) without its margin."""
    return samples[MARGIN:-MARGIN, MARGIN:-MARGIN]


@inlined
def _continue_edges(samples: Samples) -> None:
    height, width, components = samples.shape
    right, bottom = width - MARGIN, height - MARGIN
    for y in range(MARGIN, bottom):
        for x in range(MARGIN):
            for k in range(components):
                samples[y, x, k] = samples[y, MARGIN, k]
                samples[y, right + x, k] = samples[y, right - 1, k]
    for y in range(MARGIN):
        for x in range(width):
            for k in range(components):
                samples[y, x, k] = samples[MARGIN, x, k]
                samples[bottom + y, x, k] = samples[bottom - 1, x, k]


_CACHED = 128
"""Columns of a line, of which a processor's first cache holds every component."""


@inlined
def _word(a: np.int16, b: np.int16, c: np.int16, d: np.int16) -> np.uint64:
    """Four samples side by side in memory, to be written at once, on a processor that puts the lowest byte first."""
    low = np.uint64(np.uint16(a)) | (np.uint64(np.uint16(b)) << np.uint64(16))
    return low | (np.uint64(np.uint16(c)) << np.uint64(32)) | (np.uint64(np.uint16(d)) << np.uint64(48))


@kernel(void(_READ, _SAMPLES))
def pad(planes: Samples, samples: Samples) -> None:
    """Copy planes (K, H, W) to padded samples, the first N components, and continue their edges in the margin."""
    _, height, width = planes.shape
    components = samples.shape[2]
    if components % 4:
        for y in range(height):
            for k in range(components):
                for x in range(width):
                    samples[y + MARGIN, x + MARGIN, k] = planes[k, y, x]
    else:
        words = samples.view(np.uint64)
        for y in range(height):
            for first in range(0, width, _CACHED):
                end = min(first + _CACHED, width)
                for k in range(0, components, 4):
                    a, b = planes[k, y, first:end], planes[k + 1, y, first:end]
                    c, d = planes[k + 2, y, first:end], planes[k + 3, y, first:end]
                    target = words[y + MARGIN, first + MARGIN : end + MARGIN, k // 4]
                    for x in range(a.size):
                        target[x] = _word(a[x], b[x], c[x], d[x])
    _continue_edges(samples)


@kernel(void(Array(float32, 3, "C", readonly=True), Array(float32, 1, "C", readonly=True), _SAMPLES))
def pad_rounded(planes: FloatArray, offset: FloatArray, samples: Samples) -> None:
    """The same from planes (K, H, W) less their offset (K,), rounded half to even and saturated."""
    _, height, width = planes.shape
    components = samples.shape[2]
    for y in range(height):
        for k in range(components):
            for x in range(width):
                value = np.rint(planes[k, y, x] - offset[k])
                value = min(max(value, np.float32(-32768)), np.float32(32767))
                samples[y + MARGIN, x + MARGIN, k] = np.int16(value)
    _continue_edges(samples)


@inlined
def _filtered(t0: Int, t1: Int, t2: Int, t3: Int, a: Int, b: Int, c: Int, d: Int) -> np.int32:
    """Four taps, rounded; each step is cut to 32 bits so that vector instructions can do it."""
    total = np.int32(np.int32(t0 * a) + np.int32(t1 * b))
    total = np.int32(total + np.int32(t2 * c))
    total = np.int32(total + np.int32(t3 * d))
    return np.int32(np.int32(total + np.int32(128)) >> np.int32(8))


def workspace_for(components: int) -> tuple[Ints, Ints]:
    """What motion of so many components works in: the lines that a moved block is made of, and the block."""
    return np.zeros((7, 4 * components), np.int32), np.zeros((4, 4 * components), np.int32)


@inlined
def _move_block(
    reference: Samples, top: int, left: int, down: Int, right: Int, sharp: Int, rows: Ints, block: Ints
) -> None:
    """Fill `block` (4, 4 K) from the padded reference moved by (down, right) quarters; `rows` (7, 4 K) is for work."""
    components = reference.shape[2]
    span = block.shape[1]
    lines = reference.reshape(reference.shape[0], -1)
    y = top + MARGIN + (down >> 2)
    start = (left + MARGIN + (right >> 2)) * components
    part_y, part_x = down & 3, right & 3
    first, count = (0, 4) if part_y == 0 else (-1, 7)
    t0, t1, t2, t3 = (
        TAPS[sharp, part_x, 0],
        TAPS[sharp, part_x, 1],
        TAPS[sharp, part_x, 2],
        TAPS[sharp, part_x, 3],
    )
    for j in range(count):
        line = lines[y + first + j]
        here = line[start : start + span]
        if part_x == 0:
            for i in range(span):
                rows[j, i] = here[i]
        else:
            before = line[start - components : start - components + span]
            after = line[start + components : start + components + span]
            beyond = line[start + 2 * components : start + 2 * components + span]
            for i in range(span):
                rows[j, i] = _filtered(t0, t1, t2, t3, before[i], here[i], after[i], beyond[i])
    t0, t1, t2, t3 = (
        TAPS[sharp, part_y, 0],
        TAPS[sharp, part_y, 1],
        TAPS[sharp, part_y, 2],
        TAPS[sharp, part_y, 3],
    )
    for j in range(4):
        for i in range(span):
            value = rows[j, i]
            if part_y:
                value = _filtered(t0, t1, t2, t3, rows[j, i], rows[j + 1, i], rows[j + 2, i], rows[j + 3, i])
            block[j, i] = min(max(value, np.int32(-32768)), np.int32(32767))


@kernel(void(_READ, _VECTORS, Array(uint8, 1, "C", readonly=True), _SAMPLES, _WORKSPACE, _WORKSPACE))
def compensate(
    reference: Samples, vectors: Vectors, sharp: Bytes, planes: Samples, rows: Ints, block: Ints
) -> None:
    """Replace each block of planes (K, H, W) that has a vector by the padded reference moved by it.

    sharp (B,): 1 where the sharper filter interpolates, else 0. `rows` and `block` are `workspace_for` K components.
    """
    components, _, width = planes.shape
    across = width // 4
    words = planes.view(np.uint64)
    for b in range(vectors.shape[0]):
        down, right = np.int64(vectors[b, 0]), np.int64(vectors[b, 1])
        if down == 0 and right == 0:
            continue
        top, left = 4 * (b // across), 4 * (b % across)
        _move_block(reference, top, left, down, right, np.int64(sharp[b]), rows, block)
        column = left // 4
        for k in range(components):
            for j in range(4):
                row = block[j]
                words[k, top + j, column] = _word(
                    np.int16(row[k]), np.int16(row[k + components]),
                    np.int16(row[k + 2 * components]), np.int16(row[k + 3 * components]),
                )  # fmt: skip


# What follows looks at frames as one row of numbers: `at` and `start` are where a block begins in the current frame and
# in the reference, `line` is how far apart its lines are. Its four lines are taken at once, since one of them is too
# short for what a loop of vector instructions costs to begin and to end.


@inlined
def _sample(flat: Samples, place: Int) -> np.int32:
    # Without a sign, an index is not asked whether it counts from the end.
    return np.int32(flat[np.uint64(place)])


@inlined
def _bounded(value: np.int32) -> np.int32:
    return min(max(value, np.int32(-32768)), np.int32(32767))


@inlined
def _apart(
    current: Samples, at: Int, line: Int, first: np.int32, second: np.int32, third: np.int32, fourth: np.int32
) -> np.int32:
    """Sum of absolute differences of four samples below each other from four others."""
    total = np.int32(abs(np.int32(_sample(current, at) - first)))
    total = np.int32(total + abs(np.int32(_sample(current, at + line) - second)))
    total = np.int32(total + abs(np.int32(_sample(current, at + 2 * line) - third)))
    return np.int32(total + abs(np.int32(_sample(current, at + 3 * line) - fourth)))


@inlined
def _difference_whole(
    current: Samples, reference: Samples, at: Int, start: Int, line: Int, span: Int
) -> np.int64:
    """Sum of absolute differences of a block's four lines of `span` numbers from others."""
    total = np.int32(0)
    for i in range(span):
        j = start + i
        total = np.int32(total + _apart(
            current, at + i, line, _sample(reference, j), _sample(reference, j + line),
            _sample(reference, j + 2 * line), _sample(reference, j + 3 * line),
        ))  # fmt: skip
    return np.int64(total)


@inlined
def _between(flat: Samples, place: Int, stride: Int, taps: tuple[Int, Int, Int, Int]) -> np.int32:
    """The sample between a place and the next, which are `stride` apart."""
    t0, t1, t2, t3 = taps
    return _filtered(
        t0, t1, t2, t3, _sample(flat, place - stride), _sample(flat, place), _sample(flat, place + stride),
        _sample(flat, place + 2 * stride),
    )  # fmt: skip


@inlined
def _difference_along(
    current: Samples, reference: Samples, at: Int, start: Int, line: Int, span: Int, stride: Int, row: Ints
) -> np.int64:
    """The same from what lies between those others and their next, which are `stride` apart."""
    taps = row[0], row[1], row[2], row[3]
    total = np.int32(0)
    for i in range(span):
        j = start + i
        total = np.int32(total + _apart(
            current, at + i, line, _bounded(_between(reference, j, stride, taps)),
            _bounded(_between(reference, j + line, stride, taps)),
            _bounded(_between(reference, j + 2 * line, stride, taps)),
            _bounded(_between(reference, j + 3 * line, stride, taps)),
        ))  # fmt: skip
    return np.int64(total)


@inlined
def _difference_both(
    current: Samples, reference: Samples, at: Int, start: Int, line: Int, span: Int, down: Ints, across: Ints
) -> np.int64:
    """The same from what lies between lines and columns."""
    taps = across[0], across[1], across[2], across[3]
    t0, t1, t2, t3 = down[0], down[1], down[2], down[3]
    stride = span // 4
    total = np.int32(0)
    for i in range(span):
        j = start + i
        a = _between(reference, j - line, stride, taps)
        b = _between(reference, j, stride, taps)
        c = _between(reference, j + line, stride, taps)
        d = _between(reference, j + 2 * line, stride, taps)
        e = _between(reference, j + 3 * line, stride, taps)
        f = _between(reference, j + 4 * line, stride, taps)
        g = _between(reference, j + 5 * line, stride, taps)
        total = np.int32(total + _apart(
            current, at + i, line, _bounded(_filtered(t0, t1, t2, t3, a, b, c, d)),
            _bounded(_filtered(t0, t1, t2, t3, b, c, d, e)),
            _bounded(_filtered(t0, t1, t2, t3, c, d, e, f)),
            _bounded(_filtered(t0, t1, t2, t3, d, e, f, g)),
        ))  # fmt: skip
    return np.int64(total)


@inlined
def _difference(
    current: Samples, reference: Samples, at: Int, line: Int, span: Int, down: Int, right: Int, sharp: Int
) -> np.int64:
    """Sum of absolute differences of a block from the reference moved by quarters."""
    stride, part_y, part_x = span // 4, down & 3, right & 3
    start = at + (down >> 2) * line + (right >> 2) * stride
    if part_y and part_x:
        return _difference_both(
            current, reference, at, start, line, span, TAPS[sharp, part_y], TAPS[sharp, part_x]
        )
    if part_y:
        return _difference_along(current, reference, at, start, line, span, line, TAPS[sharp, part_y])
    if part_x:
        return _difference_along(current, reference, at, start, line, span, stride, TAPS[sharp, part_x])
    return _difference_whole(current, reference, at, start, line, span)


@inlined
def _place(b: Int, across: int, line: int, components: int) -> Int:
    """Where a block begins in a padded frame."""
    return (4 * (b // across) + MARGIN) * line + (4 * (b % across) + MARGIN) * components


@inlined
def _vector(vectors: Vectors, b: Int) -> tuple[np.int64, np.int64]:
    """A block's vector; none outside of the frame."""
    if b < 0:
        return np.int64(0), np.int64(0)
    return np.int64(vectors[b, 0]), np.int64(vectors[b, 1])


@inlined
def _vector_cost(
    down: Int, right: Int, left_down: Int, left_right: Int, above_down: Int, above_right: Int
) -> int:
    """Bits, roughly, of a vector next to those of its neighbors."""
    if (down == left_down and right == left_right) or (down == above_down and right == above_right):
        return 1
    return 10


@kernel(
    int64(
        _READ, _READ, _READ, Array(uint8, 1, "C"), Array(int8, 2, "C"), Array(uint8, 1, "C"),
        int64, int64, int64, int64,
    )
)  # fmt: skip
def search(
    current: Samples,
    last: Samples,
    reference: Samples,
    still: Bytes,
    vectors: Vectors,
    sharp: Bytes,
    bit_cost: int,
    skip: int,
    reach: int,
    refine: int,
) -> np.int64:
    """Find each block's vector and filter; returns the sum of the absolute differences that all of them leave.

    All three are padded and hold the components to compare: a frame without its noise, the one before likewise, and
    the reference, as it was coded. `bit_cost` is what a bit of a vector weighs in a sum of absolute differences; a
    block that is still (B,), or that changed by `skip` or less since the last frame, does not move. reach: whole
    samples in each direction, 0 to 2, 0 for no motion at all. refine: then to 0 whole samples, 1 halves, 2 quarters.
    """
    _, width, components = reference.shape
    across = (width - 2 * MARGIN) // 4
    now, before, coded = current.reshape(-1), last.reshape(-1), reference.reshape(-1)
    line, span = width * components, 4 * components
    remaining = np.int64(0)
    for b in range(vectors.shape[0]):
        at = _place(b, across, line, components)
        left_down, left_right = _vector(vectors, b - 1 if b % across else -1)
        above_down, above_right = _vector(vectors, b - across)
        sharp[b] = 0
        best_down, best_right = np.int64(0), np.int64(0)
        best_difference = _difference_whole(now, coded, at, at, line, span)
        best = best_difference + bit_cost * _vector_cost(0, 0, left_down, left_right, above_down, above_right)
        if reach > 0 and not still[b] and _difference_whole(now, before, at, at, line, span) > skip:
            for candidate in range(2):
                down, right = (left_down, left_right) if candidate == 0 else (above_down, above_right)
                if down == 0 and right == 0:
                    continue
                difference = _difference(now, coded, at, line, span, down, right, 0)
                cost = difference + bit_cost * _vector_cost(
                    down, right, left_down, left_right, above_down, above_right
                )
                if cost < best:
                    best, best_difference, best_down, best_right = cost, difference, down, right
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    if i == 0 and j == 0:
                        continue
                    start = at + i * line + j * components
                    difference = _difference_whole(now, coded, at, start, line, span)
                    down, right = np.int64(4 * i), np.int64(4 * j)
                    cost = difference + bit_cost * _vector_cost(
                        down, right, left_down, left_right, above_down, above_right
                    )
                    if cost < best:
                        best, best_difference, best_down, best_right = cost, difference, down, right
            stride = 2
            for _ in range(refine):
                middle_down, middle_right = best_down, best_right
                for i in range(-1, 2):
                    for j in range(-1, 2):
                        down, right = middle_down + stride * i, middle_right + stride * j
                        if abs(i) + abs(j) != 1 or max(abs(down), abs(right)) > MAX_VECTOR:
                            continue
                        difference = _difference(now, coded, at, line, span, down, right, 0)
                        cost = difference + bit_cost * _vector_cost(
                            down, right, left_down, left_right, above_down, above_right
                        )
                        if cost < best:
                            best, best_difference, best_down, best_right = cost, difference, down, right
                stride //= 2
            if (best_down | best_right) & 3:
                difference = _difference(now, coded, at, line, span, best_down, best_right, 1)
                together = (
                    best_down == left_down
                    and best_right == left_right
                    and best_down == above_down
                    and best_right == above_right
                )
                most = best_difference >> (SHARPER_TOGETHER if together else SHARPER)
                if difference <= best_difference + most:
                    best_difference = difference
                    sharp[b] = 1
        vectors[b, 0], vectors[b, 1] = best_down, best_right
        remaining += best_difference
    return remaining


@kernel(uint32(_READ))
def checksum(planes: Samples) -> np.uint32:
    """Sum of every sample, as 16 bits without sign, times twice its place plus one, modulo 2**32."""
    flat = planes.reshape(-1)
    total = np.uint32(0)
    for i in range(flat.size):
        total += np.uint32(np.uint16(flat[i])) * np.uint32(2 * i + 1)
    return total


@kernel(int64(_READ))
def magnitude(samples: Samples) -> np.int64:
    """Sum of the magnitudes of padded samples."""
    components = samples.shape[2]
    lines = samples.reshape(samples.shape[0], -1)
    first, end = MARGIN * components, lines.shape[1] - MARGIN * components
    total = np.int64(0)
    for y in range(MARGIN, lines.shape[0] - MARGIN):
        of_line = np.int32(0)  # at most 2**15 of a side of 2**9 and a few components
        line = lines[y, first:end]
        for i in range(line.size):
            of_line = np.int32(of_line + abs(np.int32(line[i])))
        total += of_line
    return total


@kernel(void(_READ, _READ, Array(int64, 1, "C")))
def block_differences(current: Samples, last: Samples, differences: NDArray[np.int64]) -> None:
    """Sum of absolute differences of each block between two padded frames."""
    _, width, components = current.shape
    across, line = (width - 2 * MARGIN) // 4, width * components
    now, before = current.reshape(-1), last.reshape(-1)
    for b in range(differences.size):
        at = _place(b, across, line, components)
        differences[b] = _difference_whole(now, before, at, at, line, 4 * components)
