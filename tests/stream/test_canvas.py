"""Sizes as users write them, and the canvas of a frame, which is ultralytics' own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.data.augment import LetterBox

from stream.canvas import STRIDE, canvas_for, parse_size
from stream.errors import InvalidSize

SIDES = st.integers(1, 700)


@pytest.mark.parametrize(
    ("text", "frame", "canvas"),
    [
        ("640", (432, 768), (384, 640)),
        ("640", (768, 432), (640, 384)),
        ("640", (1000, 1000), (640, 640)),
        ("320", (1, 10000), (32, 320)),
        ("480x640", (432, 768), (480, 640)),
        ("480x640", (768, 432), (480, 640)),
    ],
)
def test_sizes(text, frame, canvas):
    assert canvas_for(parse_size(text), *frame, STRIDE) == canvas


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 11), st.sampled_from([64, 128]))
def test_least_canvas_follows_the_networks_stride(height, width, cells, stride):
    frame = np.zeros((height, width, 3), np.uint8)
    side = cells * stride
    expected = LetterBox((side, side), auto=True, stride=stride, scaleup=True)(image=frame)
    assert expected.shape[:2] == canvas_for(side, height, width, stride)


@pytest.mark.parametrize(
    ("size", "stride", "near"),
    [((480, 640), 64, "512x640"), (672, 64, "704"), (64, 128, "128"), ((640, 96), 64, "640x128")],
)
def test_refuses_a_size_that_a_network_cannot_have(size, stride, near):
    with pytest.raises(InvalidSize, match=rf"multiples of {stride}, .* nearest above is {near}$"):
        canvas_for(size, 480, 640, stride)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-640",
        "640 ",
        "640x",
        "x640",
        "480X640",
        "480x640x3",
        "6.4e2",
        "٦٤٠",
        "99999999",
        "16384",
        "0x0",
    ],
)
def test_refuses_what_is_not_a_size(text):
    with pytest.raises(InvalidSize):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "near"), [("650", "672"), ("480x650", "480x672"), ("1", "32"), ("9000", "8192")]
)
def test_refusal_names_the_nearest_size(text, near):
    with pytest.raises(InvalidSize, match=rf"nearest above is {near}\b"):
        parse_size(text)
