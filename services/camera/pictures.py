"""The camera's pictures: the JPEG that features are compared with, and the preview that may leave the camera."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.frame import Frame
from stream.letterbox import Letterbox
from stream.session.preview import MAX_BYTES, MAX_SIDE

REFERENCE_QUALITY = 90
_PREVIEW_QUALITIES = (70, 50, 30, 10)  # the first that fits; noise takes the most bytes


def jpeg_bytes(frame: Frame, canvas: tuple[int, int]) -> int:
    """Size in bytes of what the head sees of the frame, on a canvas (H, W), as a JPEG of high quality."""
    picture = Letterbox((frame.height, frame.width), canvas).apply(frame.image)
    return len(_encode(picture, REFERENCE_QUALITY))


def preview_jpeg(frame: Frame) -> bytes:
    """The frame as a small JPEG in its own aspect, within the limits of a preview."""
    scale = min(1.0, MAX_SIDE / max(frame.height, frame.width))
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    picture = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame.image
    for quality in _PREVIEW_QUALITIES:
        jpeg = _encode(picture, quality)
        if len(jpeg) <= MAX_BYTES:
            break
    return jpeg


def _encode(picture: NDArray[np.uint8], quality: int) -> bytes:
    good, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return bytes(jpeg)
