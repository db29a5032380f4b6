"""Records of a recording's file: type, length, body, checksum, one behind the other (docs/recording.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from codec.feature.profile import MAX_PROFILE_BYTES
from codec.packet_file import MAX_FILE_PACKET_BYTES
from stream.errors import NoRecording

MAGIC = b"SPLR"
VERSION = 1
FILE_START = MAGIC + bytes((VERSION,))

_HEAD = struct.Struct(">BI")
_CRC = struct.Struct(">I")
_TIME = struct.Struct(">Q")
RECORD_BYTES = _HEAD.size + _CRC.size  # around a body
PACKET_RECORD_BYTES = RECORD_BYTES + _TIME.size  # around a packet


class RecordType(IntEnum):
    """What a record holds. Zero is none: it is what a disk may have where nothing was written."""

    SESSION = 1
    PROFILE = 2
    PACKET = 3
    END = 4


MAX_BODY_BYTES = {
    RecordType.SESSION: 64 * 1024,
    RecordType.PROFILE: MAX_PROFILE_BYTES,
    RecordType.PACKET: _TIME.size + MAX_FILE_PACKET_BYTES,
    RecordType.END: 0,
}
MAX_UNKNOWN_BYTES = 64 * 1024  # of a record that a later version of the software may have written


@dataclass(frozen=True, slots=True)
class Record:
    """One record, its checksum found right."""

    kind: int  # a RecordType, or one that this version does not know
    body: bytes
    start: int  # where in the file it begins, in bytes
    end: int


def pack_record(kind: RecordType, *parts: bytes) -> bytes:
    """A record whose body is made of these parts."""
    data = b"".join((_HEAD.pack(kind, sum(map(len, parts))), *parts))
    return data + _CRC.pack(zlib.crc32(data))


def pack_packet(packet: bytes, captured_ns: int) -> bytes:
    """The record of a packet; the time of capture is that of the camera's monotonic clock, 64 bits."""
    return pack_record(RecordType.PACKET, _TIME.pack(captured_ns), packet)


def unpack_packet(record: Record) -> tuple[bytes, int] | None:
    """Packet and time of capture in a record of type PACKET; None where it is too short to hold them."""
    if len(record.body) <= _TIME.size:
        return None
    return record.body[_TIME.size :], int(_TIME.unpack_from(record.body)[0])


def check_start(start: bytes) -> bool:
    """Whether a file that begins with these bytes has anything behind its first five: it may have been cut in them.

    Raises NoRecording where it is none, or of another version.
    """
    if not FILE_START.startswith(start[: len(FILE_START)]):
        if start.startswith(MAGIC):
            raise NoRecording(
                f"it is of version {start[len(MAGIC)]}, and this software reads version {VERSION}"
            )
        raise NoRecording(f"it begins with {start[: len(MAGIC)]!r}, not {MAGIC!r}")
    return len(start) >= len(FILE_START)


def read_records(
    file: BinaryIO, at: int, end: int, max_packet_bytes: int = MAX_FILE_PACKET_BYTES
) -> Iterator[Record]:
    """Records from byte `at` of a file of `end` bytes, one in memory at a time, up to the first that is not whole.

    That may be where the file was cut, or where something else follows: nothing is raised. A body is read only if its
    declared size is one that its type may have, and there.
    """
    limits = MAX_BODY_BYTES | {RecordType.PACKET: _TIME.size + max_packet_bytes}
    while True:
        file.seek(at)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        kind, size = _HEAD.unpack(head)
        next_at = at + RECORD_BYTES + size
        if kind == 0 or size > limits.get(kind, MAX_UNKNOWN_BYTES) or next_at > end:
            return
        rest = file.read(size + _CRC.size)
        if len(rest) < size + _CRC.size:
            return
        body = rest[:size]
        if _CRC.unpack_from(rest, size)[0] != zlib.crc32(body, zlib.crc32(head)):
            return
        yield Record(kind, body, at, next_at)
        at = next_at
