"""Predictions become detections in the frame's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream.letterbox import Letterbox
from stream.torch_network.nms import detect
from tests.stream.network.reference_boxes import predictions, suppressed
from tests.stream.network.test_boxes import ANCHOR_BASED, LETTERBOX, assert_same, noise

CANVAS = Letterbox((480, 640), (480, 640))


def prediction(*rows: tuple, classes: int = 3, columns: int = 50) -> torch.Tensor:
    """Boxes (x, y, w, h, class scores ...) among empty ones, as the networks give them."""
    result = torch.zeros(1, 4 + classes, columns)
    for column, row in enumerate(rows):
        result[0, :, column] = torch.tensor(row)
    return result


def test_one_box():
    found = detect(prediction((100, 50, 20, 10, 0.1, 0.9, 0.3)), CANVAS)
    assert found.boxes.tolist() == [[90, 45, 110, 55]]
    np.testing.assert_allclose(found.confidence, [0.9])
    assert found.class_id.tolist() == [1]
    assert (found.boxes.dtype, found.confidence.dtype, found.class_id.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert len(found) == 1


def test_nothing():
    found = detect(prediction(), CANVAS)
    assert found.boxes.shape == (0, 4)
    assert found.confidence.shape == found.class_id.shape == (0,)


def test_the_weaker_of_two_that_overlap_goes_unless_of_another_class():
    rows = [(100, 50, 20, 10, 0.9, 0, 0), (101, 50, 20, 10, 0.8, 0, 0), (101, 50, 20, 10, 0, 0.7, 0)]
    found = detect(prediction(*rows), CANVAS)
    np.testing.assert_allclose(found.confidence, [0.9, 0.7])
    assert found.class_id.tolist() == [0, 1]
    assert len(detect(prediction(*rows), CANVAS, iou=0.95)) == 3


def test_the_most_confident_come_first_and_the_rest_is_cut():
    rows = [(100 * i, 50, 20, 10, 0.3 + 0.1 * i, 0, 0) for i in range(1, 6)]
    found = detect(prediction(*rows), CANVAS, max_det=3)
    np.testing.assert_allclose(found.confidence, [0.8, 0.7, 0.6], rtol=1e-6)


def test_filters():
    rows = [(100, 50, 20, 10, 0.9, 0, 0), (300, 50, 20, 10, 0, 0.4, 0), (500, 50, 20, 10, 0, 0, 0.2)]
    assert detect(prediction(*rows), CANVAS).class_id.tolist() == [0, 1]
    assert detect(prediction(*rows), CANVAS, conf=0.5).class_id.tolist() == [0]
    assert detect(prediction(*rows), CANVAS, conf=0.1, classes=(1, 2)).class_id.tolist() == [1, 2]
    assert len(detect(prediction(*rows), CANVAS, classes=())) == 0


def test_multi_label_keeps_every_class():
    row = (100, 50, 20, 10, 0.9, 0.6, 0.1)
    assert detect(prediction(row), CANVAS, multi_label=True).class_id.tolist() == [0, 1]


def test_boxes_leave_the_letterbox():
    box = Letterbox((432, 768), (384, 640))  # scaled to 360 x 640, 12 rows of padding above
    found = detect(prediction((320, 192, 640, 360, 0.9, 0, 0)), box)
    np.testing.assert_allclose(found.boxes, [[0, 0, 768, 432]], atol=1e-3)


@pytest.mark.parametrize("columns", [5, 6, 7])
def test_six_columns_are_nothing_special(columns):
    found = detect(prediction((100, 50, 20, 10, 0.9, 0, 0), columns=columns), CANVAS)
    assert found.boxes.tolist() == [[90, 45, 110, 55]]


def test_the_prediction_is_left_alone():
    given = prediction((100, 50, 20, 10, 0.9, 0, 0))
    kept = given.clone()
    detect(given, CANVAS)
    assert torch.equal(given, kept)


def test_takes_what_a_tail_gives():
    with torch.inference_mode():
        given = prediction((100, 50, 20, 10, 0.9, 0, 0)) * 1
    assert len(detect(given, CANVAS)) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"conf": 0.001, "iou": 0.6, "multi_label": True}, {"classes": [1, 4], "max_candidates": 90}],
    ids=str,
)
def test_finds_what_ultralytics_finds(options):
    given = predictions(noise(ANCHOR_BASED, seed=3), ANCHOR_BASED)
    options = {"max_candidates": 30_000} | options
    assert_same(detect(given, LETTERBOX, **options), suppressed(given, LETTERBOX, **options))
