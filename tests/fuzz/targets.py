"""What is fuzzed: everything that reads bytes from outside. A target takes any bytes and breaks its promise or not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from codec.errors import BitstreamError, CodecError, MissingReference
from codec.feature.codec import Feature
from codec.feature.profile import Profile
from codec.layout import Layout
from codec.packet import Packet, PacketFormat, Stamp, is_keyframe, open_keyframe
from codec.packet_file import read_packets
from codec.packet_stream import PacketReader, PacketWriter, restamped
from codec.spec import Codec, codec_of_packet, parse_codec
from stream.errors import NoRecording
from stream.recording.records import FILE_START
from stream.recording.segment import Segment
from tests.recordings import FORMAT
from tests.vectors import make

STATE_BYTES = 4  # of a difference's payload, behind its step


class Broken(Exception):
    """A promise that was not kept. What is raised besides it and CodecError is a finding too."""


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes any bytes; `seeds` are some that go deep."""

    run: Callable[[bytes], None]
    seeds: list[bytes]


def packet_headers() -> Target:
    """Keyframes of every codec, parsed without anything agreed; once as they are and once with a right checksum."""

    def run(data: bytes) -> None:
        for packet in (data, _resealed(data)):
            try:
                header = open_keyframe(packet).header
                codec_of_packet(header)
            except CodecError:
                continue
            if header.pack() != packet[: header.header_bytes]:
                raise Broken("a header that is packed otherwise than it was")

    golden = [packet for name in (*make.CODECS, *make.FEATURE) for packet in _golden(name)]
    return Target(run, [packet for packet in golden if is_keyframe(packet)])


def difference_packets() -> Target:
    """Differences after a good keyframe: once as they are and once with a right checksum."""
    codec, layout, packets = _stream("rle-4-temporal")
    form = codec.packet_format(layout)
    keyframe = _opened(form, packets[:1])[0]

    def run(data: bytes) -> None:
        for packet in (data, data[:-4] + struct.pack(">I", zlib.crc32(form.description + data[:-4]))):
            reader = PacketReader(form)
            reader.accept(keyframe)
            try:
                opened = reader.open(packet)
            except CodecError:
                continue
            header = opened.header
            stamp = Stamp(header.sequence, header.captured_ns, header.frame_height, header.frame_width)
            again = packet if header.keyframe else _sealed(form, keyframe, opened.sections, stamp)
            # Only a picture's size may be told where it is the same.
            if again != packet and not packet[0] & 0x40:
                raise Broken("a difference that is sealed otherwise than it was")

    return Target(run, packets[1:3])


def _resealed(data: bytes) -> bytes:
    """With the size and the checksum that the bytes have."""
    if len(data) < 33:
        return data
    data = data[:8] + struct.pack(">I", len(data)) + data[12:-4]
    return data + struct.pack(">I", zlib.crc32(data))


def profile_files() -> Target:
    """Profiles as files."""

    def run(data: bytes) -> None:
        try:
            profile = Profile.parse(data)
        except CodecError:
            return
        if profile.pack() != data:
            raise Broken("a profile that is packed otherwise than it was")

    packed = (make.VECTORS / "feature.profile").read_bytes()
    return Target(run, [packed[:64], packed])


def profile_values() -> Target:
    """Changed bytes in a profile, which then decodes packets made for it."""
    golden = (make.VECTORS / "feature.profile").read_bytes()
    packets = _opened(
        make.feature_codec("feature").packet_format(make.FEATURE_LAYOUT), _golden("feature")[:3]
    )

    def run(data: bytes) -> None:
        changed = np.frombuffer(golden, np.uint8).copy()
        for at in range(0, len(data) - 3, 4):
            changed[int.from_bytes(data[at : at + 3], "big") % len(changed)] = data[at + 3]
        try:
            profile = Profile.parse(changed.tobytes())
        except CodecError:
            return
        codec = Feature(profile=profile)
        decoder, writer = (
            codec.decoder(make.FEATURE_LAYOUT),
            PacketWriter(codec.packet_format(make.FEATURE_LAYOUT)),
        )
        for packet in packets:
            header = packet.header
            sealed = writer.seal(Stamp(header.sequence, 0), header.keyframe, packet.sections)
            try:
                decoded = decoder.decode(sealed)
            except BitstreamError:
                continue
            _check(decoded.tensors, make.FEATURE_LAYOUT)

    return Target(run, [b"\0\0\x40\x01", b"\0\x20\0\xff\1\0\0\x40"])


def recordings() -> Target:
    """Files of recordings: once as they are, and once with right checksums of every record."""

    def run(data: bytes) -> None:
        for file in (data, _with_checksums(data)):
            try:
                segment = Segment(io.BytesIO(file), len(file))
                most = segment.packet_format(segment.codec()).max_packet_bytes
            except NoRecording:
                continue
            before = None
            for packet in segment.packets(segment.first_packet, min(most, 2**20)):
                if before is None and not packet.keyframe:
                    raise Broken("a difference comes first")
                again = restamped(packet.data, FORMAT, 7, 8, 9)
                if len(again) > len(packet.data) + 9:
                    raise Broken("another time makes a packet much longer")
                before = packet
            if not segment.first_packet <= segment.whole_bytes <= len(file):
                raise Broken("it has read more than there is")

    golden = (make.VECTORS / "recording-1.spr").read_bytes()
    return Target(run, [golden, golden[:-60]])


def _with_checksums(data: bytes) -> bytes:
    """The same records, as far as their sizes go, each with the checksum that it should have."""
    at, out = len(FILE_START), bytearray(data)
    while at + 9 <= len(out):
        end = at + 5 + int.from_bytes(out[at + 1 : at + 5], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at:end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def decoder(name: str) -> Target:
    """A stream's decoder, after some good packets: the first byte says how many, the rest is the next packet."""
    codec, layout, packets = _stream(name)
    instance = codec.decoder(layout)

    def run(data: bytes) -> None:
        if data:
            index = data[0] % len(packets)
            _decode(instance, layout, packets, index, data[1:])

    return Target(run, [bytes((index,)) + packet for index, packet in enumerate(packets)])


def sections(name: str) -> Target:
    """As `decoder`, but the rest is what the next packet has in its sections; all around them is right."""
    codec, layout, packets = _stream(name)
    instance, form = codec.decoder(layout), codec.packet_format(layout)
    opened = _opened(form, packets)

    def run(data: bytes) -> None:
        if not data:
            return
        index = data[0] % len(packets)
        header, body = opened[index].header, data[1:]
        if isinstance(codec, Feature):
            if not header.keyframe:
                state = bytes(opened[index].sections[0][1 : 1 + STATE_BYTES])
                body = body[:1] + state + body[1:]
            parts = [body, *(b"" for _ in layout[1:])]
        else:
            parts = _split(body, len(layout))
        stamp, body_parts = Stamp(header.sequence, header.captured_ns), list(map(memoryview, parts))
        if header.keyframe:
            packet = form.seal_keyframe(stamp, body_parts)
        else:
            packet = _sealed(form, opened[index - 1], body_parts, stamp)
        _decode(instance, layout, packets, index, packet)

    return Target(run, [bytes((index,)) + _joined(codec, packet) for index, packet in enumerate(opened)])


def _split(body: bytes, count: int) -> list[bytes]:
    """Parts with their sizes before them, in two bytes; the last has what is left."""
    parts = []
    for _ in range(count - 1):
        size = int.from_bytes(body[:2], "big")
        parts.append(body[2 : 2 + size])
        body = body[2 + size :]
    return [*parts, body]


def _joined(codec: Codec, packet: Packet) -> bytes:
    parts = [bytes(section) for section in packet.sections]
    if isinstance(codec, Feature):
        return parts[0] if packet.header.keyframe else parts[0][:1] + parts[0][1 + STATE_BYTES :]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts[:-1]) + parts[-1]


def _decode(instance, layout: Layout, packets: list[bytes], index: int, packet: bytes) -> None:
    for earlier in packets[:index]:
        instance.decode(earlier)
    try:
        decoded = instance.decode(packet)
    except BitstreamError:
        for other in packets:
            if not is_keyframe(other):
                try:
                    instance.decode(other)
                except MissingReference:
                    break
                raise Broken("a difference is taken after a refused packet") from None
        return
    _check(decoded.tensors, layout)


def _check(tensors: dict[str, np.ndarray], layout: Layout) -> None:
    if [(name, tensor.shape) for name, tensor in tensors.items()] != [
        (spec.name, spec.shape) for spec in layout
    ]:
        raise Broken("tensors of another layout")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise Broken("a tensor that is not finite")


def _golden(name: str) -> list[bytes]:
    return list(read_packets(make.VECTORS / f"{name}.packets"))


def _opened(form: PacketFormat, packets: list[bytes]) -> list[Packet]:
    reader, opened = PacketReader(form), []
    for packet in packets:
        opened.append(reader.open(packet))
        reader.accept(opened[-1])
    return opened


def _sealed(form: PacketFormat, before: Packet, sections: Sequence[memoryview], stamp: Stamp) -> bytes:
    """A difference's packet, behind that packet."""
    header, writer = before.header, PacketWriter(form)
    writer.seal(
        Stamp(header.sequence, header.captured_ns, header.frame_height, header.frame_width),
        True,
        before.sections,
    )
    return writer.seal(stamp, False, sections)


def _stream(name: str) -> tuple[Codec, Layout, list[bytes]]:
    if name in make.FEATURE:
        return make.feature_codec(name), make.FEATURE_LAYOUT, _golden(name)
    return parse_codec(make.CODECS[name]), make.layout(), _golden(name)


STREAMS = ("raw", "rle-3", "rle-4-temporal", *make.FEATURE)

TARGETS: dict[str, Callable[[], Target]] = {
    "packet": packet_headers,
    "difference": difference_packets,
    "profile": profile_files,
    "profile values": profile_values,
    "recording": recordings,
    **{name: lambda name=name: decoder(name) for name in STREAMS},
    **{f"{name} sections": lambda name=name: sections(name) for name in STREAMS},
}
"""By name, made when they are asked for."""
