"""The packet around the tensors of a keyframe: header, tensor table, sections, checksum (docs/bitstream.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from codec.errors import (
    BadLayout,
    CorruptPacket,
    LayoutMismatch,
    MissingReference,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.layout import MAX_TENSORS, Layout, TensorSpec

MAGIC = b"SPLC"
VERSION = 2
DIFFERENCE = 0x8000  # bit of the first two bytes of a packet: it is a difference's,
DIFFERENCE_NUMBERS = 0x4000  # whose number they hold modulo this

_FIXED = struct.Struct(">4sBBBBIIQHHB")
_EXTENT = struct.Struct(">H")
_LENGTH = struct.Struct(">I")
CRC = struct.Struct(">I")
_STAMP, _STAMP_AT = struct.Struct(">IQ"), 12  # sequence and captured_ns, and where in _FIXED they begin


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the caller says about a frame; the codec carries it unread but for the sequence number.

    Raises ValueError if a number does not fit its field.
    """

    sequence: int  # +1 per packet, modulo 2**32
    captured_ns: int  # camera's monotonic clock, 64 bits
    frame_height: int = 0  # pixels of the original picture, 16 bits; 0 = unknown
    frame_width: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.sequence < 2**32 and 0 <= self.captured_ns < 2**64):
            raise ValueError(f"sequence {self.sequence} or time {self.captured_ns} ns does not fit a packet")
        if not (0 <= self.frame_height < 2**16 and 0 <= self.frame_width < 2**16):
            raise ValueError(f"picture of {self.frame_width}x{self.frame_height} does not fit a packet")


def next_sequence(sequence: int) -> int:
    """Number of the frame that may be predicted from the one with this number."""
    return (sequence + 1) % 2**32


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """Everything that a packet says besides its sections, or that a difference leaves as it was before."""

    codec_id: int
    parameters: bytes  # of the codec: rle has one byte, its bits per level
    keyframe: bool  # decodable without a reference
    sequence: int
    captured_ns: int
    frame_height: int
    frame_width: int
    layout: Layout
    section_bytes: tuple[int, ...]  # one for each tensor of the layout

    @property
    def header_bytes(self) -> int:
        """Where the first section of a keyframe's packet starts."""
        return _header_bytes(self.parameters, self.layout)

    @property
    def packet_bytes(self) -> int:
        """Size of a keyframe's whole packet, checksum included."""
        return self.header_bytes + sum(self.section_bytes) + CRC.size

    def pack(self) -> bytes:
        """A keyframe's header, as its bytes: big-endian."""
        assert self.keyframe
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            self.codec_id,
            0,
            len(self.parameters),
            self.packet_bytes,
            self.sequence,
            self.captured_ns,
            self.frame_height,
            self.frame_width,
            len(self.layout),
        )
        parts = [fixed, self.parameters]
        for tensor, length in zip(self.layout, self.section_bytes, strict=True):
            parts += [*_table_entry(tensor), _LENGTH.pack(length)]
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> PacketHeader:
        """A keyframe's header at the start of `data`, which need not hold the rest of the packet.

        The checksum is not looked at. Raises TruncatedPacket where `data` ends inside the header,
        UnsupportedPacket for another version, CorruptPacket for anything else.
        """
        packet_bytes = declared_packet_bytes(data)
        (_, _, codec_id, flags, parameter_bytes, _, *stamp, tensor_count) = _FIXED.unpack_from(data)
        sequence, captured_ns, frame_height, frame_width = stamp
        if flags:
            raise CorruptPacket(f"reserved flags are set ({flags:#04x})")
        if tensor_count == 0:
            raise CorruptPacket("the tensor table is empty")
        reader = _Reader(data, end=packet_bytes - CRC.size)
        parameters = reader.take(parameter_bytes)
        layout, section_bytes = [], []
        for _ in range(tensor_count):
            name = reader.take(reader.take(1)[0])
            axes = reader.take(1)[0]
            shape = struct.unpack(f">{axes}H", reader.take(_EXTENT.size * axes))
            section_bytes.append(_LENGTH.unpack(reader.take(_LENGTH.size))[0])
            try:
                layout.append(TensorSpec(name.decode(), shape))
            except (BadLayout, UnicodeDecodeError) as error:
                raise CorruptPacket(f"bad tensor table ({error})") from None
        if len({tensor.name for tensor in layout}) < len(layout):
            raise CorruptPacket("two tensors have one name")
        header = cls(
            codec_id,
            parameters,
            True,
            sequence,
            captured_ns,
            frame_height,
            frame_width,
            tuple(layout),
            tuple(section_bytes),
        )
        if header.packet_bytes != packet_bytes:
            raise CorruptPacket(f"the parts add up to {header.packet_bytes} bytes, not {packet_bytes}")
        return header


def restamped_keyframe(packet: bytes, sequence: int, captured_ns: int) -> bytes:
    """A keyframe's whole packet with another number and time, and the checksum to them."""
    data = bytearray(packet)
    _STAMP.pack_into(data, _STAMP_AT, sequence, captured_ns)
    CRC.pack_into(data, len(data) - CRC.size, zlib.crc32(memoryview(data)[: -CRC.size]))
    return bytes(data)


class _Reader:
    """Takes a header apart behind its fixed part."""

    def __init__(self, data: bytes, end: int) -> None:
        self._data, self._position, self._end = data, _FIXED.size, end

    def take(self, count: int) -> bytes:
        start, self._position = self._position, self._position + count
        if self._position > self._end:
            raise CorruptPacket("the tensor table runs past the packet")
        if self._position > len(self._data):
            raise TruncatedPacket(self._position, len(self._data))
        return self._data[start : self._position]


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet taken apart, its checksum found right."""

    header: PacketHeader
    sections: tuple[memoryview, ...]  # one for each tensor of header.layout


@dataclass(frozen=True, slots=True)
class PacketFormat:
    """What the ends agreed before the first packet: all that may vary is the stamp and the sections.

    Raises BadLayout if a packet cannot describe the layout.
    """

    codec_id: int
    parameters: bytes
    temporal: bool  # packets that are no keyframes may come
    layout: Layout
    section_bounds: tuple[tuple[int, int], ...]  # least and most bytes of each tensor's section

    def __post_init__(self) -> None:
        if not 1 <= len(self.layout) <= MAX_TENSORS:
            raise BadLayout(f"{len(self.layout)} tensors; a packet holds 1 to {MAX_TENSORS}")
        if len({tensor.name for tensor in self.layout}) < len(self.layout):
            raise BadLayout("two tensors have one name; name each after its layer")
        if self.max_packet_bytes >= 2**32:
            raise BadLayout(f"a packet may need {self.max_packet_bytes} bytes, the limit is {2**32 - 1}")

    @property
    def max_packet_bytes(self) -> int:
        """Size of the largest packet that an encoder of this format makes."""
        header_bytes = _header_bytes(self.parameters, self.layout)
        return header_bytes + sum(most for _, most in self.section_bounds) + CRC.size

    @property
    def description(self) -> bytes:
        """What every packet is: version, codec, parameters and tensors, as a header says them."""
        parts = [
            bytes((VERSION, self.codec_id, len(self.parameters))),
            self.parameters,
            bytes((len(self.layout),)),
        ]
        for tensor in self.layout:
            parts += _table_entry(tensor)
        return b"".join(parts)

    def seal_keyframe(self, stamp: Stamp, sections: Sequence[memoryview]) -> bytes:
        """The packet around a keyframe's coded tensors, given in the order of the layout."""
        header = PacketHeader(
            self.codec_id,
            self.parameters,
            True,
            stamp.sequence,
            stamp.captured_ns,
            stamp.frame_height,
            stamp.frame_width,
            self.layout,
            tuple(section.nbytes for section in sections),
        ).pack()
        crc = zlib.crc32(header)
        for section in sections:
            crc = zlib.crc32(section, crc)
        return b"".join((header, *sections, CRC.pack(crc)))

    def open_keyframe(self, data: bytes) -> Packet:
        """The keyframe's packet that `data` holds, and nothing else, if it is of this format.

        Compares every declared size with what was agreed and allocates nothing of those sizes.
        Raises TruncatedPacket, CorruptPacket, UnsupportedPacket or LayoutMismatch.
        """
        packet_bytes = declared_packet_bytes(data)
        if packet_bytes > self.max_packet_bytes:
            raise CorruptPacket(
                f"it declares {packet_bytes} bytes, at most {self.max_packet_bytes} were agreed"
            )
        packet = open_keyframe(data)
        header = packet.header
        self._check_codec(header)
        if header.layout != self.layout:
            raise LayoutMismatch(*_first_difference(self.layout, header.layout))
        self.check_sections(header.section_bytes)
        return packet

    def check_sections(self, section_bytes: Sequence[int]) -> None:
        """Raise CorruptPacket where a section has a size that the codec cannot make."""
        for tensor, length, (least, most) in zip(
            self.layout, section_bytes, self.section_bounds, strict=True
        ):
            if not least <= length <= most:
                raise CorruptPacket(f"section of {tensor} has {length} bytes, not {least} to {most}")

    def _check_codec(self, header: PacketHeader) -> None:
        if header.codec_id != self.codec_id:
            raise UnsupportedPacket("codec id", str(self.codec_id), str(header.codec_id))
        if header.parameters != self.parameters:
            raise UnsupportedPacket(
                "codec parameters", repr(self.parameters.hex()), repr(header.parameters.hex())
            )


def declared_packet_bytes(data: bytes) -> int:
    """Size in bytes of the keyframe's packet that starts with `data`; its first 29 bytes are enough.

    Raises TruncatedPacket if there are fewer, CorruptPacket if this is no packet, MissingReference if it is a
    difference's, and UnsupportedPacket if it has another version.
    """
    if is_difference(data):
        raise MissingReference(int.from_bytes(data[:2]) % DIFFERENCE_NUMBERS, None)
    if len(data) < _FIXED.size:
        raise TruncatedPacket(_FIXED.size, len(data))
    magic, version, _, _, _, packet_bytes, *_ = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise CorruptPacket(f"it starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise UnsupportedPacket("version", str(VERSION), str(version))
    if packet_bytes < _FIXED.size + CRC.size:
        raise CorruptPacket(f"it declares {packet_bytes} bytes, less than a header")
    return int(packet_bytes)


def is_difference(start: bytes) -> bool:
    """Whether a packet that starts so is a difference's, which codec/packet_stream.py opens."""
    return start[:1] >= b"\x80"


def is_keyframe(start: bytes) -> bool:
    """Whether a packet of this version that starts so, 5 bytes or more, decodes without a reference."""
    return start.startswith(MAGIC + bytes((VERSION,)))


def open_keyframe(data: bytes) -> Packet:
    """The keyframe's packet that `data` holds, and nothing else, whatever its codec and layout.

    Raises TruncatedPacket, CorruptPacket or UnsupportedPacket.
    """
    packet_bytes = declared_packet_bytes(data)
    if len(data) < packet_bytes:
        raise TruncatedPacket(packet_bytes, len(data))
    if len(data) > packet_bytes:
        raise CorruptPacket(f"{len(data) - packet_bytes} bytes follow it")
    view = memoryview(data)
    (crc,) = CRC.unpack(view[-CRC.size :])
    if crc != zlib.crc32(view[: -CRC.size]):
        raise CorruptPacket("the checksum is wrong")
    header = PacketHeader.parse(data)
    sections, start = [], header.header_bytes
    for length in header.section_bytes:
        sections.append(view[start : start + length])
        start += length
    return Packet(header, tuple(sections))


def _header_bytes(parameters: bytes, layout: Layout) -> int:
    entries = (sum(map(len, _table_entry(tensor))) + _LENGTH.size for tensor in layout)
    return _FIXED.size + len(parameters) + sum(entries)


def _table_entry(tensor: TensorSpec) -> list[bytes]:
    """Name and extents as a tensor table has them."""
    name = tensor.name.encode()
    return [
        bytes((len(name),)), name, bytes((len(tensor.shape),)), *(_EXTENT.pack(extent) for extent in tensor.shape)
    ]  # fmt: skip


def _first_difference(expected: Layout, got: Layout) -> tuple[str, str]:
    pairs = zip_longest(map(str, expected), map(str, got), fillvalue="no further tensor")
    return next(pair for pair in pairs if pair[0] != pair[1])
