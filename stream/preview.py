"""Limits of a preview, the small picture that a camera may send beside its features."""

from __future__ import annotations

MAX_BYTES = 40_000  # as base64 it fits a text
MAX_SIDE = 320  # pixels

# What a viewer has to decode is bounded by more than bytes: a header may promise gigabytes of pixels, and the
# many scans of a progressive JPEG cost a decoder minutes.
_BASELINE = 0xC0
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
_SCAN = 0xDA


class InvalidPreview(ValueError):
    """Bytes are not a preview that a detector would pass on."""


def check_preview(jpeg: bytes) -> bytes:
    """The same bytes, if they are framed as a small baseline JPEG. What is in its scan is not looked at.

    Raises InvalidPreview.
    """
    if len(jpeg) > MAX_BYTES:
        raise InvalidPreview(f"{len(jpeg)} bytes; at most {MAX_BYTES}")
    if not (jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")):
        raise InvalidPreview("not a whole JPEG: it has to start with SOI and end with EOI")
    height, width = _frame_size(jpeg)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InvalidPreview(f"a picture of {width}x{height} pixels; sides must be 1 to {MAX_SIDE}")
    return jpeg


def _frame_size(jpeg: bytes) -> tuple[int, int]:
    """(H, W) of the frame header, which has to come before the scan."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != _SCAN:
        marker = jpeg[at + 1]
        if marker in _FRAME_HEADERS:
            if marker != _BASELINE:
                raise InvalidPreview("only baseline JPEGs are taken")
            return int.from_bytes(jpeg[at + 5 : at + 7]), int.from_bytes(jpeg[at + 7 : at + 9])
        at += 2 + max(2, int.from_bytes(jpeg[at + 2 : at + 4]))
    raise InvalidPreview("not a JPEG: it has no frame header")
