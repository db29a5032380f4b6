"""The contexts of the feature codec: what a block's steps, vector and levels are coded by (docs/bitstream.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.feature.alphabets import SYMBOLS, cumulative_shares

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
PROFILED = MOTION + 3 + 64  # those before start as a profile says, all further ones from 1/2
SHARP = PROFILED  # is any block interpolated by the sharper filter, is a block, by its neighbors
CONTEXTS = SHARP + 1 + 3
HALF = 1 << 14  # of a probability

# Where each set of alphabets starts in the table of distributions.
LAST = 0  # position of the last level of a block
FIRST = LAST + CLASSES  # magnitude at the first frequency
OTHER = FIRST + CLASSES  # at the others
END = OTHER + CLASSES  # magnitude less one of the last level
ALPHABETS = END + CLASSES

# Frequencies of a 4x4 block in zigzag order, as (horizontal, vertical).
ZIGZAG: tuple[tuple[int, int], ...] = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (3, 0), (2, 1))
ZIGZAG += ((1, 2), (0, 3), (1, 3), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3))


def default_probabilities() -> NDArray[np.uint16]:
    """P(0) of each binary context of a profile, in 1/32768, where nothing was measured: as of geometric levels."""
    shares = np.full(PROFILED, 0.5)
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
