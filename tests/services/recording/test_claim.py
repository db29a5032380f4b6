"""One program alone records a stream to a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil

import pytest

from services.recording.backlog import Backlog
from services.recording.claim import RecordingClaim
from services.recording.folder import segment_files
from services.recording.segment_writer import SegmentWriter
from tests.recordings import hello, packets, segment_bytes
from tests.services.recording.test_segment_writer import ENDLESS, kept, to_record


@pytest.fixture
def claim(tmp_path):
    made = RecordingClaim(tmp_path, "door")
    yield made
    made.release()


def test_a_second_program_is_told_and_writes_once_the_first_has_gone(tmp_path, claim, capsys, monkeypatch):
    first = SegmentWriter(tmp_path, "door", ENDLESS, claim)
    second = SegmentWriter(tmp_path, "door", ENDLESS, RecordingClaim(tmp_path, "door"))
    coded = packets(3)
    assert first.write(to_record(coded)).packets == 3
    assert second.write(to_record(coded)).lost == {"unwritable": 3}
    assert "another program records door there: give each a --stream or a --record" in capsys.readouterr().out
    assert kept(tmp_path) == [coded]
    first.close()
    first.release()
    monkeypatch.setattr(second, "_retry_s", 0.0)
    assert second.write(to_record(coded)).packets == 3
    second.close()
    second.release()
    assert kept(tmp_path) == [coded, coded]
    assert {path.suffix for path in tmp_path.iterdir()} == {".spr"}  # nothing else is left


def test_cameras_of_two_streams_share_a_folder(tmp_path, claim):
    claim.take()
    other = RecordingClaim(tmp_path, "yard")
    other.take()
    other.release()


async def test_what_another_program_records_is_not_sent(tmp_path, claim, capsys):
    claim.take()
    (tmp_path / "door.00000001.spr").write_bytes(segment_bytes(packets(3), hello(late=True), ended=False))
    backlog = Backlog(tmp_path, "door")
    await backlog.look(RecordingClaim(tmp_path, "door"))
    await backlog.count_found()
    assert backlog.kept == 0
    assert "another program records door there" in capsys.readouterr().out
    claim.release()
    await backlog.look(claim)
    await backlog.count_found()
    assert backlog.kept == 3


async def test_what_lies_where_nothing_can_be_written_is_sent(tmp_path, monkeypatch):
    (tmp_path / "door.00000001.spr").write_bytes(segment_bytes(packets(3), hello(late=True)))

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    claim, backlog = RecordingClaim(tmp_path, "door"), Backlog(tmp_path, "door")
    with monkeypatch.context() as readonly:
        readonly.setattr(os, "open", refuse)
        await backlog.look(claim)
    await backlog.count_found()
    assert backlog.kept == 3


def test_a_file_system_without_locks_does_without(tmp_path, claim, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    writer = SegmentWriter(tmp_path, "door", ENDLESS, claim)
    assert writer.write(to_record(packets(3))).packets == 3


def test_a_claim_lasts_where_the_folder_was_removed_and_made_again(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    claim = RecordingClaim(folder, "door")
    claim.take()
    shutil.rmtree(folder)
    folder.mkdir()
    claim.take()
    with pytest.raises(OSError, match="another program"):
        RecordingClaim(folder, "door").take()
    claim.release()


def test_a_link_in_its_place_is_not_followed(tmp_path, claim):
    (tmp_path / ".door.lock").symlink_to(tmp_path / "elsewhere")
    writer = SegmentWriter(tmp_path, "door", ENDLESS, claim)
    assert writer.write(to_record(packets(1))).lost == {"unwritable": 1}
    assert not (tmp_path / "elsewhere").exists()


def test_that_a_folder_may_not_be_written_to_is_told(claim, monkeypatch):
    """As the system does to whoever is not root."""
    open_file = os.open

    def deny(path, flags, *mode):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(path, flags, *mode)

    monkeypatch.setattr("services.recording.claim.os.open", deny)
    with pytest.raises(PermissionError):
        claim.take()


def test_no_number_is_given_twice_though_files_are_removed(tmp_path, claim):
    """Who is reading one would take the new one for it, and delete it at its end."""
    left = segment_bytes(packets(3), hello(late=True))
    (tmp_path / "door.00000006.spr").write_bytes(left)
    (tmp_path / "door.00000007.spr").write_bytes(left)
    claim.take()
    numbers, writer = [], SegmentWriter(tmp_path, "door", ENDLESS, claim)
    for _ in range(2):
        for file in segment_files(tmp_path):
            file.path.unlink()
        writer.write(to_record(packets(2)))
        writer.close()
        numbers += [file.number for file in segment_files(tmp_path)]
    assert numbers == [8, 9]
