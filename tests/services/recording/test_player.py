"""Files as one line of packets."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from services.errors import SettingsError
from services.recording.player import Player, recording_paths
from stream.errors import NoRecording
from tests.recordings import INTERVAL_NS, UNIX_NS, hello, packets, segment_bytes


def play(paths) -> list:
    player, played = Player(paths), []
    while (packet := player.next()) is not None:
        played.append(packet)
    return played


@pytest.fixture
def folder(tmp_path):
    """Two files of one stream, the second cut, and one of another stream."""
    first, second = packets(4, keyframes=(0, 2)), packets(5, keyframes=(0, 3))
    (tmp_path / "door.00000001.spr").write_bytes(segment_bytes(first))
    cut = segment_bytes(second, hello(restarted_ns=10**9), ended=False)[:-3]
    (tmp_path / "door.00000002.spr").write_bytes(cut)
    (tmp_path / "yard.00000001.spr").write_bytes(segment_bytes(packets(1), hello("yard")))
    return tmp_path


def test_files_follow_each_other_on_one_line_of_time(folder):
    played = play(recording_paths(folder, "door"))
    assert [packet.number for packet in played] == list(range(8))
    assert [packet.chain.number for packet in played] == [0, 0, 2, 2, 4, 4, 4, 7]
    assert [packet.captured_ns for packet in played[:4]] == [UNIX_NS + at * INTERVAL_NS for at in range(4)]
    assert all(before.captured_ns < after.captured_ns for before, after in pairwise(played))
    assert len({id(packet.stream) for packet in played}) == 1


def test_a_player_goes_back_to_any_keyframe_and_says_the_same_again(folder):
    played = play(recording_paths(folder, "door"))
    player = Player(recording_paths(folder, "door"))
    for packet in played:
        player.go_to(packet.chain)
        for expected in played[packet.chain.number :]:
            again = player.next()
            assert (again.number, again.data, again.captured_ns, again.chain) == (
                expected.number,
                expected.data,
                expected.captured_ns,
                expected.chain,
            )
        assert player.next() is None


def test_time_never_stands_still_or_runs_backwards(tmp_path):
    """A time of day that was set back, and frames with one time."""
    later, earlier = segment_bytes(packets(2)), segment_bytes(packets(2))
    (tmp_path / "a.00000001.spr").write_bytes(later)
    (tmp_path / "a.00000002.spr").write_bytes(earlier)
    times = [packet.captured_ns for packet in play(recording_paths(tmp_path, None))]
    assert times == sorted(set(times))


def test_a_file_that_cannot_be_played_is_left_out_of_several(folder, capsys):
    (folder / "door.00000001.spr").write_bytes(b"nothing of ours")
    assert len(play(recording_paths(folder, "door"))) == 4
    assert "file left out" in capsys.readouterr().out


def test_a_file_that_was_deleted_meanwhile_is_left_out_but_not_come_back_to(folder):
    paths = recording_paths(folder, "door")
    player = Player(paths)
    chain = player.next().chain
    paths[0].unlink()
    assert len(play(paths)) == 4
    player.go_to(chain)
    with pytest.raises(OSError, match=r"cannot read"):
        player.next()


def test_a_file_that_cannot_be_opened_is_left_out_of_several(folder, capsys):
    paths = recording_paths(folder, "door")
    paths[0].unlink()
    os.mkfifo(paths[0])
    assert len(play(paths)) == 4
    assert f"cannot read {paths[0]}: it is no file" in capsys.readouterr().out
    with pytest.raises(OSError, match=r"cannot read .*: it is no file"):
        play(paths[:1])


def test_one_that_is_named_is_refused(folder):
    (folder / "x").write_bytes(b"nothing of ours")
    with pytest.raises(NoRecording, match=r"x cannot be played: it begins with b'noth'"):
        play(recording_paths(folder / "x", None))
    with pytest.raises(OSError, match=r"cannot read .*none"):
        play(recording_paths(folder / "none", None))


def test_another_canvas_is_another_stream(tmp_path):
    (tmp_path / "a.00000001.spr").write_bytes(segment_bytes(packets(2)))
    (tmp_path / "a.00000002.spr").write_bytes(segment_bytes(packets(2), hello(canvas=(64, 32))))
    first, _, third, fourth = play(recording_paths(tmp_path, "a"))
    assert first.stream is not third.stream
    assert third.stream is fourth.stream


def test_who_has_several_streams_says_which(folder, tmp_path_factory):
    with pytest.raises(SettingsError, match=r"--of: .* holds recordings of door, yard; say which"):
        recording_paths(folder, None)
    with pytest.raises(SettingsError, match="no recording of gate; there is door, yard"):
        recording_paths(folder, "gate")
    with pytest.raises(NoRecording, match="holds no recording"):
        recording_paths(tmp_path_factory.mktemp("empty"), None)
