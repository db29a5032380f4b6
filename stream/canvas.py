"""The canvas that a network sees: its size as users write it, and for a frame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stream.errors import InvalidSize

if TYPE_CHECKING:  # `--help` waits for what settings load
    import numpy as np
    from numpy.typing import NDArray

STRIDE = 32
"""The least that both sides of a canvas are multiples of, in pixels; a network may have a coarser stride."""

_MAX_SIDE = 8192


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


def check_picture(image: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Raises ValueError for a picture that is not uint8 (H, W, 3) of this size (H, W), as a head takes it."""
    if image.shape != (*size, 3) or image.dtype != "uint8":
        raise ValueError(f"the head takes uint8 pictures of shape {(*size, 3)}, got {image.shape}")


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
