"""What the levels of a block are expected to be by those around it, and so the contexts that they are coded by."""

# ruff: noqa: PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.feature.contexts import CLASSES, SIGN
from codec.jit import Int, Ints, inlined

Signs: TypeAlias = NDArray[np.int8]

SHOWN_WEIGHT = 8  # in 1/256: half of what a block has shown, from its 1/256 octaves to the 1/16 of steps
UNSEEN = 32  # by how much smaller than its step a block without levels is taken to be, in 1/16 octaves


@inlined
def magnitude_log(magnitude: Int) -> np.int32:
    """Sixteenths of an octave from 1 to a magnitude of less than 2**24, linear between powers of two."""
    bounded = np.float32(min(max(np.int32(magnitude), np.int32(1)), np.int32((1 << 24) - 1)))
    return np.int32((bounded.view(np.int32) >> np.int32(19)) - np.int32(2032))


@inlined
def magnitude_class(expected: Int, step: Int) -> np.int32:
    """Context of a magnitude expected to be `expected`/256 units, when the step is 2**(step/16) units."""
    index = (magnitude_log(expected) - np.int32(16) - np.int32(step)) >> np.int32(2)
    return np.int32(min(max(index, np.int32(0)), np.int32(CLASSES - 1)))


@inlined
def sign_context(signs: Signs, b: int, stride: int) -> Int:
    """Context of the sign at the first frequency, by those of the left and the upper neighbor."""
    return SIGN + 2 + np.int64(signs[b - 1] + signs[b - stride])


@inlined
def learn_shown(shown: Ints, b: int, log: Int, prior_log: Int) -> None:
    """Remember how much larger than its prior a component of a block turned out to be, both as logarithms."""
    shown[b] += (np.int32(16) * np.int32(log - prior_log) - shown[b]) >> np.int32(3)


@inlined
def shown_step(step: Int, weight: Int, shown: Ints, b: int) -> np.int32:
    """The step to take classes by: finer where the block's components so far were larger than their priors.

    Differences of five clips are .4 to 3 % smaller for it at quality 5, keyframes .3 %.
    """
    return np.int32(np.int32(step) - (np.int32(weight) * shown[b] >> np.int32(8)))


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
