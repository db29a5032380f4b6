"""WebSocket frames made and read byte by byte (RFC 6455, section 5.2)."""

from __future__ import annotations

TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


def frame(opcode: int, payload: bytes, mask: bytes = b"", *, final: bool = True) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = bytes([126]) + size.to_bytes(2, "big")
    else:
        length = bytes([127]) + size.to_bytes(8, "big")
    length = bytes([length[0] | (0x80 if mask else 0)]) + length[1:]
    return bytes([(0x80 if final else 0) | opcode]) + length + mask + _masked(payload, mask)


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of each frame; nothing may be left over."""
    frames = []
    while data:
        opcode, length, data = data[0] & 0x0F, data[1], data[2:]
        masked, length = length >> 7, length & 0x7F
        extra = {126: 2, 127: 8}.get(length, 0)
        if extra:
            length, data = int.from_bytes(data[:extra], "big"), data[extra:]
        mask, data = data[: 4 * masked], data[4 * masked :]
        assert len(data) >= length
        frames.append((opcode, _masked(data[:length], mask)))
        data = data[length:]
    return frames


def _masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
