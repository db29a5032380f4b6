"""Fits a frame of any size into the canvas that the network sees, and takes boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.errors import InvalidSize

PADDING = 114  # gray that YOLOv5 was trained with


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A frame, scaled to fit a canvas with its aspect kept, in the middle of gray padding. All sizes in pixels."""

    frame: tuple[int, int]  # (H, W)
    canvas: tuple[int, int]  # (H, W)

    def __post_init__(self) -> None:
        if min(*self.frame, *self.canvas) < 1:
            raise InvalidSize(f"a frame of {self.frame} (H, W) cannot be fitted into {self.canvas}")

    @property
    def scaled(self) -> tuple[int, int]:
        """(H, W) of the frame after scaling."""
        height, width = self.canvas
        # The larger scale at which both sides fit once rounded: the smaller one may lose a pixel where a side of
        # the canvas was itself rounded from this frame.
        scales = sorted((height / self.frame[0], width / self.frame[1]), reverse=True)
        for scale in scales:
            scaled = round(self.frame[0] * scale), round(self.frame[1] * scale)
            if scaled[0] <= height and scaled[1] <= width:
                break
        return max(scaled[0], 1), max(scaled[1], 1)

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left) of the frame on the canvas; where the padding is odd, the smaller half comes first."""
        height, width = self.scaled
        return (self.canvas[0] - height) // 2, (self.canvas[1] - width) // 2

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The canvas uint8 (H, W, 3) for a frame uint8 (h, w, 3).

        Raises InvalidSize for a frame of another size than this letterbox was made for.
        """
        if image.shape != (*self.frame, 3):
            raise InvalidSize(f"expected a frame of shape {(*self.frame, 3)}, got {image.shape}")
        height, width = self.scaled
        top, left = self.offset
        if (height, width) != image.shape[:2]:
            import cv2  # a detector has no pictures, and does without 26 MB

            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        canvas = self.blank()
        canvas[top : top + height, left : left + width] = image
        return canvas

    def blank(self) -> NDArray[np.uint8]:
        """A canvas uint8 (H, W, 3) of padding alone."""
        return np.full((*self.canvas, 3), PADDING, np.uint8)

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes float32 (N, 4), as left, top, right, bottom, from canvas to frame pixels, clipped to the frame."""
        height, width = self.scaled
        top, left = self.offset
        shift = np.array([left, top, left, top], np.float32)
        scale = np.array([self.frame[1] / width, self.frame[0] / height] * 2, np.float32)
        limit = np.array([self.frame[1], self.frame[0]] * 2, np.float32)
        clipped: NDArray[np.float32] = ((boxes - shift) * scale).clip(0, limit)
        return clipped
