"""Differences as packets: what they leave out, and refusal of every truncation, flip and other stream."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import (
    BitstreamError,
    CorruptPacket,
    MissingReference,
    TruncatedPacket,
    UnsupportedPacket,
)
from codec.layout import TensorSpec
from codec.packet import PacketFormat, PacketHeader, Stamp, is_keyframe
from codec.packet_stream import PacketReader, PacketWriter, restamped
from codec.spec import parse_codec
from tests.codec.samples import LAYOUT, features, video

LAYOUT_3 = (*LAYOUT, TensorSpec("9", (1,)))
OPEN = PacketFormat(1, b"\x04", True, LAYOUT_3, ((0, 300), (1, 9), (7, 7)))  # the last has always 7 bytes
CLOSED = PacketFormat(2, bytes(8), True, LAYOUT, ((3, 3), (0, 0)))
TIMES = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 2**16 - 1)
KEY = Stamp(7, 10**12, 480, 640)


def sections(*sizes):
    return [memoryview(bytes((index + 1,)) * size) for index, size in enumerate(sizes)]


def stream(form, *stamps, sizes=(200, 2, 7)):
    """A keyframe's packet and differences, with these stamps."""
    writer = PacketWriter(form)
    return [writer.seal(stamp, index == 0, sections(*sizes)) for index, stamp in enumerate(stamps)]


def read_all(form, packets):
    reader, opened = PacketReader(form), []
    for packet in packets:
        opened.append(reader.open(packet))
        reader.accept(opened[-1])
    return opened


def reader_after(form, packets):
    reader = PacketReader(form)
    for packet in packets:
        reader.accept(reader.open(packet))
    return reader


def resealed(form, data):
    """With an honest checksum."""
    return data[:-4] + zlib.crc32(form.description + data[:-4]).to_bytes(4, "big")


NEXT = Stamp(8, KEY.captured_ns + 66_666_667, 480, 640)
PACKETS = stream(OPEN, KEY, NEXT)
DIFFERENCE = PACKETS[1]


def test_an_empty_difference_has_a_few_bytes():
    assert len(DIFFERENCE) == 2 + 4 + (2 + 0) + 1 + (200 + 2 + 7) + 4 - 1
    closed = stream(CLOSED, KEY, NEXT, sizes=(3, 0))
    assert len(closed[1]) == 2 + 4 + 3 + 4


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(TIMES, SIZES, SIZES), min_size=2, max_size=5), st.data())
def test_every_stamp_and_section_comes_back(first, told, data):
    stamps = [Stamp((first + index) % 2**32, *rest) for index, rest in enumerate(told)]
    writer, reader = PacketWriter(OPEN), PacketReader(OPEN)
    for index, stamp in enumerate(stamps):
        sent = sections(data.draw(st.integers(0, 300)), data.draw(st.integers(1, 9)), 7)
        packet = writer.seal(stamp, index == 0, sent)
        opened = reader.open(packet)
        reader.accept(opened)
        header = opened.header
        assert Stamp(header.sequence, header.captured_ns, header.frame_height, header.frame_width) == stamp
        assert (header.keyframe, header.layout, header.parameters) == (index == 0, LAYOUT_3, b"\x04")
        assert [bytes(section) for section in opened.sections] == [bytes(section) for section in sent]
        assert header.section_bytes == tuple(section.nbytes for section in sent)
        assert len(packet) <= OPEN.max_packet_bytes
        assert is_keyframe(packet) == (index == 0)


def test_the_picture_is_told_where_it_changes():
    sizes = [(480, 640), (480, 640), (360, 640), (360, 640)]
    stamps = [Stamp(index, index, *size) for index, size in enumerate(sizes)]
    packets = stream(OPEN, *stamps)
    opened = read_all(OPEN, packets)
    assert [(packet.header.frame_height, packet.header.frame_width) for packet in opened] == sizes
    assert [len(packet) for packet in packets[1:]] == [len(packets[1]) + more for more in (0, 4, 0)]


@pytest.mark.parametrize("size", range(1, len(DIFFERENCE)))
def test_refuses_truncation(size):
    reader = reader_after(OPEN, PACKETS[:1])
    with pytest.raises(TruncatedPacket if size < 7 else CorruptPacket):  # start, time and checksum
        reader.open(DIFFERENCE[:size])
    with pytest.raises(MissingReference):
        reader.open(DIFFERENCE)


def test_refuses_every_bit_flip_as_damage():
    """But for the bit that makes a difference of it: what is left is no keyframe, nor the start of one."""
    for bit in range(8 * len(DIFFERENCE)):
        flipped = bytearray(DIFFERENCE)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(CorruptPacket):
            reader_after(OPEN, PACKETS[:1]).open(bytes(flipped))


@pytest.mark.parametrize(
    "other",
    [
        PacketFormat(2, b"\x04", True, LAYOUT_3, OPEN.section_bounds),
        PacketFormat(1, b"\x05", True, LAYOUT_3, OPEN.section_bounds),
        PacketFormat(1, b"\x04", True, (*LAYOUT, TensorSpec("8", (1,))), OPEN.section_bounds),
        PacketFormat(1, b"\x04", True, (LAYOUT[1], LAYOUT[0], LAYOUT_3[2]), OPEN.section_bounds),
        PacketFormat(1, b"\x04", True, (TensorSpec("4.m", (2, 4, 3)), *LAYOUT_3[1:]), OPEN.section_bounds),
    ],
)
def test_refuses_a_difference_of_another_codec_or_layout(other):
    with pytest.raises(CorruptPacket, match="checksum is wrong, or it is of another codec"):
        reader_after(OPEN, PACKETS[:1]).open(stream(other, KEY, NEXT)[1])


def test_refuses_a_difference_where_keyframes_were_agreed():
    keyframes = PacketFormat(1, b"\x04", False, LAYOUT_3, OPEN.section_bounds)
    with pytest.raises(UnsupportedPacket, match="keyframes only"):
        reader_after(keyframes, PACKETS[:1]).open(DIFFERENCE)


@pytest.mark.parametrize("ahead", [-1, 0, 2, 3, 2**14 - 1, 2**14])
def test_refuses_a_difference_that_does_not_follow(ahead):
    first = 2**32 - 5
    stamps = [Stamp((first + index) % 2**32, index) for index in range(12)]
    packets = stream(OPEN, *stamps)
    reader = reader_after(OPEN, packets[:6])
    start = (0x8000 + (first + 5 + ahead) % 2**14).to_bytes(2, "big")
    with pytest.raises(MissingReference) as refused:
        reader.open(resealed(OPEN, start + packets[6][2:]))
    assert refused.value.held == (first + 5) % 2**32
    assert (refused.value.sequence - first - 5 - ahead) % 2**14 == 0


def test_refuses_a_difference_before_any_keyframe():
    with pytest.raises(MissingReference, match="holds no frame"):
        PacketReader(OPEN).open(DIFFERENCE)
    with pytest.raises(MissingReference, match="holds no frame"):
        PacketHeader.parse(DIFFERENCE)


def test_refuses_a_difference_after_a_packet_that_was_not_accepted():
    packets = stream(OPEN, KEY, NEXT, Stamp(9, 0))
    reader = reader_after(OPEN, packets[:1])
    reader.open(packets[1])
    with pytest.raises(MissingReference):
        reader.open(packets[2])
    reader = reader_after(OPEN, packets[:2])
    reader.reset()
    with pytest.raises(MissingReference):
        reader.open(packets[2])


START = DIFFERENCE[:2]


@pytest.mark.parametrize(
    ("form", "body", "message"),
    [
        (OPEN, b"\x80\x01" + DIFFERENCE[6:-4], "begins with zeros"),  # the time
        (OPEN, b"\x83" + b"\xff" * 8 + b"\x7f" + DIFFERENCE[6:-4], "64 bits"),
        (OPEN, b"\xff" * 40, "64 bits"),
        (OPEN, b"\xff", "ends inside"),
        (OPEN, b"\x01", "ends inside"),  # no size of the first section
        (OPEN, b"\x01\x80\x01" + bytes(20), "begins with zeros"),
        (OPEN, b"\x01\x82\x2d" + bytes(308), "section of 4.m .* has 301 bytes, not 0 to 300"),
        (OPEN, b"\x01\x81" + b"\xff" * 8 + b"\x7f" + bytes(20), "section of 4.m .* not 0 to 300"),
        (OPEN, b"\x01\x05" + bytes(5 + 7), "section of 4.cv2 .* has 0 bytes, not 1 to 9"),
        (OPEN, b"\x01\x05" + bytes(5 + 10 + 7), "section of 4.cv2 .* has 10 bytes, not 1 to 9"),
        (OPEN, b"\x01\x05" + bytes(3), "section of 4.cv2 .* has -9 bytes"),
        (OPEN, b"\x01\x05" + bytes(600), "at most .* were agreed"),
        (CLOSED, b"\x01" + bytes(4), "its sections end at byte 6, not 7"),
        (CLOSED, b"\x01" + bytes(2), "its sections end at byte 6, not 5"),
    ],
)
def test_refuses_what_contradicts_itself(form, body, message):
    """Honest checksums, hostile numbers."""
    keyframe = stream(form, KEY, sizes=(200, 2, 7) if form is OPEN else (3, 0))
    with pytest.raises(CorruptPacket, match=message):
        reader_after(form, keyframe).open(resealed(form, START + body + bytes(4)))


def test_refuses_a_picture_that_ends_early():
    resized = bytes((START[0] | 0x40, START[1]))
    for size in range(4):
        with pytest.raises(CorruptPacket):
            reader_after(OPEN, PACKETS[:1]).open(resealed(OPEN, resized + b"\x01" + bytes(size + 4)))


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused_or_of_the_agreed_format(noise, honest):
    data = b"\x80\x08" + noise + bytes(4)
    try:
        opened = reader_after(OPEN, PACKETS[:1]).open(resealed(OPEN, data) if honest else data)
    except BitstreamError:
        return
    assert opened.header.section_bytes == tuple(map(len, opened.sections))
    assert all(
        least <= len(part) <= most
        for part, (least, most) in zip(opened.sections, OPEN.section_bounds, strict=True)
    )


@pytest.mark.parametrize("text", ["rle:bits=4,temporal=true", "feature:profile=none"])
def test_packets_that_are_sent_again_have_another_stamp_and_nothing_else(text):
    codec = parse_codec(text)
    form, encoder = codec.packet_format(LAYOUT), codec.encoder(LAYOUT)
    packets = [
        encoder.encode(frame, Stamp(index, 5 * index, 8, 9)).data for index, frame in enumerate(video(1, 4))
    ]
    times = [2**40, 2**40 + 7, 2**40 + 7, 2**63]
    again = [
        restamped(packet, form, (2**32 - 2 + index) % 2**32, now, now - before)
        for index, (packet, (before, now)) in enumerate(zip(packets, pairwise([0, *times]), strict=True))
    ]
    decoder, expected = codec.decoder(LAYOUT), codec.decoder(LAYOUT)
    for index, (packet, original) in enumerate(zip(again, packets, strict=True)):
        frame, same = decoder.decode(packet), expected.decode(original)
        assert frame.header.sequence == (2**32 - 2 + index) % 2**32
        assert frame.header.captured_ns == times[index]
        assert (frame.header.frame_height, frame.header.frame_width) == (8, 9)
        assert all(np.array_equal(frame.tensors[name], tensor) for name, tensor in same.tensors.items())


@pytest.mark.parametrize(
    ("text", "most"), [("feature:profile=none", 15), ("rle:bits=4,temporal=true", 2 + 4 + 1 + 4 + 20)]
)
def test_a_picture_that_stands_still_costs_next_to_nothing(text, most):
    """rle says the range of both tensors, in 16 bytes, and two runs."""
    encoder = parse_codec(text).encoder(LAYOUT)
    packets = [
        encoder.encode(features(1), Stamp(index, 66_666_667 * index, 480, 640)).data for index in range(5)
    ]
    assert all(map(is_keyframe, packets[:1]))
    assert not any(map(is_keyframe, packets[1:]))
    assert len(packets[-1]) <= most
