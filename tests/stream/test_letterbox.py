"""The canvas is ultralytics' own, and boxes come back to where they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import scale_boxes

from stream.canvas import STRIDE, canvas_for
from stream.errors import InvalidSize
from stream.letterbox import PADDING, Letterbox

SIDES = st.integers(1, 700)
CANVAS_SIDES = st.integers(1, 22).map(lambda cells: 32 * cells)


def frame_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@settings(deadline=None)
@given(SIDES, SIDES, CANVAS_SIDES)
def test_least_canvas_is_ultralytics_minimum_rectangle(height, width, long_side):
    frame = frame_of(height, width)
    expected = LetterBox((long_side, long_side), auto=True, stride=32, scaleup=True)(image=frame)
    canvas = canvas_for(long_side, height, width, STRIDE)
    assert np.array_equal(Letterbox((height, width), canvas).apply(frame), expected)


@pytest.mark.parametrize("frame", [(432, 768), (360, 640), (272, 640), (1080, 1920), (480, 640), (640, 480)])
@pytest.mark.parametrize("canvas", [(640, 640), (480, 640), (384, 640)])
def test_exact_canvas_is_ultralytics_fixed_shape(frame, canvas):
    picture = frame_of(*frame)
    expected = LetterBox(canvas, auto=False, stride=32, scaleup=True)(image=picture)
    assert np.array_equal(Letterbox(frame, canvas).apply(picture), expected)


@given(SIDES, SIDES, CANVAS_SIDES, CANVAS_SIDES)
def test_scaled_frame_fits_and_touches_two_sides(height, width, canvas_height, canvas_width):
    box = Letterbox((height, width), (canvas_height, canvas_width))
    (scaled_height, scaled_width), (top, left) = box.scaled, box.offset
    assert 0 <= top <= canvas_height - top - scaled_height <= top + 1
    assert 0 <= left <= canvas_width - left - scaled_width <= left + 1
    assert scaled_height == canvas_height or scaled_width == canvas_width


@given(SIDES, SIDES, CANVAS_SIDES, CANVAS_SIDES)
def test_corners_come_back(height, width, canvas_height, canvas_width):
    box = Letterbox((height, width), (canvas_height, canvas_width))
    (scaled_height, scaled_width), (top, left) = box.scaled, box.offset
    on_canvas = np.array([[left, top, left + scaled_width, top + scaled_height]], np.float32)
    on_frame = box.to_frame(on_canvas)
    assert on_frame.dtype == np.float32
    np.testing.assert_allclose(on_frame, [[0, 0, width, height]], rtol=1e-5, atol=1e-3)


def test_boxes_come_back_as_ultralytics_brings_them():
    frame, canvas = (432, 768), (384, 640)
    corners = np.random.default_rng(0).uniform(0, 640, (100, 2, 2)).astype(np.float32)
    boxes = np.concatenate((corners.min(1), corners.max(1)), 1)
    expected = scale_boxes(canvas, boxes.copy(), frame)
    np.testing.assert_allclose(Letterbox(frame, canvas).to_frame(boxes), expected, atol=0.5)


def test_boxes_are_clipped_to_the_frame():
    far = np.array([[-1e9, -1e9, 1e9, 1e9], [700, 700, 800, 800]], np.float32)
    assert Letterbox((432, 768), (384, 640)).to_frame(far).tolist() == [
        [0, 0, 768, 432],
        [768, 432, 768, 432],
    ]


def test_no_boxes_stay_none():
    assert Letterbox((432, 768), (384, 640)).to_frame(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_blank_is_padding():
    assert (Letterbox((10, 20), (32, 64)).blank() == PADDING).all()


@pytest.mark.parametrize("image", [frame_of(20, 10), frame_of(10, 20)[..., 0], frame_of(10, 20)[..., :1]])
def test_refuses_a_frame_of_another_shape(image):
    with pytest.raises(InvalidSize):
        Letterbox((10, 20), (32, 64)).apply(image)


def test_refuses_an_empty_frame():
    with pytest.raises(InvalidSize):
        Letterbox((0, 20), (32, 64))
