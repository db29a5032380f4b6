from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.camera.pictures import jpeg_bytes, preview_jpeg
from stream.frame import Frame
from stream.session.preview import MAX_BYTES, check_preview


def noise(height: int, width: int) -> Frame:
    return Frame(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8), captured_ns=0)


def smooth(height: int, width: int) -> Frame:
    """A picture of slow gradients, which JPEG keeps well."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 255 // height, columns * 255 // width, np.full((height, width), 90)]
    return Frame(np.stack(planes, -1).astype(np.uint8), captured_ns=0)


def decode(jpeg: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


class TestPictures:
    @pytest.mark.parametrize(
        ("size", "small"),
        [
            ((1080, 1920), (180, 320)),
            ((640, 480), (320, 240)),
            ((100, 50), (100, 50)),
            ((1, 4000), (1, 320)),
        ],
    )
    def test_a_preview_is_small_and_keeps_the_aspect(self, size, small):
        jpeg = check_preview(preview_jpeg(smooth(*size)))
        assert decode(jpeg).shape == (*small, 3)

    def test_a_preview_shows_the_frame(self):
        frame = smooth(240, 320)
        difference = np.abs(decode(preview_jpeg(frame)).astype(int) - frame.image)
        assert difference.mean() < 3

    def test_a_preview_of_noise_still_fits(self):
        good, jpeg = cv2.imencode(".jpg", noise(320, 320).image, [cv2.IMWRITE_JPEG_QUALITY, 70])
        assert good
        assert len(jpeg) > MAX_BYTES  # at the usual quality
        assert len(check_preview(preview_jpeg(noise(320, 320)))) <= MAX_BYTES

    def test_the_reference_is_what_opencv_makes_of_the_canvas(self):
        frame = smooth(72, 128)
        canvas = np.full((96, 128, 3), 114, np.uint8)
        canvas[12:84] = frame.image
        expected = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        assert jpeg_bytes(frame, (96, 128)) == len(expected)
