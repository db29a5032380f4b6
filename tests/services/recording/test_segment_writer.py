"""Files of a recording on a disk: rotation, bounds, and disks that refuse."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from services.recording import segment_writer
from services.recording.folder import SegmentFile, last_number, segment_files
from services.recording.limits import RecordingLimits
from services.recording.segment_writer import PacketToRecord, SegmentWriter
from stream.recording.segment import SegmentHead
from tests.recordings import INTERVAL_NS, MONOTONIC_NS, hello, packets, read

HEAD = SegmentHead(hello())
ENDLESS = RecordingLimits(2**30, 2**29, 3600.0)


def to_record(coded: list[bytes], head: SegmentHead = HEAD) -> list[PacketToRecord]:
    return [
        PacketToRecord(head, packet, MONOTONIC_NS + INTERVAL_NS * at, packet.startswith(b"SPLC"))
        for at, packet in enumerate(coded)
    ]


def kept(folder: Path, stream: str | None = None) -> list[list[bytes]]:
    """Packets of each file, in order."""
    files = segment_files(folder, stream)
    return [[packet.data for packet in read(file.path.read_bytes())[1]] for file in files]


def test_what_is_written_is_there_and_nobody_elses_to_read(tmp_path):
    coded = packets(3)
    writer = SegmentWriter(tmp_path / "new" / "folder", "door", ENDLESS)
    written = writer.write(to_record(coded))
    assert (written.packets, written.packet_bytes, written.wants_keyframe) == (3, sum(map(len, coded)), False)
    assert kept(tmp_path / "new" / "folder") == [coded]  # before it is closed, too
    writer.close()
    (file,) = segment_files(tmp_path / "new" / "folder")
    assert read(file.path.read_bytes())[0].ended
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_every_file_begins_with_a_session_and_a_keyframe(tmp_path):
    """Nothing is lost between two, and each plays alone."""
    coded = packets(60, keyframes=tuple(range(0, 60, 5)))
    writer = SegmentWriter(tmp_path, "door", RecordingLimits(2**20, 400, 3600.0))
    for packet in to_record(coded):
        writer.write([packet])
    writer.close()
    files = kept(tmp_path)
    assert len(files) > 3
    assert list(chain.from_iterable(files)) == coded
    assert all(file[0].startswith(b"SPLC") for file in files)


def test_a_full_file_asks_for_a_keyframe_and_goes_on_until_it_comes(tmp_path):
    coded = packets(8, keyframes=(0, 7))
    writer = SegmentWriter(tmp_path, "door", RecordingLimits(2**20, 100, 3600.0))
    wants = [writer.write([packet]).wants_keyframe for packet in to_record(coded)]
    assert not wants[0]
    assert wants[6]
    assert not wants[7]
    assert kept(tmp_path) == [coded[:7], coded[7:]]


def test_a_name_that_something_else_has_is_passed_over(tmp_path):
    (tmp_path / "door.00000001.spr").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "door.00000002.spr")
    (tmp_path / "door.00000003.spr").mkdir()
    coded = packets(2)
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    assert writer.write(to_record(coded)).packets == 2
    writer.close()
    assert [file.number for file in segment_files(tmp_path)] == [4]
    assert not (tmp_path / "elsewhere").exists()
    assert kept(tmp_path) == [coded]


def test_another_streams_files_are_not_counted(tmp_path):
    SegmentFile.named(tmp_path, "yard", 7).path.touch()
    assert (last_number(tmp_path, "door"), last_number(tmp_path, "yard")) == (0, 7)


def test_an_old_file_is_followed_by_a_new_one(tmp_path):
    coded = packets(4, keyframes=(0, 2))
    writer = SegmentWriter(tmp_path, "door", RecordingLimits(2**20, 2**19, 1e-9))
    for packet in to_record(coded):
        writer.write([packet])
    assert kept(tmp_path) == [coded[:2], coded[2:]]


def test_the_oldest_files_make_room_and_the_bound_holds_always(tmp_path):
    limits = RecordingLimits(3 * (len(HEAD.pack()) + 600), len(HEAD.pack()) + 300, 3600.0)
    (tmp_path / "yard.00000001.spr").write_bytes(b"x" * 5000)  # another stream's
    writer = SegmentWriter(tmp_path, "door", limits)
    coded = packets(200, keyframes=tuple(range(0, 200, 4)))
    for packet in to_record(coded):
        writer.write([packet])
        assert sum(file.size for file in segment_files(tmp_path, "door")) <= limits.total_bytes
    rest = list(chain.from_iterable(kept(tmp_path, "door")))
    assert 0 < len(rest) < 200
    assert rest == coded[-len(rest) :]
    assert (tmp_path / "yard.00000001.spr").exists()


def test_a_keyframe_that_does_not_come_breaks_no_bound(tmp_path):
    limits = RecordingLimits(2 * (len(HEAD.pack()) + 200), len(HEAD.pack()) + 200, 3600.0)
    writer = SegmentWriter(tmp_path, "door", limits)
    coded = packets(100, keyframes=(0, 98))
    written = writer.write(to_record(coded))
    assert written.lost["keyframe"] == 100 - written.packets > 0
    assert sum(file.size for file in segment_files(tmp_path)) <= limits.total_bytes
    assert kept(tmp_path)[-1] == coded[98:]


def test_a_writer_goes_on_behind_the_files_that_are_there(tmp_path):
    first, second = packets(3), packets(4)
    for coded in (first, second):
        writer = SegmentWriter(tmp_path, "door", ENDLESS)
        writer.write(to_record(coded))
        writer.close()
    assert kept(tmp_path) == [first, second]
    assert [file.number for file in segment_files(tmp_path)] == [1, 2]


def test_another_canvas_has_a_file_of_its_own_and_a_reconnect_has_not(tmp_path):
    coded = packets(2)
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    for head in (HEAD, SegmentHead(hello(restarted_ns=1)), SegmentHead(hello(canvas=(64, 32)))):
        writer.write(to_record(coded, head))
    assert kept(tmp_path) == [coded + coded, coded]


def failing(monkeypatch, number: int, after_bytes: int = 0):
    """From now on writes fail, once so many bytes more have been written."""
    left, original = [after_bytes], os.write

    def write(file, data):
        if left[0] <= 0:
            raise OSError(number, os.strerror(number))
        done = original(file, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(segment_writer.os, "write", write)


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "unwritable")]
)
def test_a_disk_that_refuses_costs_packets_and_is_tried_again(tmp_path, monkeypatch, number, cause):
    now_s = [100.0]
    monkeypatch.setattr(segment_writer.time, "monotonic", lambda: now_s[0])
    coded = packets(10, keyframes=(0, 8))
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    assert writer.write(to_record(coded[:2])).packets == 2
    with monkeypatch.context() as patch:
        failing(patch, number, after_bytes=11)
        lost = writer.write(to_record(coded[2:4])).lost
        assert lost == {cause: 2}
        now_s[0] += 60
        assert writer.write(to_record(coded[4:5])).lost == {cause: 1}  # no file can be begun
    assert kept(tmp_path) == [coded[:2]]
    (file,) = segment_files(tmp_path)
    assert read(file.path.read_bytes())[0].whole_bytes == file.size  # what was written of a packet is gone
    now_s[0] += 60
    written = writer.write(to_record(coded[5:8]))
    assert (written.lost, written.wants_keyframe) == ({"keyframe": 3}, True)
    assert writer.write(to_record(coded[8:])).packets == 2
    assert kept(tmp_path) == [coded[:2], coded[8:]]


def test_a_disk_that_has_recovered_is_tried_and_told_as_if_nothing_had_been(tmp_path, monkeypatch, capsys):
    now_s = [100.0]
    monkeypatch.setattr(segment_writer.time, "monotonic", lambda: now_s[0])
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    keyframe = to_record(packets(1))

    def refuse(times: int) -> None:
        with monkeypatch.context() as patch:
            failing(patch, errno.ENOSPC, after_bytes=11)
            for _ in range(times):
                now_s[0] += 60
                assert writer.write(keyframe).lost == {"disk_full": 1}

    refuse(6)
    now_s[0] += 60
    assert writer.write(keyframe).packets == 1
    refuse(1)
    assert writer.write(keyframe).lost == {"disk_full": 1}  # it is not tried at once
    now_s[0] += 1.0  # the first delay is no longer
    assert writer.write(keyframe).packets == 1
    told = capsys.readouterr().out
    assert (told.count("not recorded"), told.count("recording goes on")) == (2, 2)


def test_a_file_that_the_disk_has_refused_the_rest_of_is_over(tmp_path, monkeypatch):
    """Who waits for its end can have what is in it."""
    writer, coded = SegmentWriter(tmp_path, "door", ENDLESS), packets(3)
    assert writer.write(to_record(coded[:2])).ended == []
    with monkeypatch.context() as patch:
        failing(patch, errno.ENOSPC, after_bytes=11)
        written = writer.write(to_record(coded[2:]))
    assert (written.lost, written.by_file) == ({"disk_full": 1}, {})
    assert written.ended == [SegmentFile.named(tmp_path, "door", 1).path]
    assert kept(tmp_path) == [coded[:2]]


def test_the_disk_is_told_to_keep_what_was_written_every_few_seconds_and_at_the_end(tmp_path, monkeypatch):
    now_s, synced_s = [0.0], []
    monkeypatch.setattr(segment_writer.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(segment_writer.os, "fdatasync", lambda descriptor: synced_s.append(now_s[0]))
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    for packet in to_record(packets(13)):
        writer.write([packet])
        now_s[0] += 1
    writer.close()
    assert synced_s == [5, 10, 13]


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    """What went to the deleted file is gone; what comes a few seconds later is not."""
    now_s = [0.0]
    monkeypatch.setattr(segment_writer.time, "monotonic", lambda: now_s[0])
    writer, coded = SegmentWriter(tmp_path / "kept", "door", ENDLESS), packets(20, keyframes=tuple(range(20)))
    lost: Counter[str] = Counter()
    for at, packet in enumerate(to_record(coded)):
        if at == 1:
            shutil.rmtree(tmp_path / "kept")
        lost += writer.write([packet]).lost
        now_s[0] += 1
    assert 0 < lost["unwritable"] == lost.total() <= 3
    (found,) = kept(tmp_path / "kept")
    assert found == coded[-len(found) :]
    assert len(found) > 10


def test_what_the_system_takes_in_parts_is_written_once(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(segment_writer.os, "write", lambda file, data: whole(file, data[:100]))
    coded = packets(3)
    assert SegmentWriter(tmp_path, "door", ENDLESS).write(to_record(coded)).packets == 3
    assert kept(tmp_path) == [coded]


def test_a_folder_that_cannot_be_is_told_and_counted(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    writer = SegmentWriter(tmp_path / "file" / "folder", "door", ENDLESS)
    assert writer.write(to_record(packets(3))).lost == {"unwritable": 3}
    assert "not recorded" in (told := capsys.readouterr().out)
    assert "name a folder that can be written" in told
    writer.close()


@pytest.mark.parametrize("total", [50, len(HEAD.pack()) + 20])
def test_a_bound_below_what_a_file_takes_is_told_and_asks_for_no_keyframes(tmp_path, capsys, total):
    writer = SegmentWriter(tmp_path, "door", RecordingLimits(total, 10, 3600.0))
    written = writer.write(to_record(packets(5, keyframes=tuple(range(5)))))
    assert (written.lost, written.wants_keyframe) == ({"unwritable": 5}, False)
    assert "--record-mib is too small" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


FULL = """
import sys
from itertools import chain
from pathlib import Path
from services.recording.limits import RecordingLimits
from tests.services.recording.test_segment_writer import *
folder = Path(sys.argv[1])
writer = SegmentWriter(folder, "door", ENDLESS)
coded = packets(400)
written = writer.write(to_record(coded))
assert written.packets + written.lost["disk_full"] == 400 and written.packets > 50, written
assert kept(folder) == [coded[:written.packets]]
"""


def test_a_disk_that_is_really_full(tmp_path):
    (folder := tmp_path / "disk").mkdir()
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    mount = 'mount -t tmpfs -o size=16k none "$0" && exec "$@" "$0"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, str(folder), sys.executable, "-c", FULL],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_links_and_other_names_are_no_files_of_a_recording(tmp_path):
    for name in (
        "door.00000002.spr",
        "door.00000010.spr",
        "door.1.spr",
        "door.spr",
        "-x.00000001.spr",
        "a.00000001.sp",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "door.00000011.spr").symlink_to(tmp_path / "door.00000010.spr")
    (tmp_path / "door.00000012.spr").mkdir()
    assert [file.number for file in segment_files(tmp_path)] == [2, 10]
    assert SegmentFile.named(tmp_path, "door", 10).path == tmp_path / "door.00000010.spr"


def test_a_link_that_has_just_been_made_where_the_next_file_would_be_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "door.00000001.spr").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(segment_writer, "last_number", lambda folder, stream: 0)
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    assert writer.write(to_record(packets(1))).lost == {"unwritable": 1}
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_another_program_has_just_begun_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "door.00000001.spr").write_bytes(b"another's")
    monkeypatch.setattr(segment_writer, "last_number", lambda folder, stream: 0)
    writer = SegmentWriter(tmp_path, "door", ENDLESS)
    assert writer.write(to_record(packets(1))).lost == {"unwritable": 1}
    assert (tmp_path / "door.00000001.spr").read_bytes() == b"another's"


@pytest.mark.parametrize(("total", "segment", "expected"), [(1024, None, 64), (16, None, 4), (16, 8, 8)])
def test_a_segment_is_a_part_of_the_whole(total, segment, expected):
    assert RecordingLimits.of(total, segment, 1.0).segment_bytes == expected * 2**20


def test_two_segments_have_to_fit():
    with pytest.raises(ValueError, match="--record-segment-mib: 9 MiB are more than half of --record-mib 16"):
        RecordingLimits.of(16, 9, 1.0)
