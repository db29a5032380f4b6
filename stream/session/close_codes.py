"""Why an end closes the connection; docs/protocol.md lists the codes."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why an end closes the WebSocket; 4000-4999 are this protocol's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    TOKEN_REVOKED = 4401
    PREVIEW_REFUSED = 4403
    PROFILE_REFUSED = 4405
    BAD_SUBPROTOCOL = 4406
    STREAM_NOT_GRANTED = 4407
    TIMEOUT = 4408
    STREAM_TAKEN = 4409
    WEIGHTS_DIFFER = 4410
    SPLIT_UNKNOWN = 4411
    SHAPES_DIFFER = 4412
    PACKET_TOO_LARGE = 4413
    TOO_COSTLY = 4414
    CODEC_REFUSED = 4415
    STREAM_DIFFERS = 4421
    PROTOCOL_VERSION = 4426
    WINDOW_EXCEEDED = 4428
    TOO_MANY_STREAMS = 4429
    REPLACED = 4430


# Refusals that the same settings will meet again.
PERMANENT = frozenset(
    {
        CloseCode.BAD_MESSAGE,
        CloseCode.PREVIEW_REFUSED,
        CloseCode.PROFILE_REFUSED,
        CloseCode.BAD_SUBPROTOCOL,
        CloseCode.WEIGHTS_DIFFER,
        CloseCode.SPLIT_UNKNOWN,
        CloseCode.SHAPES_DIFFER,
        CloseCode.PACKET_TOO_LARGE,
        CloseCode.TOO_COSTLY,
        CloseCode.CODEC_REFUSED,
        CloseCode.STREAM_DIFFERS,
        CloseCode.PROTOCOL_VERSION,
    }
)


def close_reason(reason: str) -> bytes:
    """The reason as a close frame carries it: UTF-8, cut to 123 bytes (RFC 6455, 5.5)."""
    return reason.encode()[:123].decode(errors="ignore").encode()
