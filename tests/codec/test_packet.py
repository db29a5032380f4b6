"""The packet: layout of its bytes, and refusal of every truncation, flip and contradiction."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import (
    BadLayout,
    BitstreamError,
    CorruptPacket,
    LayoutMismatch,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.layout import TensorSpec
from codec.packet import (
    PacketFormat,
    PacketHeader,
    Stamp,
    declared_packet_bytes,
    is_keyframe,
    open_keyframe,
    restamped_keyframe,
)
from codec.spec import parse_codec
from tests.codec.samples import LAYOUT, STAMP, features

SPECS = ["raw", "rle:bits=2", "rle:bits=3", "rle:bits=8", "rle:bits=3,temporal=true"]
RLE = parse_codec("rle:bits=3")
PACKET = RLE.encoder(LAYOUT).encode(features(1), Stamp(*STAMP)).data
HEADER_BYTES = PacketHeader.parse(PACKET).header_bytes


def resealed(data):
    """The packet with an honest checksum."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "big")


def changed(offset, new, data=PACKET):
    return resealed(data[:offset] + new + data[offset + len(new) :])


def decode(data, spec=RLE, layout=LAYOUT):
    return spec.decoder(layout).decode(data)


def test_header_says_what_the_encoder_was_told():
    header = PacketHeader.parse(PACKET)
    assert (header.codec_id, header.parameters, header.keyframe) == (1, b"\x03", True)
    assert (header.sequence, header.captured_ns, header.frame_height, header.frame_width) == STAMP
    assert header.layout == LAYOUT
    assert header.packet_bytes == declared_packet_bytes(PACKET[:29]) == len(PACKET)
    assert PACKET.startswith(header.pack())


def test_header_parses_without_the_sections():
    assert PacketHeader.parse(PACKET[:HEADER_BYTES]) == PacketHeader.parse(PACKET)


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_header_refuses_truncation(size):
    with pytest.raises(TruncatedPacket) as refused:
        PacketHeader.parse(PACKET[:size])
    assert refused.value.got == size < refused.value.needed <= HEADER_BYTES


@pytest.mark.parametrize("size", range(len(PACKET)))
def test_refuses_truncation(size):
    with pytest.raises(TruncatedPacket) as refused:
        decode(PACKET[:size])
    assert refused.value.got == size < refused.value.needed <= len(PACKET)


@pytest.mark.parametrize("text", SPECS)
def test_refuses_every_bit_flip(text):
    spec = parse_codec(text)
    packet = spec.encoder(LAYOUT).encode(features(1), Stamp(*STAMP)).data
    for bit in range(8 * len(packet)):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(BitstreamError):
            decode(bytes(flipped), spec)


@pytest.mark.parametrize("text", SPECS)
def test_an_honest_checksum_over_a_flip_gives_the_right_shapes_or_is_refused(text):
    spec = parse_codec(text)
    packet = spec.encoder(LAYOUT).encode(features(1), Stamp(*STAMP)).data
    outcomes = set()
    for bit in range(8 * (len(packet) - 4)):
        flipped = bytearray(packet)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        outcomes.add(takes(spec, resealed(bytes(flipped))))
    assert outcomes == {True, False}


@given(st.sampled_from(SPECS), st.data())
def test_honest_nonsense_is_refused_or_has_the_right_shapes(text, data):
    """Bytes overwritten, taken out and put in, with the sizes and the checksum made right again or not."""
    spec = parse_codec(text)
    packet = bytearray(spec.encoder(LAYOUT).encode(features(1), Stamp(*STAMP)).data)
    start = data.draw(st.integers(0, len(packet) - 4))
    stop = data.draw(st.integers(start, min(start + 8, len(packet) - 4)))
    packet[start:stop] = data.draw(st.binary(max_size=8))
    if data.draw(st.booleans()) and len(packet) >= 12:
        packet[8:12] = len(packet).to_bytes(4, "big")
    takes(spec, resealed(bytes(packet)))


@given(st.sampled_from(SPECS), st.binary(max_size=200))
def test_noise_is_refused(text, noise):
    for data in (noise, PACKET[:29] + noise, PACKET[:HEADER_BYTES] + noise):
        with pytest.raises(BitstreamError):
            decode(data, parse_codec(text))


def takes(spec, data):
    """Whether the packet is decoded, to what was agreed, rather than refused."""
    try:
        frame = decode(data, spec)
    except BitstreamError:
        return False
    assert {name: (x.shape, x.dtype) for name, x in frame.tensors.items()} == {
        tensor.name: (tensor.shape, np.float32) for tensor in LAYOUT
    }
    assert all(np.isfinite(x).all() for x in frame.tensors.values())
    return True


@pytest.mark.parametrize(
    ("packet", "error", "message"),
    [
        (changed(0, b"JPEG"), CorruptPacket, "starts with"),
        (changed(4, b"\x01"), UnsupportedPacket, "version 1, this decoder takes 2"),
        (changed(5, b"\x07"), UnsupportedPacket, "codec id 7"),
        (changed(6, b"\x01"), CorruptPacket, "reserved flags"),
        (changed(8, bytes(4)), CorruptPacket, "less than a header"),
        (changed(8, b"\xff\xff\xff\xff"), CorruptPacket, "were agreed"),
        (changed(28, b"\x00"), CorruptPacket, "table is empty"),
        (changed(28, b"\xff"), CorruptPacket, "table runs past|bad tensor table"),
        (changed(29, b"\x04"), UnsupportedPacket, "codec parameters"),
        (changed(30, b"\xff"), CorruptPacket, "runs past"),
        (changed(31, b"\xff\xfe"), CorruptPacket, "bad tensor table"),
        (changed(31, b"\n"), CorruptPacket, "control characters"),
        (changed(31, b"5"), LayoutMismatch, "5.m 2x3x4.*4.m 2x3x4"),
        (resealed(PACKET + b"\0"), CorruptPacket, "1 bytes follow"),
        (PACKET[:-1] + bytes((PACKET[-1] ^ 1,)), CorruptPacket, "checksum"),
    ],
)
def test_says_what_is_wrong(packet, error, message):
    with pytest.raises(error, match=message):
        decode(packet)


def test_refuses_sections_of_sizes_that_the_codec_cannot_make():
    """One byte moved from one section to the other: the sum is right, the parts are not."""
    packet = RLE.encoder(LAYOUT).encode(
        {name: np.ones_like(x) for name, x in features(1).items()}, Stamp(0, 0)
    )
    header = PacketHeader.parse(packet.data)
    first, second = header.section_bytes
    sizes = (HEADER_BYTES - 4 - 2 - 2 - len("4.cv2") - 4, HEADER_BYTES - 4)
    data = changed(sizes[0], struct.pack(">I", first - 1), packet.data)
    data = changed(sizes[1], struct.pack(">I", second + 1), data)
    with pytest.raises(CorruptPacket, match=r"section of 4\.m"):
        decode(data)


def test_refuses_two_tensors_of_one_name():
    layout = (TensorSpec("a", (1,)), TensorSpec("b", (1,)))
    one = np.ones(1, np.float32)
    data = RLE.encoder(layout).encode({"a": one, "b": one}, Stamp(0, 0)).data
    with pytest.raises(CorruptPacket, match="one name"):
        open_keyframe(resealed(data.replace(b"\x01b", b"\x01a")))


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT[:1],
        LAYOUT[::-1],
        (TensorSpec("4.m", (2, 4, 3)), LAYOUT[1]),
        (TensorSpec("4.n", (2, 3, 4)), LAYOUT[1]),
    ],
)
def test_refuses_another_layout(layout):
    with pytest.raises(LayoutMismatch):
        decode(RLE.encoder(layout).encode(features(1, layout), Stamp(0, 0)).data)


def test_a_large_layout_is_refused_before_its_packet_is_complete():
    huge = (TensorSpec("4.m", (65535, 65535)),)
    start = PacketHeader(1, b"\x03", True, 0, 0, 0, 0, huge, (2**31,)).pack()
    with pytest.raises(CorruptPacket, match="were agreed"):
        decode(start)


@pytest.mark.parametrize("text", ["raw", "rle:bits=2", "rle:bits=5", "rle:bits=8,temporal=true"])
def test_largest_packet_has_exactly_the_bound(text):
    spec = parse_codec(text)
    # Never the minimum but once, at the end: no runs and as many codewords as there can be.
    frame = {}
    for tensor in LAYOUT:
        frame[tensor.name] = np.ones(tensor.shape, np.float32)
        frame[tensor.name].flat[-1] = -1
    assert (
        len(spec.encoder(LAYOUT).encode(frame, Stamp(0, 0)).data)
        == spec.packet_format(LAYOUT).max_packet_bytes
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("", (1,)),
        ("x" * 65, (1,)),
        ("é" * 33, (1,)),
        ("a\nb", (1,)),
        ("\x9b", (1,)),
        ("\ud800", (1,)),
        ("x", ()),
        ("x", (1,) * 9),
        ("x", (0,)),
        ("x", (65536,)),
        ("x", (-1,)),
    ],
)
def test_refuses_a_tensor_that_no_table_can_hold(name, shape):
    with pytest.raises(BadLayout):
        TensorSpec(name, shape)


@pytest.mark.parametrize(
    "layout",
    [
        (),
        (TensorSpec("x", (1,)), TensorSpec("x", (2,))),
        tuple(TensorSpec(str(i), (1,)) for i in range(256)),
        (TensorSpec("x", (65535, 65535, 3)),),
    ],
)
def test_refuses_a_layout_that_no_packet_can_hold(layout):
    with pytest.raises(BadLayout):
        RLE.packet_format(layout)


@pytest.mark.parametrize("field", ["sequence", "captured_ns", "frame_height", "frame_width"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_refuses_a_stamp_that_no_header_can_hold(field, value):
    with pytest.raises(ValueError, match="does not fit"):
        Stamp(**{"sequence": 0, "captured_ns": 0, field: value})


def test_greatest_stamp_travels():
    stamp = (2**32 - 1, 2**64 - 1, 65535, 65535)
    header = decode(RLE.encoder(LAYOUT).encode(features(1), Stamp(*stamp)).data).header
    assert (header.sequence, header.captured_ns, header.frame_height, header.frame_width) == stamp


@given(st.lists(st.tuples(st.text(max_size=70), st.lists(st.integers(-1, 66000), max_size=9)), max_size=6))
def test_every_layout_has_a_header_or_is_refused(tensors):
    try:
        layout = tuple(TensorSpec(name, tuple(shape)) for name, shape in tensors)
        agreed = PacketFormat(1, b"\x02", False, layout, tuple((0, 9) for _ in layout))
    except BadLayout:
        return
    header = PacketHeader(
        agreed.codec_id, agreed.parameters, True, 1, 2, 3, 4, layout, tuple(range(len(layout)))
    )
    assert PacketHeader.parse(header.pack()) == header


def test_a_packet_that_is_sent_again_has_another_stamp_and_nothing_else():
    sequence, captured_ns = 2**32 - 1, 2**64 - 1
    again = open_keyframe(restamped_keyframe(PACKET, sequence, captured_ns))
    before = open_keyframe(PACKET)
    assert (again.header.sequence, again.header.captured_ns) == (sequence, captured_ns)
    assert again.sections == before.sections
    assert (
        restamped_keyframe(
            restamped_keyframe(PACKET, 5, 6), before.header.sequence, before.header.captured_ns
        )
        == PACKET
    )


def test_tells_keyframes_by_their_first_bytes():
    assert is_keyframe(PACKET[:5])
    assert not any(map(is_keyframe, (b"", PACKET[:4], b"SPLC\x01", b"SPCP\x02", b"\xc0" + PACKET)))
