from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.preview import MAX_BYTES, InvalidPreview, check_preview


def jpeg(height: int, width: int, *parameters: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    good, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30, *parameters])
    assert good
    return encoded.tobytes()


GOOD = jpeg(24, 32)


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (320, 320), (1, 320)])
def test_takes_small_pictures(size):
    picture = jpeg(*size)
    assert check_preview(picture) is picture


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "not a whole JPEG"),
        (GOOD[:-1], "not a whole JPEG"),
        (b"\x89PNG" + GOOD, "not a whole JPEG"),
        (b"<svg onload=alert(1)>", "not a whole JPEG"),
        (b"\xff\xd8\xff\xd9", "no frame header"),
        (b"\xff\xd8" + bytes(1000) + b"\xff\xd9", "no frame header"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 5000 + b"\xff\xd9", "no frame header"),
        (b"\xff\xd8\xff\xda" + GOOD[2:], "no frame header"),  # its scan comes first
        (jpeg(24, 321), "321x24"),
        (jpeg(2000, 1)[:-2] + b"\xff\xd9", "1x2000"),
        (jpeg(24, 32, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), "only baseline"),
        (GOOD[:-2] + bytes(MAX_BYTES) + b"\xff\xd9", "at most 40000"),
    ],
)
def test_refuses_what_a_viewer_should_not_get(bad, words):
    with pytest.raises(InvalidPreview, match=words):
        check_preview(bad)


@pytest.mark.parametrize("size", [(0, 32), (65535, 65535)])
def test_believes_the_header_and_no_less(size):
    """A few hundred bytes may promise gigabytes of pixels."""
    at = GOOD.index(b"\xff\xc0") + 5
    with pytest.raises(InvalidPreview, match="sides must be"):
        check_preview(GOOD[:at] + size[0].to_bytes(2) + size[1].to_bytes(2) + GOOD[at + 4 :])


@pytest.mark.parametrize(
    "length", range(2, GOOD.index(b"\xff\xc0") + 8)
)  # of the width at least a byte is cut
def test_refuses_a_truncated_header(length):
    with pytest.raises(InvalidPreview):
        check_preview(GOOD[:length] + b"\xff\xd9")


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_taken_or_refused(inside, at):
    data = GOOD[: 2 + at] + inside + GOOD[2 + at :]
    with suppress(InvalidPreview):
        assert check_preview(data) is data
