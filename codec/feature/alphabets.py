"""Alphabets of the range coder: how many symbols each has, and the shares that they start with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 16  # of an alphabet
LEAST_SHARE = 8  # of a symbol, in 1/32768


def cumulative_shares(counts: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.uint16]:
    """Share of all smaller symbols, for each symbol of each row, in 1/32768: no symbol has less than LEAST_SHARE."""
    shares = (counts + 1e-9) / (counts + 1e-9).sum(1, keepdims=True)
    starts = np.cumsum(shares, 1) - shares
    bounds = np.floor(starts * (32768 - SYMBOLS * LEAST_SHARE)) + np.arange(SYMBOLS) * LEAST_SHARE
    rounded: NDArray[np.uint16] = bounds.astype(np.uint16)
    return rounded
