"""What a camera's token lets it cost, as far as a handshake can refuse it: FramePace has its frames a second."""

from __future__ import annotations

from services.access.tokens import Quota
from services.detector.settings import DetectorSettings
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from stream.session.messages import MAX_TEXT_CHARACTERS, Hello

MIB = 2**20
TEXT_BYTES = 4 * MAX_TEXT_CHARACTERS  # in UTF-8


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
