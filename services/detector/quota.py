"""What a camera's token lets it cost: refused in the handshake, or held to it while it streams.

No clock: times are arguments, in ns of any steady clock.
"""

from __future__ import annotations

from services.access.tokens import Quota
from services.detector.settings import DetectorSettings
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from stream.session.messages import MAX_TEXT_CHARACTERS, Hello

MIB = 2**20
TEXT_BYTES = 4 * MAX_TEXT_CHARACTERS  # in UTF-8
BURST_NS = 500_000_000  # what a link or a busy camera gathers may come at once


def largest_message_bytes(settings: DetectorSettings, quota: Quota) -> int:
    """What a camera's connection has to take at a time: a packet, a calibration profile, or a text."""
    packet_bytes = settings.max_packet_mib * MIB
    profile_bytes = settings.max_profile_mib * MIB if settings.profiles and quota.profiles else 0
    return max(agreed_packet_bytes(packet_bytes, quota), profile_bytes, TEXT_BYTES)


def agreed_packet_bytes(largest: int, quota: Quota) -> int:
    """Of packets that may have so many bytes, those that the token allows."""
    return largest if quota.packet_bytes is None else min(largest, quota.packet_bytes)


def check_quota(hello: Hello, quota: Quota) -> None:
    """Raise SessionError where the hello announces what its token does not grant, though the detector would."""
    if hello.preview and not quota.preview:
        raise SessionError(
            CloseCode.PREVIEW_REFUSED,
            "this camera's token allows no previews: start the camera without --preview",
        )
    height, width = hello.canvas
    if quota.max_side is not None and max(height, width) > quota.max_side:
        raise SessionError(
            CloseCode.TOO_COSTLY,
            f"too_costly: canvas {height}x{width}; this camera's token allows sides of at most {quota.max_side} "
            "(--size)",
        )


class FramePace:
    """Tells how long a stream's next packet has to wait, so that it has no more than its frames a second.

    It waits and is not refused: the window fills, and the camera itself drops what is too much, before it is encoded.
    Of a stream and not of a connection: a camera that connects anew gains nothing.
    """

    def __init__(self, frames_per_s: float | None = None) -> None:
        self._due_ns: int | None = None  # when the next one would come of a camera that keeps to its rate
        self.limit(frames_per_s)

    def limit(self, frames_per_s: float | None) -> None:
        """The rate from now on, that of the token of the camera that has come; None: any."""
        self._interval_ns = round(1e9 / frames_per_s) if frames_per_s else 0

    def take(self, now_ns: int) -> int:
        """Count a packet that is to be worked on; ns that it has to wait before."""
        due_ns = now_ns if self._due_ns is None else max(self._due_ns, now_ns - BURST_NS)
        self._due_ns = due_ns + self._interval_ns
        return max(0, due_ns - now_ns)
