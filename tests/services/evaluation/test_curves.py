"""Rates at equal quality, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from services.evaluation.curves import Curve, rate_ratio

STRAIGHT = Curve.through([(10, 0.8), (20, 0.9), (80, 0.95)])


@pytest.mark.parametrize(
    ("quality", "rate"),
    [
        (0.8, 10),
        (0.9, 20),
        (0.95, 80),
        (0.85, math.sqrt(10 * 20)),  # half way: the geometric mean
        (0.925, 40),
        (0.875, 10 * 2**0.75),
    ],
)
def test_the_logarithm_of_the_rate_runs_straight(quality, rate):
    assert STRAIGHT.rate_at(quality) == pytest.approx(rate)


@pytest.mark.parametrize("quality", [0.79, 0.951])
def test_nothing_is_said_of_what_was_not_measured(quality):
    assert STRAIGHT.rate_at(quality) is None


def test_the_order_of_the_settings_is_of_no_matter():
    assert Curve.through([(80, 0.95), (10, 0.8), (20, 0.9)]) == STRAIGHT


def test_a_setting_that_a_cheaper_one_equals_is_left_out():
    noisy = [(10, 0.8), (15, 0.8), (20, 0.9), (30, 0.88), (80, 0.95), (80, 0.94), (90, 0.95)]
    assert Curve.through(noisy) == STRAIGHT


def test_a_curve_of_one_setting_is_known_there_alone():
    curve = Curve.through([(7, 0.9)])
    assert curve.rate_at(0.9) == pytest.approx(7)
    assert curve.rate_at(0.89) is curve.rate_at(0.91) is None
    assert rate_ratio(curve, STRAIGHT, 0, 1) is None


def test_a_curve_of_nothing():
    curve = Curve.through([])
    assert curve.rate_at(0.9) is None
    assert rate_ratio(curve, STRAIGHT, 0, 1) is None
    assert rate_ratio(STRAIGHT, curve, 0, 1) is None


class TestRatio:
    def test_half_the_bytes_everywhere(self):
        half = Curve.through([(5, 0.8), (10, 0.9), (40, 0.95)])
        found = rate_ratio(half, STRAIGHT, 0.7, 0.98)
        assert (found.low, found.high) == (0.8, 0.95)
        assert found.ratio == pytest.approx(0.5)
        assert rate_ratio(STRAIGHT, half, 0.7, 0.98).ratio == pytest.approx(2)

    def test_it_is_the_mean_of_logarithms_over_quality(self):
        """Against a constant ln 20: ln 10 to ln 20 over .8 to .9 gives (ln 1/2) / 2, over .9 to .95 (ln 4) / 2."""
        flat = Curve.through([(20, 0.8), (20 * (1 + 1e-12), 0.95)])
        expected = (0.1 * math.log(1 / 2) / 2 + 0.05 * math.log(4) / 2) / 0.15
        assert rate_ratio(STRAIGHT, flat, 0, 1).ratio == pytest.approx(math.exp(expected))

    def test_only_the_range_that_is_asked_for_counts(self):
        flat = Curve.through([(20, 0.8), (20 * (1 + 1e-12), 0.95)])
        found = rate_ratio(STRAIGHT, flat, 0.9, 0.925)
        assert (found.low, found.high) == (0.9, 0.925)
        assert found.ratio == pytest.approx(math.sqrt(2))  # from 1 to 2, half way in logarithms

    def test_bends_of_either_curve_count(self):
        bent = Curve.through([(10, 0.8), (40, 0.85), (80, 0.95)])
        ours = rate_ratio(bent, Curve.through([(10, 0.8), (80, 0.95)]), 0, 1)
        # The other passes .85 at 10 * 8 ** (1 / 3) = 20: a triangle of height ln 2 over all of the range.
        assert ours.ratio == pytest.approx(math.sqrt(2))

    def test_curves_without_a_quality_in_common(self):
        assert rate_ratio(STRAIGHT, Curve.through([(1, 0.96), (2, 0.99)]), 0, 1) is None
        assert rate_ratio(STRAIGHT, STRAIGHT, 0.96, 0.98) is None
