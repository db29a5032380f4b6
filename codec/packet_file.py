"""Files of packets: .spc (docs/bitstream.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codec.errors import CorruptPacket, TruncatedPacket, UnsupportedPacket
from codec.packet import MAGIC, VERSION
from codec.varint import pack_varint, read_varint

MAX_FILE_PACKET_BYTES = 2**28
FILE_START = MAGIC + bytes((VERSION,))


def framed(packet: bytes) -> bytes:
    """A packet as it follows FILE_START or another packet in a file: its size goes before it."""
    return pack_varint(len(packet)) + packet


def read_packets(path: Path, max_packet_bytes: int = MAX_FILE_PACKET_BYTES) -> Iterator[bytes]:
    """Packets of a .spc file; holds one at a time. Of a file without a byte there are none.

    Only the sizes are looked at: decoding checks the rest.
    Raises TruncatedPacket if the file ends inside a packet or its size, CorruptPacket where it is no such file or a
    packet is larger than `max_packet_bytes`, UnsupportedPacket for another version.
    """
    with path.open("rb") as file:
        if start := file.read(len(FILE_START)):
            _check_start(start)
        while (packet_bytes := _read_size(file)) is not None:
            if packet_bytes > max_packet_bytes:
                raise CorruptPacket(f"it declares {packet_bytes} bytes, the limit is {max_packet_bytes}")
            packet = file.read(packet_bytes)
            if len(packet) < packet_bytes:
                raise TruncatedPacket(packet_bytes, len(packet))
            yield packet


def _check_start(start: bytes) -> None:
    if len(start) < len(FILE_START):
        raise TruncatedPacket(len(FILE_START), len(start))
    if not start.startswith(MAGIC):
        raise CorruptPacket(f"the file starts with {start[: len(MAGIC)]!r}, not {MAGIC!r}")
    if start != FILE_START:
        raise UnsupportedPacket("version", str(VERSION), str(start[-1]))


def _read_size(file: BinaryIO) -> int | None:
    """The size before the next packet; None at the end of the file."""
    size = file.read(1)
    if not size:
        return None
    while size[-1] & 0x80 and len(size) < 10:
        if not (more := file.read(1)):
            raise TruncatedPacket(len(size) + 1, len(size))
        size += more
    try:
        return read_varint(size, 0)[0]
    except ValueError as error:
        raise CorruptPacket(f"of the packet's size: {error}") from None
