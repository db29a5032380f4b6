"""The shares of an alphabet's symbols; what the coder writes and reads is tested with the levels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.feature.alphabets import LEAST_SHARE, SYMBOLS, cumulative_shares
from codec.feature.contexts import default_distributions
from tests.codec import reference_feature as reference


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=16, max_size=16), min_size=1, max_size=3))
def test_shares_follow_the_counts_and_none_is_less_than_the_least(counts):
    counts = np.array(counts, np.float64)
    starts = cumulative_shares(counts).astype(np.int64)
    shares = np.diff(np.pad(starts, ((0, 0), (0, 1)), constant_values=32768), axis=1)
    assert (starts[:, 0] == 0).all()
    assert (shares >= LEAST_SHARE).all()
    for row, share in zip(counts, shares, strict=True):
        if row.sum():
            assert np.abs(share - LEAST_SHARE - row / row.sum() * (32768 - SYMBOLS * LEAST_SHARE)).max() <= 2


@given(st.lists(st.integers(0, 15), max_size=400), st.integers(0, 128))
@settings(max_examples=30)
def test_alphabets_keep_their_least_share_whatever_they_learn(symbols, met):
    alphabet = reference.Alphabet(default_distributions()[60].astype(int).tolist(), met)
    for symbol in symbols:
        alphabet.adapt(symbol)
        assert alphabet[0] == 0
        assert min(np.diff([*alphabet, 32768])) >= LEAST_SHARE
