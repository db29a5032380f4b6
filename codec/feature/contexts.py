"""The contexts of the feature codec: what a block's steps, vector and levels are coded by (docs/bitstream.md)."""

# ruff: noqa: PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.feature.range_coder import SYMBOLS, cumulative_shares
from codec.jit import Int, Ints, inlined

Signs: TypeAlias = NDArray[np.int8]

CLASSES = 48  # of an expected magnitude, a quarter of an octave each
COEFFICIENT_WEIGHTS = 5
BLOCK_WEIGHTS = 6
PREVIOUS_LEVEL = 60  # weights of a block's magnitudes in the last frame, which no still picture tells
PREVIOUS_BLOCK = 60
MAX_CHANGE = 12  # of a block's step from the frame's, in quarters of an octave
MAX_VECTOR = 8  # of a block, in quarters of a sample, in each direction

# Where each set of binary contexts starts in the table of probabilities.
PLANE = 0  # is a component's plane all zero, by the class of its prior
BLOCK = PLANE + CLASSES  # does a block have levels
SIGN = BLOCK + CLASSES  # of the first frequency, by its neighbors' signs
STEP = SIGN + 5  # a block's step against the one expected; keyframes, then differences
SKIP = STEP + 2 * (3 + 1 + 2 * MAX_CHANGE)
MOTION = SKIP + 3  # does anything move, is a vector its left or its upper neighbor's, and trees of 32
CONTEXTS = MOTION + 3 + 64

# Where each set of alphabets starts in the table of distributions.
LAST = 0  # position of the last level of a block
FIRST = LAST + CLASSES  # magnitude at the first frequency
OTHER = FIRST + CLASSES  # at the others
END = OTHER + CLASSES  # magnitude less one of the last level
ALPHABETS = END + CLASSES

# Frequencies of a 4x4 block in zigzag order, as (horizontal, vertical).
ZIGZAG: tuple[tuple[int, int], ...] = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (3, 0), (2, 1))
ZIGZAG += ((1, 2), (0, 3), (1, 3), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3))


@inlined
def magnitude_class(expected: Int, step: Int) -> np.int32:
    """Context of a magnitude expected to be `expected`/256 units, when the step is 2**(step/16) units."""
    bounded = np.float32(min(max(np.int32(expected), np.int32(1)), np.int32((1 << 24) - 1)))
    log = (bounded.view(np.int32) >> np.int32(19)) - np.int32(2032)  # 16 log2, linear between powers of two
    index = (log - np.int32(16) - np.int32(step)) >> np.int32(2)
    return np.int32(min(max(index, np.int32(0)), np.int32(CLASSES - 1)))


@inlined
def sign_context(signs: Signs, b: int, stride: int) -> Int:
    """Context of the sign at the first frequency, by those of the left and the upper neighbor."""
    return SIGN + 2 + np.int64(signs[b - 1] + signs[b - stride])


@inlined
def expected_block(
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
def classify_levels(
    classes: Ints,
    weights: Ints,
    prior: Ints,
    k: Int,
    magnitudes: Ints,
    energy: Int,
    step: Int,
    now: Int,
    before: Int,
    p: Int,
    stride: Int,
) -> None:
    """Class of each of a block's 16 magnitudes, by its neighbors, the component before and the last frame."""
    outside = np.int32(energy) >> np.int32(4)
    for f in range(classes.size):
        classes[f] = magnitude_class(
            weights[0, f] * prior[k, f]
            + weights[1, f] * (magnitudes[now, p - 1, f] + magnitudes[now, p - stride, f])
            + weights[2, f] * (magnitudes[now, p - stride - 1, f] + magnitudes[now, p - stride + 1, f])
            + weights[3, f] * magnitudes[before, p, f]
            + weights[4, f] * outside,
            step,
        )


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


def _class_means() -> NDArray[np.float64]:
    """Magnitude that each class stands for, in steps."""
    means: NDArray[np.float64] = 2.0 ** ((4 * np.arange(CLASSES) + 2 - 112) / 16)
    return means
