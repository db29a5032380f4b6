"""A stream's packets, of which differences leave out what is as in the packet before (docs/bitstream.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from codec.errors import CorruptPacket, MissingReference, TruncatedPacket, UnsupportedPacket
from codec.packet import (
    CRC,
    DIFFERENCE,
    DIFFERENCE_NUMBERS,
    Packet,
    PacketFormat,
    PacketHeader,
    Stamp,
    is_difference,
    next_sequence,
    restamped_keyframe,
)
from codec.varint import pack_varint, read_varint

_PICTURE = 0x4000  # bit of the first two bytes: the picture has another size than the one before

_START = struct.Struct(">H")
_PICTURE_SIZE = struct.Struct(">HH")
_LEAST_BYTES = _START.size + 1 + CRC.size


class PacketWriter:
    """Puts packets around coded tensors, in the order in which they go out."""

    def __init__(self, packet_format: PacketFormat) -> None:
        self._format, self._open_sections = packet_format, _open_sections(packet_format)
        self._crc = zlib.crc32(packet_format.description)
        self._last: Stamp | None = None  # of the packet before

    def seal(self, stamp: Stamp, keyframe: bool, sections: Sequence[memoryview]) -> bytes:
        """The packet around coded tensors, given in the order of the layout.

        A difference has to have the number that follows the packet before.
        """
        last, self._last = self._last, stamp
        if keyframe:
            return self._format.seal_keyframe(stamp, sections)
        assert last is not None
        assert stamp.sequence == next_sequence(last.sequence)
        size = stamp.frame_height, stamp.frame_width
        resized = size != (last.frame_height, last.frame_width)
        head = b"".join((
            _START.pack(DIFFERENCE | (_PICTURE if resized else 0) | stamp.sequence % DIFFERENCE_NUMBERS),
            pack_varint((stamp.captured_ns - last.captured_ns) % 2**64),
            _PICTURE_SIZE.pack(*size) if resized else b"",
            *(pack_varint(sections[index].nbytes) for index in self._open_sections[:-1]),
        ))  # fmt: skip
        crc = zlib.crc32(head, self._crc)
        for section in sections:
            crc = zlib.crc32(section, crc)
        return b"".join((head, *sections, CRC.pack(crc)))


class PacketReader:
    """Opens packets in the order in which they were sealed, and knows which of them a difference may refer to.

    That is the packet before, if it was accepted: from `open` on none is held until then.
    """

    def __init__(self, packet_format: PacketFormat) -> None:
        self._format, self._open_sections = packet_format, _open_sections(packet_format)
        self._crc = zlib.crc32(packet_format.description)
        self._held: PacketHeader | None = None

    def accept(self, packet: Packet) -> None:
        """The packet's frame was decoded: the next difference refers to it."""
        self._held = packet.header

    def reset(self) -> None:
        """Hold no packet: the next has to be a keyframe."""
        self._held = None

    def open(self, data: bytes) -> Packet:
        """The packet that `data` holds, and nothing else, if it is of the format and its reference is held.

        Compares every declared size with what was agreed and allocates nothing of those sizes.
        Raises TruncatedPacket, CorruptPacket, UnsupportedPacket, LayoutMismatch or MissingReference.
        """
        held, self._held = self._held, None
        if not is_difference(data):
            return self._format.open_keyframe(data)
        if len(data) < _LEAST_BYTES:
            raise TruncatedPacket(_LEAST_BYTES, len(data))
        if len(data) > self._format.max_packet_bytes:
            raise CorruptPacket(
                f"it has {len(data)} bytes, at most {self._format.max_packet_bytes} were agreed"
            )
        view = memoryview(data)[: -CRC.size]
        (crc,) = CRC.unpack_from(data, len(view))
        if crc != zlib.crc32(view, self._crc):
            raise CorruptPacket("the checksum is wrong, or it is of another codec or other tensors")
        if not self._format.temporal:
            raise UnsupportedPacket("prediction", "keyframes only", "a reference frame")
        return self._open_difference(view, held)

    def _open_difference(self, view: memoryview, held: PacketHeader | None) -> Packet:
        """The difference in these bytes, whose checksum is right and left out."""
        (start,) = _START.unpack_from(view)
        picture_size = b""
        try:
            elapsed_ns, at = read_varint(view, _START.size)
            if start & _PICTURE:
                picture_size = bytes(view[at : at + _PICTURE_SIZE.size])
                at += _PICTURE_SIZE.size
            told = []
            for _ in self._open_sections[:-1]:
                size, at = read_varint(view, at)
                told.append(size)
        except ValueError as error:
            raise CorruptPacket(str(error)) from None
        sections = self._sections(view, at, told)
        number = start % DIFFERENCE_NUMBERS
        if held is None:
            raise MissingReference(number, None)
        ahead = (number - held.sequence) % DIFFERENCE_NUMBERS
        sequence = (held.sequence + ahead) % 2**32
        if ahead != 1:
            raise MissingReference(sequence, held.sequence)
        height, width = held.frame_height, held.frame_width
        if picture_size:
            height, width = _PICTURE_SIZE.unpack(picture_size)
        header = PacketHeader(
            held.codec_id,
            held.parameters,
            False,
            sequence,
            (held.captured_ns + elapsed_ns) % 2**64,
            height,
            width,
            held.layout,
            tuple(section.nbytes for section in sections),
        )
        return Packet(header, sections)

    def _sections(self, view: memoryview, at: int, told: Sequence[int]) -> tuple[memoryview, ...]:
        """The sections behind `at`, of the sizes that are told and that the codec has; one has what is left."""
        section_bytes = [least for least, _ in self._format.section_bounds]
        for index, size in zip(self._open_sections, told, strict=False):
            section_bytes[index] = size
        if self._open_sections:
            last = self._open_sections[-1]
            section_bytes[last] = 0
            section_bytes[last] = len(view) - at - sum(section_bytes)
        self._format.check_sections(section_bytes)
        if at + sum(section_bytes) != len(view):
            raise CorruptPacket(f"its sections end at byte {at + sum(section_bytes)}, not {len(view)}")
        sections = []
        for size in section_bytes:
            sections.append(view[at : at + size])
            at += size
        return tuple(sections)


def restamped(
    packet: bytes, packet_format: PacketFormat, sequence: int, captured_ns: int, elapsed_ns: int
) -> bytes:
    """A whole packet with another number and time: one that was recorded is sent again.

    `elapsed_ns` is the time since the packet before, which a difference tells instead.
    """
    if not is_difference(packet):
        return restamped_keyframe(packet, sequence, captured_ns)
    (start,) = _START.unpack_from(packet)
    _, end = read_varint(packet, _START.size)
    start = start - start % DIFFERENCE_NUMBERS + sequence % DIFFERENCE_NUMBERS
    data = _START.pack(start) + pack_varint(elapsed_ns % 2**64) + packet[end : -CRC.size]
    return data + CRC.pack(zlib.crc32(data, zlib.crc32(packet_format.description)))


def _open_sections(packet_format: PacketFormat) -> tuple[int, ...]:
    """Places of the sections whose size the codec leaves open: differences tell it, of all but the last."""
    return tuple(index for index, (least, most) in enumerate(packet_format.section_bounds) if least != most)
