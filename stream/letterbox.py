"""Fits a frame of any size into the canvas that the network sees, and takes boxes back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.errors import InvalidSize

STRIDE = 32
"""The least that both sides of a canvas are multiples of, in pixels; a network may have a coarser stride."""

PADDING = 114  # gray that YOLOv5 was trained with

_MAX_SIDE = 8192


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


def parse_size(text: str) -> int | tuple[int, int]:
    """A size as users write it: `640` for the long side, `480x640` for exactly height x width.

    Refused here is what no network can have; `canvas_for` refuses what a certain one cannot. Raises InvalidSize.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise InvalidSize(
            f"{text!r} is not a size; write 640 for the long side, or 480x640 for height x width"
        )
    long_side, width = match.groups()
    size = int(long_side) if width is None else (int(long_side), int(width))
    check_size(size, STRIDE)
    return size


def check_size(size: int | tuple[int, int], stride: int) -> None:
    """Raises InvalidSize for sides that are not multiples of a network's stride, or not between it and 8192."""
    sides = size if isinstance(size, tuple) else (size, size)
    if any(side % stride or not stride <= side <= _MAX_SIDE for side in sides):
        near = "x".join(
            str(min(max(_round_up(side, stride), stride), _MAX_SIDE)) for side in sides[: 1 + (size is sides)]
        )
        raise InvalidSize(
            f"both sides must be multiples of {stride}, the network's stride, up to {_MAX_SIDE}; "
            f"the nearest above is {near}"
        )


def canvas_for(
    size: int | tuple[int, int], frame_height: int, frame_width: int, stride: int
) -> tuple[int, int]:
    """(H, W) of the canvas: exactly the given pair, or the least one whose long side is the given number.

    The least canvas keeps the frame's aspect and rounds both sides up to multiples of `stride`, which is the
    network's: `Model.stride`. All in pixels.
    Raises InvalidSize for sides that are not multiples of it, or not between it and 8192.
    """
    check_size(size, stride)
    if isinstance(size, tuple):
        return size
    scale = size / max(frame_height, frame_width)
    height, width = (max(round(side * scale), 1) for side in (frame_height, frame_width))
    return _round_up(height, stride), _round_up(width, stride)


def _round_up(side: int, stride: int) -> int:
    return -(-side // stride) * stride
