"""Average precision of detections where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from services.evaluation.agreement import CEILING, Precision, PrecisionMeter, confident
from stream.detections import Detections


def detections(*rows):
    """Each row: left, top, right, bottom, confidence, class; the most confident first."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4].copy(), values[:, 4].copy(), values[:, 5].astype(np.int64))


def measured(*frames):
    meter = PrecisionMeter()
    for detected, truth in frames:
        meter.add(detected, truth)
    return meter


BOX = (10, 20, 110, 120)
PERSON = detections((*BOX, 0.9, 0))
NOTHING = detections()


class TestAgreement:
    def test_what_is_found_again_exactly_is_at_the_ceiling(self):
        frame = detections((*BOX, 0.9, 0), (200, 20, 230, 90, 0.8, 0), (*BOX, 0.5, 7))
        found = measured((frame, frame), (PERSON, PERSON))
        assert found.objects == 4
        for precision in (found.over_objects(), found.over_classes()):
            assert precision == Precision(pytest.approx(CEILING), pytest.approx(CEILING))

    @pytest.mark.parametrize(
        "found",
        [
            NOTHING,
            detections((*BOX, 0.9, 1)),  # another class
            detections((10, 20, 59, 120, 0.9, 0)),  # IoU .49
        ],
    )
    def test_what_is_missed_counts_nothing(self, found):
        assert measured((found, PERSON)).over_objects() == Precision(0, 0)

    @pytest.mark.parametrize(("width", "thresholds"), [(51, 1), (72, 5), (94, 9), (96, 10)])
    def test_a_box_counts_at_the_thresholds_that_it_reaches(self, width, thresholds):
        """The object is 100 wide, so a box of `width` within it has an IoU of width / 100."""
        found = detections((10, 20, 10 + width, 120, 0.9, 0))
        precision = measured((found, PERSON)).over_objects()
        assert precision == Precision(pytest.approx(CEILING * thresholds / 10), pytest.approx(CEILING))

    def test_objects_weigh_alike_in_one_mean_and_classes_in_the_other(self):
        three = [(200 * left, 0, 200 * left + 100, 50, 0.9, 4) for left in range(3)]
        found = measured((detections(*three), detections(*three, (*BOX, 0.9, 5))))
        assert found.over_objects().ap == pytest.approx(CEILING * 3 / 4)
        assert found.over_classes().ap == pytest.approx(CEILING / 2)

    def test_a_false_detection_costs_only_where_it_is_the_more_confident(self):
        def precision(confidence):
            false = detections((300, 0, 400, 50, confidence, 0))
            return measured((PERSON, PERSON), (false, NOTHING)).over_objects().ap

        assert precision(0.8) == pytest.approx(CEILING)
        assert precision(0.95) == pytest.approx(CEILING / 2, abs=0.01)

    def test_an_object_is_found_once(self):
        """Of two objects one is found twice: full precision up to a recall of one half, and no further."""
        twice = detections((*BOX, 0.9, 0), (*BOX, 0.8, 0))
        precision = measured((twice, detections((*BOX, 1, 0), (300, 0, 400, 50, 1, 0)))).over_objects()
        assert precision.ap == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize(
        ("box", "kind", "ignored"),
        [
            ((300, 0, 400, 50), 0, 10),  # all of it in the crowd
            ((300, 0, 400, 100), 0, 1),  # half of it
            ((300, 0, 400, 69), 0, 5),  # .72 of it
            ((300, 0, 400, 110), 0, 0),
            ((300, 0, 400, 50), 1, 0),  # a crowd of another class
            ((600, 0, 700, 50), 0, 0),
        ],
    )
    def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(self, box, kind, ignored):
        """A false detection above the true one halves the precision at every threshold where it counts."""
        crowd = detections((250, 0, 500, 50, 1, kind))
        found = PrecisionMeter()
        found.add(detections((*box, 0.95, 0), (*BOX, 0.9, 0)), PERSON, crowd)
        counted = (CEILING * ignored + CEILING / 2 * (10 - ignored)) / 10
        assert found.over_objects().ap == pytest.approx(counted, abs=0.01)

    def test_an_object_in_a_crowd_is_an_object(self):
        found = PrecisionMeter()
        found.add(PERSON, PERSON, detections((0, 0, 500, 500, 1, 0)))
        assert found.objects == 1
        assert found.over_objects().ap == pytest.approx(CEILING)

    def test_without_objects_there_is_none(self):
        found = measured((PERSON, NOTHING), (NOTHING, NOTHING))
        assert found.over_objects() is found.over_classes() is None

    def test_only_confident_detections_are_the_truth(self):
        frame = detections((*BOX, 0.9, 0), (*BOX, 0.31, 1), (*BOX, 0.3, 2), (*BOX, 0.1, 3))
        assert confident(frame).class_id.tolist() == [0, 1]
