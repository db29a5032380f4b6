"""The recorder as the event loop sees it: it never waits for a disk, and counts what that costs."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from codec.interface import EncodedFrame
from services.clock import ClockWatch
from services.recording import recorder as module
from services.recording.folder import segment_files
from services.recording.limits import RecordingLimits
from services.recording.recorder import Recorder
from services.recording.segment_writer import SegmentWriter, Written
from tests.recordings import hello, packets, read
from tests.services.test_clock import Clocks, replace_clocks
from tests.services.waiting import LIVENESS_S, until

LIMITS = RecordingLimits(2**24, 2**22, 3600.0)


def encoded(packet: bytes) -> EncodedFrame:
    keyframe = packet.startswith(b"SPLC")
    return EncodedFrame(packet, keyframe, "first" if keyframe else None)


def kept(folder) -> list[bytes]:
    return [packet.data for file in segment_files(folder) for packet in read(file.path.read_bytes())[1]]


async def test_what_is_offered_is_there_when_the_context_ends(tmp_path):
    coded = packets(50)
    async with Recorder(tmp_path, "door", LIMITS) as recorder:
        recorder.begin(hello(), None)
        for packet in coded:
            recorder.offer(encoded(packet), 0)
    assert kept(tmp_path) == coded
    assert (recorder.packets, recorder.lost.total()) == (50, 0)


@pytest.fixture
def held_disk(monkeypatch):
    """A disk that writes nothing until the event is set."""
    free, original = threading.Event(), SegmentWriter.write

    def write(self, batch):
        assert free.wait(LIVENESS_S)
        return original(self, batch)

    monkeypatch.setattr(SegmentWriter, "write", write)
    yield free
    free.set()


async def test_a_slow_disk_costs_packets_and_then_a_keyframe(tmp_path, held_disk, monkeypatch):
    """Every packet is written or counted, and what is written can be decoded."""
    monkeypatch.setattr(module, "MAX_QUEUE_PACKETS", 4)
    told: list[Written] = []
    coded = packets(12, keyframes=(0, 10))
    async with Recorder(tmp_path, "door", LIMITS, told.append) as recorder:
        recorder.begin(hello(), None)
        for packet in coded[:6]:
            recorder.offer(encoded(packet), 0)
        assert not recorder.take_keyframe_due()
        assert recorder.lost == {"queue": 2}
        held_disk.set()
        await asyncio.wait_for(recorder.has_room(), LIVENESS_S)
        await until(lambda: recorder.packets == 4)
        for packet in coded[6:10]:
            recorder.offer(encoded(packet), 0)
        assert recorder.take_keyframe_due()
        assert not recorder.take_keyframe_due()
        for packet in coded[10:]:
            recorder.offer(encoded(packet), 0)
    assert kept(tmp_path) == coded[:4] + coded[10:]
    assert recorder.lost == {"queue": 2, "keyframe": 4}
    assert sum((each.lost for each in told), Counter()) == recorder.lost
    assert sum(each.packets for each in told) == recorder.packets == 6


async def test_what_waits_for_the_disk_is_bounded_in_bytes_too(tmp_path, held_disk, monkeypatch):
    coded = packets(7, keyframes=tuple(range(7)))
    monkeypatch.setattr(module, "MAX_QUEUE_BYTES", sum(map(len, coded[:3])))
    async with Recorder(tmp_path, "door", LIMITS) as recorder:
        recorder.begin(hello(), None)
        for packet in coded[:4]:
            recorder.offer(encoded(packet), 0)
        assert recorder.lost == {"queue": 1}
        held_disk.set()
        await asyncio.wait_for(recorder.has_room(), LIVENESS_S)
        for packet in coded[4:]:
            recorder.offer(encoded(packet), 0)
            await asyncio.wait_for(recorder.has_room(), LIVENESS_S)
    assert kept(tmp_path) == coded[:3] + coded[4:]


async def test_a_full_file_asks_once_for_a_keyframe(tmp_path):
    coded = packets(6, keyframes=(0, 5))
    async with Recorder(tmp_path, "door", RecordingLimits(2**20, 1, 3600.0)) as recorder:
        recorder.begin(hello(), None)
        due = 0
        for number, packet in enumerate(coded):
            recorder.offer(encoded(packet), 0)
            await until(lambda number=number: recorder.packets == number + 1)
            due += recorder.take_keyframe_due()
        assert due == 2  # for the second file, and for the third
    assert len(segment_files(tmp_path)) == 2


async def test_a_disk_that_hangs_does_not_hold_the_end_up(tmp_path, held_disk, monkeypatch, capsys):
    monkeypatch.setattr(module, "LAST_WRITES_S", 0.05)
    async with Recorder(tmp_path, "door", LIMITS) as recorder:
        recorder.begin(hello(), None)
        recorder.offer(encoded(packets(1)[0]), 0)
    assert "the disk hangs" in capsys.readouterr().out


async def test_a_time_of_day_that_is_set_begins_a_file_with_a_keyframe(tmp_path, monkeypatch):
    """Packets of before keep the time that the camera knew then."""
    steps = [0, 3600 * 10**9, 0]
    monkeypatch.setattr(ClockWatch, "step_ns", lambda self: steps.pop(0))
    coded, due = packets(6, keyframes=(0, 3)), []
    async with Recorder(tmp_path, "door", LIMITS) as recorder:
        recorder.begin(hello(), None)
        for number, packet in enumerate(coded):
            if number in (1, 3, 5):
                due.append(recorder.take_keyframe_due())
            recorder.offer(encoded(packet), 0)
            await until(lambda number=number: recorder.packets == number + 1)
    assert due == [False, True, False]
    before, after = (read(file.path.read_bytes()) for file in segment_files(tmp_path))
    assert [len(found) for _, found in (before, after)] == [3, 3]
    assert after[0].hello.clock.unix_ns - before[0].hello.clock.unix_ns == 3600 * 10**9


async def test_a_time_of_day_that_was_set_before_a_stream_began_is_that_of_its_hello(tmp_path, monkeypatch):
    clocks = replace_clocks(monkeypatch, Clocks())
    async with Recorder(tmp_path, "door", LIMITS) as recorder:
        clocks.offset_ns += 3600 * 10**9
        recorder.begin(hello(), None)
        assert not recorder.take_keyframe_due()
        clocks.offset_ns += 3600 * 10**9
        assert recorder.take_keyframe_due()
