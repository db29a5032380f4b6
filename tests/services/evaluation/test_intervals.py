"""Intervals of ratios that are known, on made-up pictures, and how pictures and segments are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from services.evaluation import intervals
from services.evaluation.codec_sets import parse_codecs
from services.evaluation.intervals import FEWEST, SEGMENT, choices, rates_against
from services.evaluation.scores import Measured, Scores
from stream.detections import Detections

PICTURES = 40
QUALITIES = (30, 50, 70, 90)
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def measured(spec, sizes, distortions, sequences=None, agreement=None):
    (codec,) = parse_codecs([spec])
    scores = Scores(
        frames=len(sizes),
        distortions=list(distortions),
        sequences=list(range(len(sizes))) if sequences is None else list(sequences),
        frame_bytes=[round(size) for size in sizes],
        frame_is_key=[True] * len(sizes),
    )
    for number in range(len(sizes)):
        scores.agreement.add(*(agreement[number] if agreement else (NOTHING, NOTHING)))
    return Measured(codec, scores)


def two_codecs(seed, spread=0.05, factor=0.9, pictures=PICTURES):
    """Curves of jpeg, and of webp, which takes `factor` of its bytes for the same distortion, but for the spread.

    Pictures differ by as much as real ones: the dearest takes tens of times the bytes of the cheapest.
    """
    generator = np.random.default_rng(seed)
    hardness = np.exp(generator.normal(0, 0.8, pictures))
    own = np.exp(generator.normal(-(spread**2) / 2, spread, pictures))
    jpeg, webp = [], []
    for quality in QUALITIES:
        sizes, damage = 1e4 * hardness * quality, 100 * hardness / quality
        jpeg.append(measured(f"jpeg:quality={quality}", sizes, damage))
        webp.append(measured(f"webp:quality={quality}", factor * own * sizes, damage))
    return jpeg, webp


def by_distortion(reference, others):
    (comparison,) = rates_against("jpeg", reference, others)
    assert (comparison.codec, comparison.against, comparison.quality) == ("webp", "jpeg", "distortion")
    return comparison


def test_an_exact_ratio_has_an_interval_without_width():
    comparison = by_distortion(*two_codecs(0, spread=0))
    ratio = comparison.mean
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((0.9, 0.9, 0.9), abs=1e-3)
    assert [each.setting for each in comparison.at] == [f"jpeg:quality={quality}" for quality in QUALITIES]
    assert all(each.ratio.ratio == pytest.approx(0.9, abs=1e-3) for each in comparison.at)


def test_pairing_keeps_what_pictures_differ_in_out_of_the_interval():
    ratio = by_distortion(*two_codecs(0, spread=0.05)).mean
    assert ratio.low < ratio.ratio < ratio.high
    assert ratio.high - ratio.low < 0.06  # where sizes themselves are known to some 20 %


def test_the_interval_covers_the_known_ratio(monkeypatch):
    """Nine in ten should; of 60, fewer than 45 or all would come once in thousands of correct programs."""
    monkeypatch.setattr(intervals, "CHOICES", 200)
    covered = 0
    for seed in range(60):
        ratio = by_distortion(*two_codecs(seed, spread=0.1)).mean
        covered += ratio.low <= 0.9 <= ratio.high
    assert 45 <= covered < 60


def test_the_same_measurement_has_the_same_interval():
    assert by_distortion(*two_codecs(1)) == by_distortion(*two_codecs(1))


def test_a_single_setting_is_compared_at_its_own_quality():
    jpeg, webp = two_codecs(0, spread=0)
    for reference, others, setting in (
        (jpeg, webp[1:2], "webp:quality=50"),
        (jpeg[1:2], webp, "jpeg:quality=50"),
    ):
        comparison = by_distortion(reference, others)
        assert comparison.mean is None
        assert [each.setting for each in comparison.at] == [setting]
        assert comparison.at[0].ratio.ratio == pytest.approx(0.9, abs=1e-3)


def test_codecs_that_reach_no_common_quality_have_no_ratio():
    jpeg, webp = two_codecs(0)
    assert rates_against("jpeg", jpeg[:2], webp[2:]) == []


def test_differences_are_compared_by_themselves():
    """Keyframes cost the same here, and differences a tenth."""
    jpeg, webp = two_codecs(0, spread=0, factor=1.0)
    for each in (*jpeg, *webp):
        each.scores.sequences = [number // 2 for number in range(PICTURES)]
        each.scores.frame_is_key = [True, False] * (PICTURES // 2)
    for each in webp:
        sizes = each.scores.frame_bytes
        each.scores.frame_bytes = [size // (1 + 9 * (number % 2)) for number, size in enumerate(sizes)]
    whole, differences = rates_against("jpeg", jpeg, webp)
    assert (whole.frames, differences.frames) == ("all", "differences")
    assert differences.mean.ratio == pytest.approx(0.1, abs=1e-3)
    assert 0.4 < whole.mean.ratio < 0.7


def test_without_a_reference_there_is_nothing():
    assert rates_against("", [], two_codecs(0)[0]) == []


def test_few_pictures_have_a_ratio_but_no_interval():
    comparison = by_distortion(*two_codecs(0, pictures=FEWEST - 1))
    assert comparison.mean.ratio > 0
    assert comparison.mean.low is comparison.mean.high is None


def test_agreement_is_compared_too():
    """Finer settings find more objects; the other codec finds as many at three quarters of the bytes."""
    generator = np.random.default_rng(0)
    boxes = generator.uniform(0, 200, (PICTURES, 3, 2)).astype(np.float32)
    truths = [
        Detections(np.hstack([corner, corner + 50]), np.ones(3, np.float32), np.zeros(3, np.int64))
        for corner in boxes
    ]
    moved = generator.normal(0, 1, (PICTURES, 3, 4)).astype(np.float32)
    families = {"jpeg": 1.0, "webp": 0.75}
    jpeg, webp = (
        [
            measured(
                f"{name}:quality={quality}",
                np.full(PICTURES, factor * quality * 1e4),
                np.full(PICTURES, 100 / quality),
                agreement=[
                    (Detections(truth.boxes + 80 / quality * move, truth.confidence, truth.class_id), truth)
                    for truth, move in zip(truths, moved, strict=True)
                ],
            )
            for quality in QUALITIES
        ]
        for name, factor in families.items()
    )
    comparisons = {each.quality: each for each in rates_against("jpeg", jpeg, webp)}
    assert comparisons["agreement"].mean.ratio == pytest.approx(0.75, abs=0.01)
    assert comparisons["distortion"].mean.ratio == pytest.approx(0.75, abs=0.01)


def test_an_interval_leaves_out_a_twentieth_at_either_end():
    ratio = intervals._ratio([50.5, *map(float, range(101))])
    assert (ratio.ratio, ratio.low, ratio.high) == (50.5, 5, 95)


@pytest.mark.parametrize(("there", "known"), [(89, False), (90, True)])
def test_an_interval_needs_a_ratio_in_nine_choices_of_ten(there, known):
    ratio = intervals._ratio([1.0] * (1 + there) + [np.nan] * (100 - there))
    assert (ratio.low is not None, ratio.high is not None) == (known, known)


class TestChoices:
    def test_pictures_are_drawn_whole(self):
        weights, of_bytes = choices([0] * 3 + [1] * 3 + [2] * 2 + list(range(3, 12)))
        assert weights[0].tolist() == [1] * 17
        np.testing.assert_array_equal(weights, of_bytes)
        for first, last in ((0, 2), (3, 5), (6, 7)):
            np.testing.assert_array_equal(weights[:, first], weights[:, last])
        assert weights[1:, ::1].mean() == pytest.approx(1, abs=0.05)

    def test_a_clip_is_drawn_by_segments_and_its_keyframe_always_counts_once(self):
        frames = 10 * SEGMENT + 4
        weights, of_bytes = choices([7] * frames)
        for number in range(9):
            segment = weights[:, number * SEGMENT : (number + 1) * SEGMENT]
            assert (segment == segment[:, :1]).all()
        assert (weights[:, 9 * SEGMENT :] == weights[:, -1:]).all()
        assert set(of_bytes[:, 0]) == {1}
        assert weights[:, 0].max() > 1
        np.testing.assert_array_equal(weights[:, 1:], of_bytes[:, 1:])

    def test_a_short_clip_cannot_be_chosen_from(self):
        assert len(choices([0] * (SEGMENT * FEWEST - 1))[0]) == 1
        assert len(choices([0] * SEGMENT * FEWEST)[0]) == 1 + intervals.CHOICES
