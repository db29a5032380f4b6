"""Logits become the detections that ultralytics' NMS finds, whatever the logits are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream.canvas import canvas_for
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import open_network
from stream.network.levels import Levels
from stream.torch_network.model import load_model
from stream.torch_network.split import Unsplit
from tests.stream.network.reference_boxes import predictions, suppressed

ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
ANCHOR_BASED = Levels("yolov5", 7, (8, 16, 32), ANCHORS)
ANCHOR_FREE = Levels("yolov5u", 7, (8, 16, 32))
FAMILIES = pytest.mark.parametrize("levels", [ANCHOR_BASED, ANCHOR_FREE], ids=lambda levels: levels.family)
CANVAS = (96, 160)
SAME = Letterbox(CANVAS, CANVAS)
LETTERBOX = Letterbox((150, 250), CANVAS)


def noise(levels, seed=0, scale=2.0, shift=0.0, canvas=CANVAS):
    """Random logits; `shift` is added to objectness and classes."""
    generator = np.random.default_rng(seed)
    logits = []
    for stride in levels.strides:
        shape = levels.anchors_per_level, -1, canvas[0] // stride, canvas[1] // stride
        level = generator.standard_normal((levels.channels, *shape[2:]), np.float32) * np.float32(scale)
        level.reshape(shape)[:, levels.box_channels :] += np.float32(shift)
        logits.append(level)
    return tuple(logits)


def quiet(levels):
    """Logits of a picture that holds nothing."""
    return noise(levels, scale=0, shift=-20)


def assert_same(found, expected):
    """The same objects in the same order, but for those that are equally confident within rounding."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)
    rows = [
        sorted(zip(np.round(some.confidence, 5), some.class_id, some.boxes.tolist(), strict=True))
        for some in (found, expected)
    ]
    for (_, found_class, found_box), (_, class_id, box) in zip(*rows, strict=True):
        assert found_class == class_id
        np.testing.assert_allclose(found_box, box, atol=0.01)


OPTIONS = [
    {},
    {"conf": 0.6, "iou": 0.3},
    {"conf": 0.001, "iou": 0.6, "multi_label": True},
    {"max_det": 7},
    {"classes": [1, 4]},
    {"classes": []},
    {"classes": [2, 3], "multi_label": True},
    {"max_candidates": 100, "iou": 0.9},
    {"max_candidates": 100, "multi_label": True},
    {"conf": 0.0},
    {"conf": 1.0},
    {"iou": 0.0},
    {"iou": 1.0, "max_det": 1000},
]


@FAMILIES
@pytest.mark.parametrize("shift", [-3.0, 0.0, 4.0])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_finds_in_noise_what_ultralytics_finds(levels, shift, options):
    logits = noise(levels, seed=3, shift=shift)
    expected = suppressed(predictions(logits, levels), LETTERBOX, **options)
    assert_same(detect(logits, levels, LETTERBOX, **({"max_candidates": 30_000} | options)), expected)


@pytest.mark.parametrize("canvas", [(64, 64), (128, 64)])
def test_reads_any_number_of_levels_and_one_class(canvas):
    levels = Levels(
        "yolov5", 1, (8, 16, 32, 64), (*ANCHORS, ((436.0, 615.0), (739.0, 380.0), (925.0, 792.0)))
    )
    logits = noise(levels, canvas=canvas)
    letterbox = Letterbox((480, 640), canvas)
    expected = suppressed(predictions(logits, levels), letterbox, max_candidates=100)
    assert_same(detect(logits, levels, letterbox, max_candidates=100), expected)


def test_one_box_of_an_anchor():
    logits = quiet(ANCHOR_BASED)
    logits[1][12 : 2 * 12, 3, 5] = [0, 0, 0, 0, 20, -20, -20, 2, -20, -20, -20, -20]
    found = detect(logits, ANCHOR_BASED, SAME)
    # The middle of a cell of 16 pixels, and the second anchor, 62 x 45, as it is.
    np.testing.assert_allclose(found.boxes, [[88 - 31, 56 - 22.5, 88 + 31, 56 + 22.5]])
    np.testing.assert_allclose(found.confidence, [1 / (1 + np.exp(-2))], rtol=1e-6)
    assert found.class_id.tolist() == [2]
    assert (found.boxes.dtype, found.confidence.dtype, found.class_id.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )


def test_one_box_of_distances():
    logits = quiet(ANCHOR_FREE)
    for side, cells in enumerate((1, 0, 2, 1)):
        logits[2][16 * side + cells, 1, 2] = 40
    logits[2][64 + 6, 1, 2] = 2
    found = detect(logits, ANCHOR_FREE, SAME)
    np.testing.assert_allclose(found.boxes, [[80 - 32, 48, 80 + 64, 48 + 32]], atol=1e-3)
    assert found.class_id.tolist() == [6]


def test_boxes_leave_the_letterbox_and_end_at_the_frame():
    logits = quiet(ANCHOR_BASED)
    logits[2][24:28, 1, 2] = 0
    logits[2][24 + 4 : 24 + 6, 1, 2] = 20  # 373 x 326 pixels around (80, 48), on a canvas of 160 x 96
    found = detect(logits, ANCHOR_BASED, Letterbox((160, 320), CANVAS))
    np.testing.assert_allclose(found.boxes, [[0, 0, 320, 160]])


@FAMILIES
def test_finds_nothing_in_an_empty_picture(levels):
    found = detect(quiet(levels), levels, LETTERBOX)
    assert found.boxes.shape == (0, 4)
    assert found.confidence.shape == found.class_id.shape == (0,)


@FAMILIES
def test_of_equals_the_first_come_first(levels):
    logits = noise(levels, scale=0, shift=4)
    found = detect(logits, levels, SAME, max_det=3, iou=0.0)
    expected = suppressed(predictions(logits, levels), SAME, max_det=3, iou=0.0)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    capped = detect(logits, levels, SAME, max_candidates=1)
    np.testing.assert_allclose(capped.boxes, found.boxes[:1])


@FAMILIES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("multi_label", [False, True])
def test_numbers_that_are_not_finite_make_no_box_that_is_not(levels, value, share, multi_label):
    logits = noise(levels, seed=5)
    hit = np.random.default_rng(6)
    for level in logits:
        level[hit.random(level.shape) < share] = value
    found = detect(logits, levels, LETTERBOX, conf=0.001, multi_label=multi_label)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.confidence).all()
    assert len(found) <= 300


@FAMILIES
def test_a_broken_cell_leaves_the_others_alone(levels):
    silent, broken = noise(levels, seed=7), noise(levels, seed=7)
    for empty, quiet_level, level in zip(silent, quiet(levels), broken, strict=True):
        empty[:, 0, 0] = quiet_level[:, 0, 0]
        level[:, 0, 0] = np.nan
    assert_same(detect(broken, levels, LETTERBOX), detect(silent, levels, LETTERBOX))


@FAMILIES
def test_logits_are_left_alone_and_may_lie_anywhere(levels):
    logits = noise(levels)
    kept = [level.copy() for level in logits]
    spread = tuple(np.repeat(level, 2, 2)[..., ::2] for level in logits)
    for level in spread:
        level.flags.writeable = False
    assert_same(detect(spread, levels, LETTERBOX), detect(logits, levels, LETTERBOX))
    assert all(np.array_equal(*pair) for pair in zip(logits, kept, strict=True))


@FAMILIES
def test_refuses_logits_of_another_network(levels):
    with pytest.raises(AssertionError):
        detect(tuple(level[1:] for level in noise(levels)), levels, LETTERBOX)


@pytest.mark.shared
def test_finds_on_real_pictures_what_torch_and_ultralytics_find(yolov5n_weights, shared_data):
    """With the candidates of a service, at its settings and at those that mAP is measured with."""
    unsplit, network = Unsplit(load_model(yolov5n_weights)), open_network(yolov5n_weights, "torch")
    tail, found = network.tail("4.m"), 0
    for path in sorted((shared_data / "coco" / "images" / "val2017").iterdir())[:4]:
        image = cv2.imread(str(path))
        letterbox = Letterbox(image.shape[:2], canvas_for(640, *image.shape[:2], network.stride))
        canvas = letterbox.apply(image)
        (logits,) = tail([network.head("4.m", letterbox.canvas)(canvas)])
        prediction = unsplit(canvas)
        for options in ({}, {"conf": 0.001, "iou": 0.6, "multi_label": True}):
            expected = suppressed(prediction, letterbox, **options)
            assert_same(detect(logits, network.levels, letterbox, **options), expected)
            found += len(expected)
    assert found > 100
