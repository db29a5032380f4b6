"""Matches by frame give the same average precision as COCO's protocol, for all frames and for any choice of them."""

from __future__ import annotations

import numpy as np
import pytest

from services.evaluation.agreement import PrecisionMeter
from services.evaluation.matches import Matches
from stream.detections import Detections

KINDS = 4
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def frame(generator):
    """Objects, and detections near some of them, doubled, moved, of a wrong class or of nothing."""
    objects = generator.integers(0, 7)
    corner = generator.uniform(0, 300, (objects, 2))
    boxes = np.hstack([corner, corner + generator.uniform(20, 120, (objects, 2))]).astype(np.float32)
    kinds = generator.integers(0, KINDS, objects)
    truth = Detections(boxes, np.ones(objects, np.float32), kinds)
    copies = generator.integers(0, objects, 3 * objects) if objects else np.zeros(0, np.int64)
    moved = boxes[copies] + generator.normal(0, 6, (len(copies), 4)).astype(np.float32)
    wrong = generator.random(len(copies)) < 0.2
    found = np.where(wrong, generator.integers(0, KINDS, len(copies)), kinds[copies])
    confidence = generator.choice(np.linspace(0.01, 0.99, 40), len(copies)).astype(np.float32)
    order = np.argsort(-confidence, kind="stable")
    return Detections(moved[order], confidence[order], found[order]), truth


def frames(seed, count):
    generator = np.random.default_rng(seed)
    return [frame(generator) for _ in range(count)]


def by_coco(chosen):
    meter = PrecisionMeter()
    for detections, truth in chosen:
        meter.add(detections, truth)
    precision = meter.over_objects()
    return precision.ap if precision else np.nan


@pytest.mark.parametrize("seed", range(8))
def test_all_frames_give_what_coco_gives(seed):
    given = frames(seed, 12)
    (agreement,) = Matches(given).agreement(np.ones((1, 12)))
    assert agreement == pytest.approx(by_coco(given), abs=1e-9)


def test_any_choice_of_frames_gives_what_coco_gives_for_it():
    given = frames(99, 9)
    generator = np.random.default_rng(0)
    choices = np.array([np.bincount(generator.integers(0, 9, 9), minlength=9) for _ in range(6)], float)
    expected = [by_coco([given[n] for n in range(9) for _ in range(int(choice[n]))]) for choice in choices]
    # A frame that counts twice is matched twice, whose detections are equally confident: COCO then sees one
    # after the other what counts together here.
    np.testing.assert_allclose(Matches(given).agreement(choices), expected, atol=0.01)


def test_a_choice_without_objects_has_none():
    given = [*frames(5, 6), (frame(np.random.default_rng(0))[0], NOTHING)]
    assert np.isnan(Matches(given).agreement(np.eye(7)[[6]])).all()


def test_exact_copies_are_at_the_ceiling():
    given = [(truth, truth) for _, truth in frames(3, 5)]
    choices = np.array([[1, 1, 1, 1, 1], [3, 0, 2, 0, 1]], float)
    np.testing.assert_allclose(Matches(given).agreement(choices), 1)


def test_frames_without_any_detection():
    given = [(NOTHING, truth) for _, truth in frames(3, 5)]
    np.testing.assert_array_equal(Matches(given).agreement(np.ones((2, 5))), 0)
