"""Block motion in the feature domain: prediction of a frame from the one before it (docs/bitstream.md).

Samples are int16 of shape (H, W, K), components last, so that every step works on whole vectors of components.
Vectors are (y, x) in quarters of a feature sample: one for each block of 4x4 samples, in raster order. Everything
that a decoder computes is integer arithmetic.
"""

# ruff: noqa: PLR0912, PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numba
import numpy as np
from numba import int8, int16, int64, uint32, void
from numba.types import Array
from numpy.typing import NDArray

from codec.entropy import MAX_VECTOR, Int, Ints, Vectors

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Samples: TypeAlias = NDArray[np.int16]

# Cubic convolution with a = -1/4 at 0, 1/4, 1/2 and 3/4 of a sample, in 1/256.
TAPS = np.array([[0, 256, 0, 0], [-9, 219, 49, -3], [-8, 136, 136, -8], [-3, 49, 219, -9]], np.int32)


def _kernel(signature: object) -> Callable[[Kernel], Kernel]:
    compiler: Callable[[Kernel], Kernel] = numba.njit(signature, nogil=True, cache=True)
    return compiler


_SAMPLES = Array(int16, 3, "C")
_READ = Array(int16, 3, "C", readonly=True)


@_kernel(void(_READ, _SAMPLES))
def components_last(planes: Samples, samples: Samples) -> None:
    """Copy planes (K, H, W) to samples (H, W, N), the first N components."""
    _, height, width = planes.shape
    components = samples.shape[2]
    for y in range(height):
        for first in range(0, width, 16):
            for k in range(components):
                for x in range(first, min(first + 16, width)):
                    samples[y, x, k] = planes[k, y, x]


@_kernel(void(_READ, _SAMPLES))
def components_first(samples: Samples, planes: Samples) -> None:
    """Copy samples (H, W, K) to planes (K, H, W)."""
    components, height, width = planes.shape
    for y in range(height):
        for first in range(0, width, 16):
            for k in range(components):
                for x in range(first, min(first + 16, width)):
                    planes[k, y, x] = samples[y, x, k]


@numba.njit(nogil=True, cache=True, forceinline=True)
def _predict_block(
    reference: Samples, top: int, left: int, down: Int, right: Int, rows: Ints, block: Ints, components: int
) -> None:
    """Fill `block` (4, 4, K) from the reference moved by (down, right) quarters; the edge samples continue outside."""
    height, width = reference.shape[0], reference.shape[1]
    whole_y, part_y = down >> 2, down & 3
    whole_x, part_x = right >> 2, right & 3
    first, count = (0, 4) if part_y == 0 else (-1, 7)
    for j in range(count):
        y = min(max(top + whole_y + first + j, 0), height - 1)
        for i in range(4):
            x = left + whole_x + i
            if part_x == 0:
                x1 = min(max(x, 0), width - 1)
                for k in range(components):
                    rows[j, i, k] = reference[y, x1, k]
            else:
                x0 = min(max(x - 1, 0), width - 1)
                x1 = min(max(x, 0), width - 1)
                x2 = min(max(x + 1, 0), width - 1)
                x3 = min(max(x + 2, 0), width - 1)
                t0, t1, t2, t3 = TAPS[part_x, 0], TAPS[part_x, 1], TAPS[part_x, 2], TAPS[part_x, 3]
                for k in range(components):
                    rows[j, i, k] = (
                        t0 * reference[y, x0, k]
                        + t1 * reference[y, x1, k]
                        + t2 * reference[y, x2, k]
                        + t3 * reference[y, x3, k]
                        + 128
                    ) >> 8
    if part_y == 0:
        for j in range(4):
            for i in range(4):
                for k in range(components):
                    block[j, i, k] = min(max(rows[j, i, k], -32768), 32767)
        return
    t0, t1, t2, t3 = TAPS[part_y, 0], TAPS[part_y, 1], TAPS[part_y, 2], TAPS[part_y, 3]
    for j in range(4):
        for i in range(4):
            for k in range(components):
                value = (
                    t0 * rows[j, i, k]
                    + t1 * rows[j + 1, i, k]
                    + t2 * rows[j + 2, i, k]
                    + t3 * rows[j + 3, i, k]
                    + 128
                ) >> 8
                block[j, i, k] = min(max(value, -32768), 32767)


@_kernel(void(_READ, Array(int8, 2, "C", readonly=True), _SAMPLES))
def compensate(reference: Samples, vectors: Vectors, prediction: Samples) -> None:
    """Fill prediction (H, W, K) from the reference, each block moved by its vector."""
    _, width, components = reference.shape
    across = width // 4
    rows = np.empty((7, 4, components), np.int32)
    block = np.empty((4, 4, components), np.int32)
    for b in range(vectors.shape[0]):
        top, left = 4 * (b // across), 4 * (b % across)
        down, right = np.int64(vectors[b, 0]), np.int64(vectors[b, 1])
        if down == 0 and right == 0:
            for j in range(4):
                for i in range(4):
                    for k in range(components):
                        prediction[top + j, left + i, k] = reference[top + j, left + i, k]
            continue
        _predict_block(reference, top, left, down, right, rows, block, components)
        for j in range(4):
            for i in range(4):
                for k in range(components):
                    prediction[top + j, left + i, k] = block[j, i, k]


@numba.njit(nogil=True, cache=True, forceinline=True)
def _distance_whole(
    current: Samples, reference: Samples, top: int, left: int, down: Int, right: Int
) -> np.int64:
    """Sum of absolute differences of a block from the reference moved by whole samples."""
    height, width, components = reference.shape
    total = np.int32(0)
    for j in range(4):
        y = min(max(top + down + j, 0), height - 1)
        for i in range(4):
            x = min(max(left + right + i, 0), width - 1)
            for k in range(components):
                total += abs(np.int32(current[top + j, left + i, k]) - np.int32(reference[y, x, k]))
    return np.int64(total)


@numba.njit(nogil=True, cache=True, forceinline=True)
def _distance(
    current: Samples, reference: Samples, top: int, left: int, down: Int, right: Int, rows: Ints, block: Ints
) -> np.int64:
    components = reference.shape[2]
    _predict_block(reference, top, left, down, right, rows, block, components)
    total = np.int32(0)
    for j in range(4):
        for i in range(4):
            for k in range(components):
                total += abs(np.int32(current[top + j, left + i, k]) - block[j, i, k])
    return np.int64(total)


@numba.njit(nogil=True, cache=True, forceinline=True)
def _vector_cost(down: Int, right: Int, left_vector: Vectors, above_vector: Vectors) -> int:
    """Bits, roughly, of a vector next to those of its neighbours."""
    if (down == left_vector[0] and right == left_vector[1]) or (
        down == above_vector[0] and right == above_vector[1]
    ):
        return 1
    return 10


@_kernel(int64(_READ, _READ, Array(int8, 2, "C"), Array(int64, 1, "C"), int64, int64))
def search(
    current: Samples,
    reference: Samples,
    vectors: Vectors,
    differences: NDArray[np.int64],
    bit_cost: int,
    refine: int,
) -> np.int64:
    """Find each block's vector and the sum of the absolute differences that it leaves; returns their total.

    `current` and `reference` (H, W, N) hold the components to compare, `bit_cost` is what a bit weighs in a sum of
    absolute differences. refine: -1 no motion at all, 0 whole samples, 1 halves, 2 quarters.
    """
    _, width, components = reference.shape
    across = width // 4
    rows = np.empty((7, 4, components), np.int32)
    block = np.empty((4, 4, components), np.int32)
    none = np.zeros(2, np.int8)
    remaining = np.int64(0)
    for b in range(vectors.shape[0]):
        top, left = 4 * (b // across), 4 * (b % across)
        left_vector = vectors[b - 1] if b % across else none
        above_vector = vectors[b - across] if b >= across else none
        best_down, best_right = np.int64(0), np.int64(0)
        best_difference = _distance_whole(current, reference, top, left, 0, 0)
        best = best_difference + bit_cost * _vector_cost(0, 0, left_vector, above_vector)
        still = refine < 0 or best_difference <= 4 * bit_cost
        if not still:
            for candidate in range(2):
                vector = left_vector if candidate == 0 else above_vector
                down, right = np.int64(vector[0]), np.int64(vector[1])
                if down == 0 and right == 0:
                    continue
                difference = _distance(current, reference, top, left, down, right, rows, block)
                cost = difference + bit_cost * _vector_cost(down, right, left_vector, above_vector)
                if cost < best:
                    best, best_difference, best_down, best_right = cost, difference, down, right
            for i in range(-2, 3):
                for j in range(-2, 3):
                    if i == 0 and j == 0:
                        continue
                    difference = _distance_whole(current, reference, top, left, i, j)
                    down, right = np.int64(4 * i), np.int64(4 * j)
                    cost = difference + bit_cost * _vector_cost(down, right, left_vector, above_vector)
                    if cost < best:
                        best, best_difference, best_down, best_right = cost, difference, down, right
            stride = 2
            for _ in range(refine):
                middle_down, middle_right = best_down, best_right
                for i in range(-1, 2):
                    for j in range(-1, 2):
                        down, right = middle_down + stride * i, middle_right + stride * j
                        if (i == 0 and j == 0) or max(abs(down), abs(right)) > MAX_VECTOR:
                            continue
                        difference = _distance(current, reference, top, left, down, right, rows, block)
                        cost = difference + bit_cost * _vector_cost(down, right, left_vector, above_vector)
                        if cost < best:
                            best, best_difference, best_down, best_right = cost, difference, down, right
                stride //= 2
        vectors[b, 0], vectors[b, 1] = best_down, best_right
        differences[b] = best_difference
        remaining += best_difference
    return remaining


@_kernel(uint32(_READ))
def checksum(planes: Samples) -> np.uint32:
    """Sum of every sample, as 16 bits without sign, times twice its place plus one, modulo 2**32."""
    flat = planes.reshape(-1)
    total = np.uint32(0)
    for i in range(flat.size):
        total += np.uint32(np.uint16(flat[i])) * np.uint32(2 * i + 1)
    return total


@_kernel(int64(_READ))
def magnitude(samples: Samples) -> np.int64:
    """Sum of the magnitudes of samples (H, W, N)."""
    height, width, components = samples.shape
    total = np.int64(0)
    for y in range(height):
        for x in range(width):
            for k in range(components):
                total += abs(np.int32(samples[y, x, k]))
    return total


@_kernel(void(_READ, _READ, Array(int64, 1, "C")))
def block_differences(current: Samples, last: Samples, differences: NDArray[np.int64]) -> None:
    """Sum of absolute differences of each block between two frames (H, W, N)."""
    across = current.shape[1] // 4
    for b in range(differences.size):
        differences[b] = _distance_whole(current, last, 4 * (b // across), 4 * (b % across), 0, 0)
