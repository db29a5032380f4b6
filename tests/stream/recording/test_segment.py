"""A recording's file: what is written is read, up to wherever it was cut, and whatever follows."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from codec.feature.codec import Feature
from codec.feature.profile import MAX_PROFILE_BYTES
from codec.packet import DIFFERENCE_NUMBERS, Stamp
from codec.packet_stream import PacketWriter
from stream.errors import NoRecording
from stream.recording.records import (
    FILE_START,
    PACKET_RECORD_BYTES,
    RecordType,
    pack_packet,
    pack_record,
    read_records,
)
from stream.recording.segment import Segment, SegmentHead
from tests.codec.calibrated import make_profile
from tests.recordings import FORMAT, INTERVAL_NS, LAYOUT, MONOTONIC_NS, hello, packets, read, segment_bytes
from tests.vectors.make import VECTORS

CODED = packets(4, keyframes=(0, 2))
FILE = segment_bytes(CODED)
HEAD_BYTES = len(SegmentHead(hello()).pack())
GARBAGE = [
    b"",
    bytes(64),
    b"\xff" * 64,
    np.random.default_rng(0).bytes(64),
    FILE[:64],
    pack_packet(CODED[1], 1)[:-1],
]


def ends() -> list[int]:
    """Where each packet's record ends."""
    return list(np.cumsum([HEAD_BYTES, *(PACKET_RECORD_BYTES + len(packet) for packet in CODED)])[1:])


def test_packets_come_back_as_they_were_made():
    segment, read_back = read(FILE)
    assert [packet.data for packet in read_back] == CODED
    assert [packet.captured_ns for packet in read_back] == [
        MONOTONIC_NS + INTERVAL_NS * at for at in range(4)
    ]
    assert [packet.keyframe for packet in read_back] == [True, False, True, False]
    assert (segment.ended, segment.whole_bytes) == (True, len(FILE))
    assert segment.hello == hello().model_copy(update={"session": None})
    assert segment.layout == LAYOUT


def test_the_secret_is_not_written():
    assert b"aaaaaaaa" not in FILE
    assert "session" not in json.loads(FILE[10 : 10 + struct.unpack(">I", FILE[6:10])[0]])


@pytest.mark.parametrize("garbage", GARBAGE, ids=["none", "zeros", "ones", "noise", "a file", "a record"])
def test_a_file_cut_anywhere_plays_up_to_the_cut(garbage):
    for cut in range(len(FILE)):
        whole = [packet for packet, end in zip(CODED, ends(), strict=True) if end <= cut]
        try:
            segment, read_back = read(FILE[:cut] + garbage)
        except NoRecording:
            assert cut < HEAD_BYTES
            continue
        assert [packet.data for packet in read_back] == whole
        assert not segment.ended
        assert segment.whole_bytes == max([HEAD_BYTES, *(end for end in ends() if end <= cut)])


def test_a_changed_byte_costs_what_follows_in_the_file_and_nothing_before():
    for at in range(HEAD_BYTES, len(FILE)):
        data = bytearray(FILE)
        data[at] ^= 0x10
        whole = [packet for packet, end in zip(CODED, ends(), strict=True) if end <= at]
        assert [packet.data for packet in read(bytes(data))[1]] == whole


@pytest.mark.parametrize("start", [b"SPLC\2", b"SPLR\2", b"RIFF", b"x"])
def test_another_kind_of_file_is_refused(start):
    with pytest.raises(NoRecording, match=r"version 2|begins with"):
        read(start + FILE[len(start) :])


@pytest.mark.parametrize("data", [b"", FILE[:3], FILE[:5], FILE[:100]])
def test_a_file_without_a_session_says_so(data):
    with pytest.raises(NoRecording, match="before its first packet"):
        read(data)


@pytest.mark.parametrize(
    "session", [b"\xff", b"{}", b'{"type":"report","captured":0,"detected":0,"in_flight":0}']
)
def test_a_session_that_is_no_hello_is_refused(session):
    with pytest.raises(NoRecording, match="session"):
        read(FILE_START + pack_record(RecordType.SESSION, session))


def test_a_trial_is_no_hello():
    """A detector answers its packets and detects on none: a replay would wait for ever."""
    trial = hello().model_copy(update={"type": "trial"}).model_dump_json(exclude={"session"})
    with pytest.raises(NoRecording, match="its session is a trial, not a hello"):
        read(FILE_START + pack_record(RecordType.SESSION, trial.encode()))


def test_a_record_of_type_zero_ends_the_reading():
    """Even one with a right checksum: it is what a disk may hold where nothing was written."""
    nothing = bytes(5) + struct.pack(">I", zlib.crc32(bytes(5)))
    at = ends()[1]
    assert [packet.data for packet in read(FILE[:at] + nothing + FILE[at:])[1]] == CODED[:2]


@pytest.mark.parametrize(("size", "end"), [(2**32 - 1, 2**40), (MAX_PROFILE_BYTES, 100), (64 * 1024, 100)])
@pytest.mark.parametrize("kind", [*RecordType, 9, 255])
def test_a_declared_size_is_checked_before_anything_is_allocated(kind, size, end):
    """Against what the type may have, where a sparse file is as long as it says, and against the file's end."""

    class Endless(io.BytesIO):
        def read(self, size=-1):
            assert size <= 64
            return super().read(size)

    data = struct.pack(">BI", kind, size)
    tracemalloc.start()
    assert list(read_records(Endless(data), 0, end)) == []
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_packet_larger_than_any_of_the_codec_ends_the_reading():
    segment = Segment(io.BytesIO(FILE), len(FILE))
    assert list(segment.packets(segment.first_packet, min(map(len, CODED)) - 1)) == []
    assert len(list(segment.packets(segment.first_packet, max(map(len, CODED))))) == len(CODED)


def test_records_of_a_later_version_are_skipped():
    later = struct.pack(">BI", 77, 3) + b"new"
    later += struct.pack(">I", zlib.crc32(later))
    split = ends()[1]
    read_back = read(FILE[:HEAD_BYTES] + later + FILE[HEAD_BYTES:split] + later + FILE[split:])[1]
    assert [packet.data for packet in read_back] == CODED


def test_differences_without_a_keyframe_are_left_out():
    assert [packet.data for packet in read(segment_bytes(CODED[1:]))[1]] == CODED[2:]


def test_what_hangs_on_a_missing_packet_is_left_out():
    coded = packets(7, keyframes=(0, 5))
    assert [packet.data for packet in read(segment_bytes([*coded[:2], *coded[3:]]))[1]] == coded[:2] + coded[
        5:
    ]


SHORT = (bytes((0x80, 0, 0, 0, 0, 0)), b"\x80\0" + b"\x80" * 6, b"\x80\0" + b"\x80" * 4 + b"\1\0")


def test_what_is_no_packet_ends_the_reading():
    for wrong in (*SHORT, CODED[0][:-1], b"SPLC\2" + bytes(40)):
        data = segment_bytes([*CODED[:2], wrong, *CODED[2:]])
        assert [packet.data for packet in read(data)[1]] == CODED[:2]


def test_a_recording_brings_its_profile():
    profile = make_profile(LAYOUT, 3)
    codec = Feature(quality=6, profile=profile, profile_is_open=False)
    head = SegmentHead(hello().model_copy(update={"codec": str(codec)}), profile)
    segment = Segment(io.BytesIO(head.pack()), len(head.pack()))
    assert segment.codec() == codec
    without = SegmentHead(head.hello).pack()
    with pytest.raises(NoRecording, match="profile"):
        Segment(io.BytesIO(without), len(without)).codec()


@pytest.mark.parametrize("codec", ["none:x=1", "rle:bits=99"])
def test_a_codec_that_nobody_knows_is_refused(codec):
    data = segment_bytes([], hello().model_copy(update={"codec": codec}))
    with pytest.raises(NoRecording, match="codec"):
        read(data)[0].codec()


def test_only_time_may_change_within_a_file():
    head = SegmentHead(hello())
    assert head.is_continued_by(SegmentHead(hello(restarted_ns=10**9).model_copy(update={"frame": 7})))
    assert head.is_continued_by(SegmentHead(hello().model_copy(update={"session": "b" * 32})))
    assert not head.is_continued_by(SegmentHead(hello(canvas=(64, 32))))
    assert head.is_continued_by(head.set_by(400_000_000))
    assert not head.is_continued_by(SegmentHead(hello("yard")))


@pytest.mark.parametrize("step_ns", [3600 * 10**9, -3600 * 10**9])
def test_a_time_of_day_that_was_set_begins_another_file(step_ns):
    head = SegmentHead(hello())
    then, now = head.hello.clock, head.set_by(step_ns).hello.clock
    assert (now.monotonic_ns, now.unix_ns) == (then.monotonic_ns, then.unix_ns + step_ns)
    assert not head.is_continued_by(head.set_by(step_ns))


def test_nothing_is_read_behind_the_end():
    segment, read_back = read(FILE + FILE[HEAD_BYTES:])
    assert [packet.data for packet in read_back] == CODED
    assert segment.whole_bytes == len(FILE)


def test_the_first_session_is_that_of_the_file():
    session = SegmentHead(hello("yard")).pack()[len(FILE_START) :]
    segment, _ = read(FILE[:HEAD_BYTES] + session + FILE[HEAD_BYTES:])
    assert (segment.hello.stream, segment.first_packet) == ("door", HEAD_BYTES)


def test_what_was_read_once_stays_known_when_it_is_read_again():
    segment, _ = read(FILE)
    next(segment.packets(segment.first_packet, 2**20))
    assert segment.whole_bytes == len(FILE)


def test_numbers_of_packets_begin_again_at_zero():
    writer, made = PacketWriter(FORMAT), []
    for number in range(DIFFERENCE_NUMBERS - 2, DIFFERENCE_NUMBERS + 2):
        body = memoryview(bytes(FORMAT.section_bounds[0][0]))
        stamp = Stamp(number, MONOTONIC_NS + INTERVAL_NS * number, 32, 32)
        made.append(writer.seal(stamp, not made, [body]))
    assert [packet.data for packet in read(segment_bytes(made))[1]] == made
    assert [packet.data for packet in read(segment_bytes([*made[:2], made[3]]))[1]] == made[:2]


def test_version_1_stays_readable():
    """The file is as `python -m tests.vectors.make` wrote it once."""
    segment, read_back = read((VECTORS / "recording-1.spr").read_bytes())
    assert [(packet.data, packet.captured_ns) for packet in read_back] == [
        (packet, MONOTONIC_NS + INTERVAL_NS * at) for at, packet in enumerate(CODED)
    ]
    assert (segment.hello, segment.ended) == (hello().model_copy(update={"session": None}), True)
