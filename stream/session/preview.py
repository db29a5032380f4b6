"""A preview, the small picture that a camera may send beside its features: its limits, and when it may go.

No socket, no clock, no task.
"""

from __future__ import annotations

import re

from stream.errors import InvalidPreview

MAX_BYTES = 40_000  # as base64 it fits a text
MAX_SIDE = 320  # pixels

# What a viewer has to decode is bounded by more than bytes: a header may promise gigabytes of pixels, and the
# many scans of a progressive JPEG cost a decoder minutes. Decoders must find the very frame header that was checked:
# they read some markers without a length and skip stray bytes, so only what all of them read alike may stand in the
# file, and no metadata, which may hold another picture. ITU-T T.81, tables B.1 and B.2.
_BASELINE = 0xC0
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE})  # DHT, DQT, DRI; APP0 (JFIF), APP14 (Adobe), COM
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # in a scan: neither a stuffed byte nor a restart


def check_preview(jpeg: bytes) -> bytes:
    """The same bytes, if they are framed as a small baseline JPEG of one scan. What is in the scan is not looked at.

    Raises InvalidPreview.
    """
    if len(jpeg) > MAX_BYTES:
        raise InvalidPreview(f"{len(jpeg)} bytes; at most {MAX_BYTES}")
    if not (jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")):
        raise InvalidPreview("not a whole JPEG: it has to start with SOI and end with EOI")
    frame, scan = _headers(jpeg)
    after = _MARKER.search(jpeg, scan + 2)
    if after is None or after.start() != len(jpeg) - 2:
        raise InvalidPreview("only one scan is taken, and nothing behind it")
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InvalidPreview(f"a picture of {width}x{height} pixels; sides must be 1 to {MAX_SIDE}")
    return jpeg


def _headers(jpeg: bytes) -> tuple[bytes, int]:
    """What the one frame header says, and where the scan begins."""
    frame = b""
    at = 2
    while (marker := _marker(jpeg, at)) != _SCAN:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        segment = jpeg[at + 4 : end]
        if marker in _FRAME_HEADERS:
            if marker != _BASELINE:
                raise InvalidPreview("only baseline JPEGs are taken")
            if frame:
                raise InvalidPreview("it has two frame headers")
            if len(segment) < 6 or len(segment) != 6 + 3 * segment[5]:
                raise InvalidPreview("its frame header is malformed")
            frame = segment
        elif marker not in _TABLES:
            raise InvalidPreview(f"marker {marker:02x} may not stand before the scan")
        if not at + 4 <= end <= len(jpeg):
            raise InvalidPreview("a segment is malformed")
        at = end
    if not frame:
        raise InvalidPreview("it has no frame header before its scan")
    return frame, at


def _marker(jpeg: bytes, at: int) -> int:
    """The marker at a place where one has to be."""
    if at + 2 > len(jpeg) or jpeg[at] != 0xFF:
        raise InvalidPreview("not a JPEG: no marker where a segment ends")
    return jpeg[at + 1]


class PreviewGate:
    """Tells when a preview would take nothing from the features on one connection.

    Features have the link to themselves while it is what holds them up. Whatever happens to the link, at most one
    preview is on its way.
    """

    def __init__(self) -> None:
        self._held = False  # the window was full since the last call of `may_send`
        self._arrived_with = 0  # the last preview has arrived once so many packets are answered
        self._link_is_slower = False  # than the detector, for the last frame detected

    def hold(self) -> None:
        """A frame has to wait until the window opens."""
        self._held = True

    def compare(self, network_ns: int, detector_ns: int) -> None:
        """The last frame detected spent so long on the link and at the detector."""
        self._link_is_slower = network_ns > detector_ns

    def may_send(self, answered: int) -> bool:
        """Whether a preview may go, by what has happened since the last call.

        `answered` packets of this connection have been answered. Answers keep order, so what was sent before the
        last one of them has arrived.
        """
        held, self._held = self._held, False
        return answered >= self._arrived_with and not (held and self._link_is_slower)

    def sent(self, packets: int) -> None:
        """A preview goes out behind so many packets; the answer to the next one tells that it has arrived."""
        self._arrived_with = packets + 1
