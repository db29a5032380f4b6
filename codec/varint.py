"""Integers as short as they are small: groups of 7 bits, the most significant first (docs/bitstream.md)."""

from __future__ import annotations

_MORE = 0x80  # another byte follows


def pack_varint(value: int) -> bytes:
    """As few bytes as hold the number, which is not negative."""
    assert value >= 0
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | _MORE)
    return bytes(reversed(groups))


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number of at most 64 bits that starts at `at`, and where what follows it does.

    Raises ValueError where the bytes end before it, and where it is longer than it has to be or than 64 bits.
    """
    value, end = 0, at
    while end < len(data):
        value = value << 7 | data[end] & 0x7F
        if value == 0 and data[end] & _MORE:
            raise ValueError("a number begins with zeros")
        if value >= 2**64:
            raise ValueError("a number has more than 64 bits")
        end += 1
        if not data[end - 1] & _MORE:
            return value, end
    raise ValueError("it ends inside a number")
