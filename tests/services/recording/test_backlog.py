"""What of a recording is still to be sent: kept = settled + waiting, whatever happens to the files."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from codec.interface import EncodedFrame
from services.recording.backlog import Backlog
from services.recording.folder import SegmentFile, segment_files
from services.recording.limits import RecordingLimits
from services.recording.recorder import Recorder
from services.recording.segment_writer import Written
from tests.recordings import hello, packets, segment_bytes
from tests.services.waiting import LIVENESS_S, until

LIMITS = RecordingLimits(2**24, 2**22, 3600.0)
A, B = Path("door.00000001.spr"), Path("door.00000002.spr")


def encoded(packet: bytes) -> EncodedFrame:
    keyframe = packet.startswith(b"SPLC")
    return EncodedFrame(packet, keyframe, "first" if keyframe else None)


def balances(backlog: Backlog) -> bool:
    return backlog.kept == backlog.settled.total() + backlog.waiting


async def test_each_packet_is_settled_once():
    told: Counter[str] = Counter()
    backlog = Backlog(Path(), "door", lambda outcome, count: told.update({outcome: count}))
    backlog.follow(Written(by_file=Counter({A: 3, B: 2}), ended=[A]))
    assert await backlog.next_file() == A
    backlog.settle(A, "detected")
    backlog.settle(A, "corrupt")
    backlog.follow(Written(deleted=[A]))
    assert not backlog.holds(A)
    backlog.settle(A, "detected")  # an answer to what is counted as lost
    backlog.lose(A, "deleted")
    assert backlog.waiting == 2
    assert backlog.settled == {"detected": 1, "corrupt": 1, "deleted": 1}
    assert told == backlog.settled + Counter(kept=5)
    assert balances(backlog)


async def test_a_file_is_sent_once_it_is_ended():
    backlog = Backlog(Path(), "door")
    backlog.follow(Written(by_file=Counter({A: 3})))
    waiting = asyncio.ensure_future(backlog.next_file())
    await asyncio.sleep(0)
    assert not waiting.done()
    backlog.follow(Written(ended=[A]))
    assert await asyncio.wait_for(waiting, LIVENESS_S) == A


async def test_what_a_file_should_have_had_is_lost():
    backlog = Backlog(Path(), "door")
    backlog.follow(Written(by_file=Counter({A: 3}), ended=[A]))
    backlog.settle(A, "detected")
    backlog.finish(A)
    assert backlog.settled == {"detected": 1, "unreadable": 2}
    assert balances(backlog)


async def test_what_an_earlier_process_left_comes_first(tmp_path):
    """Up to where a file was cut; others of the folder are nobody's business."""
    data = segment_bytes(packets(5), hello(late=True), ended=False)
    (tmp_path / "door.00000001.spr").write_bytes(data[:-3])
    (tmp_path / "door.00000002.spr").write_bytes(b"SPLR\x01 and nothing of use")
    (tmp_path / "yard.00000001.spr").write_bytes(data)
    (tmp_path / "door.00000004.spr").write_bytes(segment_bytes(packets(5)))  # recorded to be kept
    backlog = Backlog(tmp_path, "door")
    await backlog.look()
    new = SegmentFile.named(tmp_path, "door", 5).path
    backlog.follow(Written(by_file=Counter({new: 2}), ended=[new]))
    await backlog.count_found()
    assert backlog.account == {"kept": 6, "waiting": 6}
    assert await backlog.next_file() == SegmentFile.named(tmp_path, "door", 1).path


async def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    backlog = Backlog(tmp_path / "none", "door")
    await backlog.look()
    await backlog.count_found()
    assert backlog.account == {"kept": 0, "waiting": 0}


async def test_more_answers_than_packets_settle_no_more():
    backlog = Backlog(Path(), "door")
    backlog.follow(Written(by_file=Counter({A: 2, B: 1}), ended=[A]))
    for _ in range(3):
        backlog.settle(A, "detected")
    assert backlog.account == {"kept": 3, "detected": 2, "waiting": 1}


async def test_what_is_written_and_deleted_at_once_is_lost():
    """A slow disk takes much in one go."""
    backlog = Backlog(Path(), "door")
    backlog.follow(Written(by_file=Counter({A: 2, B: 1}), ended=[A], deleted=[A]))
    assert backlog.account == {"kept": 3, "deleted": 2, "waiting": 1}


async def test_numbers_that_have_grown_longer_come_last(tmp_path):
    for number in (99_999_998, 99_999_999, 100_000_000):
        SegmentFile.named(tmp_path, "door", number).path.write_bytes(
            segment_bytes(packets(1), hello(late=True))
        )
    backlog = Backlog(tmp_path, "door")
    await backlog.look()
    new = SegmentFile.named(tmp_path, "door", 100_000_001).path
    backlog.follow(Written(by_file=Counter({new: 1}), ended=[new]))
    await backlog.count_found()
    sent = []
    for _ in range(4):
        sent.append(int((path := await backlog.next_file()).name.split(".")[1]))
        backlog.finish(path)
    assert sent == [99_999_998, 99_999_999, 100_000_000, 100_000_001]


async def test_a_folder_that_cannot_be_read_costs_what_is_in_it_alone(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    backlog = Backlog(tmp_path / "file", "door")
    await backlog.look()
    await backlog.count_found()
    assert "what an outage left is not sent" in capsys.readouterr().out
    backlog.follow(Written(by_file=Counter({A: 2}), ended=[A]))
    assert await backlog.next_file() == A


async def test_it_follows_a_recorder(tmp_path):
    """Two outages are two files, each ended with its outage; what is rotated out is counted as it goes."""
    backlog = Backlog(tmp_path, "door")
    coded = packets(8, keyframes=(0, 3))
    async with Recorder(tmp_path, "door", LIMITS, backlog.follow) as recorder:
        recorder.begin(hello(late=True), None)
        for packet in coded[:3]:
            recorder.offer(encoded(packet), 0)
        recorder.end_file()
        for packet in coded[3:]:
            recorder.offer(encoded(packet), 0)
        first = await asyncio.wait_for(backlog.next_file(), LIVENESS_S)
        await until(lambda: backlog.waiting == 8)
        assert [file.path for file in segment_files(tmp_path)] == [
            first,
            first.with_name("door.00000002.spr"),
        ]
        for _ in range(3):
            backlog.settle(first, "detected")
        backlog.finish(first)
        assert backlog.account == {"kept": 8, "detected": 3, "waiting": 5}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backlog.next_file(), 0.01)  # the second one is being written
    assert await backlog.next_file() == first.with_name("door.00000002.spr")


async def test_a_file_is_over_with_its_outage_though_all_of_it_was_written_before(tmp_path):
    backlog = Backlog(tmp_path, "door")
    async with Recorder(tmp_path, "door", LIMITS, backlog.follow) as recorder:
        recorder.begin(hello(), None)
        recorder.offer(encoded(packets(1)[0]), 0)
        await until(lambda: backlog.waiting == 1)
        recorder.end_file()
        assert await asyncio.wait_for(backlog.next_file(), LIVENESS_S)


async def test_what_is_rotated_out_is_lost(tmp_path):
    backlog = Backlog(tmp_path, "door")
    coded = packets(40, keyframes=tuple(range(0, 40, 4)))
    limits = RecordingLimits(2500, 500, 3600.0)
    async with Recorder(tmp_path, "door", limits, backlog.follow) as recorder:
        recorder.begin(hello(late=True), None)
        for number, packet in enumerate(coded):
            recorder.offer(encoded(packet), 0)
            await until(lambda number=number: recorder.packets + recorder.lost.total() == number + 1)
    assert recorder.packets == backlog.kept == 40
    assert backlog.settled["deleted"] > 0
    assert balances(backlog)
    again = Backlog(tmp_path, "door")
    await again.look()
    await again.count_found()
    assert again.kept == backlog.waiting


async def test_files_without_a_packet_that_a_killed_program_began_are_deleted(tmp_path):
    """Not those that were recorded to be kept, nor what is none of ours."""
    begun = segment_bytes([], hello(late=True), ended=False)
    files = {
        "door.00000001.spr": begun,
        "door.00000002.spr": b"",
        "door.00000003.spr": segment_bytes([], hello(), ended=False),
        "door.00000004.spr": b"SPLR\x01 and nothing of use",
        "yard.00000001.spr": begun,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    backlog = Backlog(tmp_path, "door")
    await backlog.look()
    await backlog.count_found()
    assert backlog.kept == 0
    assert {path.name for path in tmp_path.iterdir()} == set(files) - {
        "door.00000001.spr",
        "door.00000002.spr",
    }
