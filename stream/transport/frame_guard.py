"""Looks at the headers of the frames that a client sends, before anybody works on them (RFC 6455, 5.2). No I/O.

aiohttp takes frames that are not masked, and millions of fragments without a byte in them: they never become a
message, so nobody behind it could count them.
"""

from __future__ import annotations

from stream.leaky_bucket import LeakyBucket
from stream.session.close_codes import CloseCode

SMALL_BYTES = 1024  # larger fragments are bounded by the largest message
SMALL_INTERVAL_NS = 10**9 // 64  # both ends ping once a second
SMALL_BURST = 1024

_FINAL, _MASKED = 0x80, 0x80
_WHOLE_MESSAGES = (_FINAL | 0x1, _FINAL | 0x2)  # text and binary, not fragmented
_LENGTH_BYTES = {126: 2, 127: 8}
_MASK_BYTES = 4


class FrameGuard:
    """Finds what no well-meaning client sends, in bytes as they come."""

    def __init__(self) -> None:
        self._header = b""  # as much of the next one as has come
        self._left = 0  # bytes of the frame that are still to come
        self._small = LeakyBucket(SMALL_INTERVAL_NS, SMALL_BURST)

    def look(self, data: bytes, now_ns: int) -> CloseCode | None:
        """The code to close with, now that `data` has come at `now_ns` on any steady clock; None where all is well."""
        position = 0
        if self._header:
            data, self._header = self._header + data, b""
        while True:
            step = min(self._left, len(data) - position)
            position, self._left = position + step, self._left - step
            if position + 2 > len(data):
                break
            first, second = data[position], data[position + 1]
            if not second & _MASKED:
                return CloseCode.PROTOCOL_ERROR
            length = second & ~_MASKED
            extended = _LENGTH_BYTES.get(length, 0)
            if position + 2 + extended > len(data):
                break
            if extended:
                length = int.from_bytes(data[position + 2 : position + 2 + extended], "big")
            if _is_small(first, length) and not self._small.take(now_ns):
                return CloseCode.POLICY_VIOLATION
            position, self._left = position + 2 + extended, _MASK_BYTES + length
        self._header = data[position:]
        return None


def _is_small(first: int, length: int) -> bool:
    """Whether a frame is one of those that cost more than they say: control frames, fragments and empty messages."""
    return length < SMALL_BYTES and not (first in _WHOLE_MESSAGES and length)
