"""A frame before it is coded: what no reference frame can hold is cut off, and what bits are worth."""

from __future__ import annotations

import numpy as np
import pytest

from codec.feature.analysis import FrameAnalysis, _any_far
from codec.feature.group import groups_of
from codec.feature.transform import rounding
from tests.codec.calibrated import make_profile
from tests.codec.feature.streams import SMALL

FAR = 2.0**20


@pytest.fixture
def analysis():
    (group,) = groups_of(make_profile(SMALL), SMALL)
    return FrameAnalysis(group, 1)


@pytest.mark.parametrize("far", [FAR + 1, -FAR - 1, np.inf, -np.inf, np.nan, -np.nan])
def test_far_is_what_is_beyond_20_bits_on_either_side(far):
    samples = np.array([0, FAR, -FAR, 1e-30, -0.0], np.float32)
    assert not _any_far(samples)
    samples[3] = far
    assert _any_far(samples)


def test_components_that_overflow_are_finite_and_bounded(analysis):
    (spec,) = SMALL
    signs = np.random.default_rng(0).choice((-1, 1), spec.shape)
    analysis.stack({spec: np.float32(3e38) * signs.astype(np.float32).reshape(-1)})
    analysis.transform()
    assert np.abs(analysis._samples).max() == FAR


def test_components_are_looked_at_where_any_may_be_far(analysis):
    """As far as the magnitudes of a frame tell, whatever its signs are."""
    (spec,) = SMALL
    forward = analysis._group.profile.forward
    worst = np.sign(forward[np.abs(forward).sum(1).argmax()])
    frame = np.broadcast_to(worst[:, None, None], spec.shape).astype(np.float32)
    reach = FAR / np.abs(forward).sum(1).max()
    for share, may_be_far in ((0.45, False), (0.55, True), (1.1, True), (np.inf, True), (np.nan, True)):
        analysis.stack({spec: (np.float32(share * reach) * frame).reshape(-1)})
        assert analysis._may_be_far == may_be_far
        if np.isfinite(share):
            analysis.transform()
            assert np.isclose(np.abs(analysis._samples).max(), min(share, 1) * FAR, rtol=1e-3)


def test_a_bit_of_a_difference_is_worth_more_than_one_of_a_keyframe(analysis):
    prior = analysis._group.key_prior
    for step in (100, 104):
        for keyframe, worth in ((True, 0.02), (False, 0.1), (True, 0.02)):
            assert np.array_equal(analysis._rounding_of(keyframe, step), rounding(prior, step, worth))
