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


class Room:
    """Tells when a preview would take nothing from the features on one connection. No clock, no socket.

    Features have the link to themselves while it is what holds them up. Whatever happens to the link, at most one
    preview is on its way.
    """

    def __init__(self) -> None:
        self._held = False  # the window was full since the last look
        self._answers_due = 0  # until the last preview is known to have arrived
        self._link_is_slower = False  # than the detector, for the last frame detected

    def hold(self) -> None:
        """A frame has to wait until the window opens."""
        self._held = True

    def answer(self) -> None:
        """A packet was answered. Answers keep order, so what was sent before the packet has arrived."""
        self._answers_due = max(0, self._answers_due - 1)

    def compare(self, network_ns: int, detector_ns: int) -> None:
        """The last frame detected spent so long on the link and at the detector."""
        self._link_is_slower = network_ns > detector_ns

    def look(self) -> bool:
        """Whether there is room, judged by what has happened since the last look."""
        held, self._held = self._held, False
        return not self._answers_due and not (held and self._link_is_slower)

    def take(self, unanswered: int) -> None:
        """A preview is sent behind so many packets; the answer to the next one tells that it has arrived."""
        self._answers_due = unanswered + 1
