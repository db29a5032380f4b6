"""The distortion is 0 for a copy, grows with damage without jumps, and does not see what nobody would."""

from __future__ import annotations

import numpy as np
import pytest

from services.evaluation.distortion import FLOOR, ScoredAnchors, distortion
from stream.network.levels import BINS, Levels

CLASSES = 3
ANCHORS = (((16.0, 30.0), (33.0, 23.0)), ((62.0, 45.0), (59.0, 119.0)))
ANCHOR_BASED = Levels("yolov5", CLASSES, (8, 16), ANCHORS)
ANCHOR_FREE = Levels("yolov5u", CLASSES, (8, 16))
FAMILIES = pytest.mark.parametrize("levels", [ANCHOR_BASED, ANCHOR_FREE], ids=lambda levels: levels.family)


def logits_of(levels, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    shapes = ((levels.channels, 8, 12), (levels.channels, 4, 6))
    return tuple(generator.standard_normal(shape).astype(np.float32) * np.float32(scale) for shape in shapes)


def damaged(logits, levels, amount):
    noise = logits_of(levels, seed=1)
    return tuple(
        level + np.float32(amount) * change.reshape(level.shape)
        for level, change in zip(logits, noise, strict=True)
    )


def measure(before, after, levels):
    return distortion(ScoredAnchors.of(before, levels), after, levels)


def one_box(levels, score, shift=0.0):
    """Logits of a picture in which one anchor of the first level scores `score` in class 1, and no other anything.

    `shift` moves the box's center to the right (YOLOv5) or its right side (YOLOv5u).
    """
    logits = []
    for number, (height, width) in enumerate(((8, 12), (4, 6))):
        level = np.zeros(
            (levels.anchors_per_level, levels.channels // levels.anchors_per_level, height, width)
        )
        level[:, levels.box_channels :] = -30.0
        if number == 0:
            anchor = level[0, :, 3, 5]
            first_class = levels.box_channels + (levels.family == "yolov5")
            anchor[levels.box_channels : first_class] = 30.0
            anchor[first_class + 1] = np.log(score / (1 - score))
            anchor[0 if levels.family == "yolov5" else 2 * BINS + BINS - 1] = shift
        logits.append(level.reshape(levels.channels, height, width).astype(np.float32))
    return tuple(logits)


def hellinger(some, other):
    return np.sqrt(1 - np.sqrt(some * other) - np.sqrt((1 - some) * (1 - other)))


@FAMILIES
def test_a_copy_has_none(levels):
    logits = logits_of(levels)
    assert len(ScoredAnchors.of(logits, levels)) > 100
    assert measure(logits, tuple(level.copy() for level in logits), levels) == 0


@FAMILIES
def test_it_grows_with_damage(levels):
    logits = logits_of(levels)
    values = [
        measure(logits, damaged(logits, levels, amount), levels) for amount in (1e-3, 0.01, 0.1, 0.3, 1, 3)
    ]
    assert values == sorted(values)
    assert values[0] > 0


@FAMILIES
def test_small_damage_is_proportional_to_it(levels):
    """No threshold, no square and no jump: half the damage is half the distortion."""
    logits = logits_of(levels)
    values = [measure(logits, damaged(logits, levels, amount), levels) for amount in (0.005, 0.01, 0.02)]
    np.testing.assert_allclose(np.divide(values[1:], values[:-1]), 2, rtol=0.05)


@FAMILIES
def test_it_is_smooth_along_a_path_on_which_anchors_cross_the_floor(levels):
    steps = np.linspace(0, 1, 201)
    values = [measure(logits_of(levels), damaged(logits_of(levels), levels, step), levels) for step in steps]
    jumps = np.abs(np.diff(values))
    assert jumps.max() < 0.015 * values[-1]


@FAMILIES
def test_what_scores_below_the_floor_in_both_changes_nothing(levels):
    before, after = one_box(levels, 0.8), one_box(levels, 0.7)
    expected = measure(before, after, levels)
    first_class = levels.box_channels + (levels.family == "yolov5")
    for logits, score in ((before, 0.01), (after, 0.029)):
        other = logits[0].reshape(levels.anchors_per_level, -1, 8, 12)[-1, :, 6, 6]
        other[levels.box_channels : first_class] = 30.0
        other[first_class] = np.log(score / (1 - score))
        other[: levels.box_channels] = np.random.default_rng(3).standard_normal(levels.box_channels)
    assert measure(before, after, levels) == expected


@FAMILIES
@pytest.mark.parametrize(("before", "after"), [(0.8, 0.7), (0.8, 0.001), (0.001, 0.8), (0.04, 0.02)])
def test_classes_count_by_hellinger_distance_from_the_floor_on(levels, before, after):
    """What the codec raises counts as what it loses."""
    expected = hellinger(max(before, FLOOR), max(after, FLOOR))
    assert measure(one_box(levels, before), one_box(levels, after), levels) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_box_counts_by_its_confidence_and_overlap():
    """The anchor is 16 wide and 30 high, and moved by a quarter of its width."""
    moved = np.log(0.75 / 0.25)  # sigmoid .75: from .5 to 1 cell, which is 4 pixels
    overlap = 12 / 20
    value = measure(one_box(ANCHOR_BASED, 0.8), one_box(ANCHOR_BASED, 0.8, shift=moved), ANCHOR_BASED)
    assert value == pytest.approx(0.8 * (1 - overlap), rel=1e-4)


def test_a_side_of_an_anchor_free_box_counts_too():
    value = measure(one_box(ANCHOR_FREE, 0.8), one_box(ANCHOR_FREE, 0.8, shift=2.0), ANCHOR_FREE)
    assert 0 < value < 0.8


@FAMILIES
def test_a_picture_in_which_there_is_nothing(levels):
    empty = one_box(levels, 1e-6)
    assert len(ScoredAnchors.of(empty, levels)) == 0
    assert measure(empty, empty, levels) == 0
    assert measure(empty, one_box(levels, 0.5), levels) == pytest.approx(hellinger(FLOOR, 0.5))


@FAMILIES
def test_logits_that_are_not_finite_make_a_finite_distortion(levels):
    logits = logits_of(levels)
    for bad in (np.nan, np.inf, -np.inf):
        assert np.isfinite(measure(logits, tuple(np.full_like(level, bad) for level in logits), levels))
