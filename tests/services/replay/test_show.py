"""What `splitcast recording show` says of files."""

from __future__ import annotations

import json
import os

import pytest

from services.errors import Exit
from services.recording.folder import segment_files
from services.replay import show as module
from services.replay.settings import RecordingShowSettings
from services.replay.show import run_recording_show, summarize
from stream.errors import NoRecording
from tests.recordings import INTERVAL_NS, UNIX_NS, packets, segment_bytes

CODED = packets(5, keyframes=(0, 3))
WHOLE = segment_bytes(CODED)


def show(path, **flags) -> Exit:
    return run_recording_show(RecordingShowSettings.load({"recording": path, **flags}))


def test_a_file_is_described(tmp_path):
    (file := tmp_path / "door.00000001.spr").write_bytes(WHOLE)
    summary = summarize(file)
    assert (summary.stream, summary.network, summary.split, summary.canvas) == (
        "door",
        "demo",
        "4.m",
        (32, 32),
    )
    assert (summary.packets, summary.keyframes, summary.ended, summary.unread_bytes) == (5, 2, True, 0)
    assert summary.seconds == pytest.approx(4 * INTERVAL_NS / 1e9)
    assert summary.began == pytest.approx(UNIX_NS / 1e9)
    assert summary.kb_per_packet == pytest.approx(sum(map(len, CODED)) / 5000, abs=1e-3)


def test_a_cut_file_says_so(tmp_path, capsys):
    (tmp_path / "door.00000001.spr").write_bytes(WHOLE[:-20])
    assert show(tmp_path) == Exit.OK
    told = capsys.readouterr().out
    assert "4 packets, 2 keyframes" in told
    assert "not ended" in told


def test_json_is_a_line_a_file(tmp_path, capsys):
    for number in (1, 2):
        (tmp_path / f"door.{number:08d}.spr").write_bytes(WHOLE)
    show(tmp_path, json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["packets"] == second["packets"] == 5


def test_what_is_no_recording_is_told(tmp_path, capsys):
    with pytest.raises(NoRecording, match="holds no recording"):
        show(tmp_path)
    (tmp_path / "a.00000001.spr").write_bytes(b"\x1b[31m")
    with pytest.raises(NoRecording, match="cannot be played"):
        show(tmp_path)
    (tmp_path / "b.00000001.spr").write_bytes(WHOLE)
    assert show(tmp_path) == Exit.OK
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_cannot_be_opened_hides_none_of_the_others(tmp_path, capsys, monkeypatch):
    for name in ("a.00000001.spr", "b.00000001.spr"):
        (tmp_path / name).write_bytes(WHOLE)
    files = segment_files(tmp_path)
    (tmp_path / "a.00000001.spr").unlink()
    monkeypatch.setattr(module, "segment_files", lambda folder: files)
    assert show(tmp_path, json=True) == Exit.OK
    told = capsys.readouterr()
    assert json.loads(told.out)["file"].endswith("b.00000001.spr")
    assert "a.00000001.spr cannot be played: cannot read" in told.err
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"cannot read .*pipe: it is no file"):
        show(tmp_path / "pipe")
