from __future__ import annotations

import pytest

from stream.session.close_codes import CloseCode
from stream.transport.frame_guard import SMALL_BURST, SMALL_BYTES, FrameGuard

TEXT, BINARY, CONTINUATION, PING = 0x81, 0x82, 0x00, 0x89


def frame(first: int, payload: bytes, *, masked: bool = True) -> bytes:
    size, mask = len(payload), 0x80 * masked
    if size < 126:
        header = bytes([first, mask | size])
    elif size < 2**16:
        header = bytes([first, mask | 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([first, mask | 127]) + size.to_bytes(8, "big")
    return header + b"mask" * masked + payload


def conversation() -> bytes:
    """Payloads of which every byte would be a frame that is not masked, were it taken for a header."""
    return b"".join(
        [
            frame(TEXT, b"\1" * 125),
            frame(PING, b""),
            frame(BINARY, b"\1" * 126),
            frame(0x02, b"\1" * 70_000),
            frame(CONTINUATION | 0x80, b"\1" * 3),
            frame(TEXT, b"\1"),
        ]
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 65_536, 10**6])
def test_finds_every_header_however_the_bytes_come(size):
    guard, said = FrameGuard(), conversation()
    assert {guard.look(said[start : start + size], 0) for start in range(0, len(said), size)} == {None}
    assert guard.look(frame(TEXT, b"x", masked=False), 0) is CloseCode.PROTOCOL_ERROR


def test_a_frame_that_is_not_masked_is_found():
    assert FrameGuard().look(frame(TEXT, b"hello", masked=False), 0) is CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [TEXT, BINARY, 0x01, CONTINUATION, CONTINUATION | 0x80, PING, 0x8A])
def test_a_flood_of_empty_frames_is_found(first):
    guard = FrameGuard()
    assert guard.look(frame(first, b"") * SMALL_BURST, 0) is None
    assert guard.look(frame(first, b""), 0) is CloseCode.POLICY_VIOLATION


def test_small_fragments_are_counted_and_large_ones_are_not():
    guard = FrameGuard()
    assert guard.look(frame(CONTINUATION, bytes(SMALL_BYTES)) * 2 * SMALL_BURST, 0) is None
    assert guard.look(frame(CONTINUATION, bytes(SMALL_BYTES - 1)) * 2 * SMALL_BURST, 0)


def test_messages_are_the_sessions_to_count():
    assert FrameGuard().look(frame(TEXT, b"x") * 2 * SMALL_BURST, 0) is None


def test_a_ping_now_and_then_is_welcome():
    guard = FrameGuard()
    assert {guard.look(frame(PING, b"12345678") * 2, second * 10**9) for second in range(SMALL_BURST)} == {
        None
    }
