"""Recording and replaying as a user does: real processes, one of which is killed."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from services.errors import Exit
from services.recording.folder import segment_files
from tests.services.clips import FRAMES, SIZE
from tests.services.test_cli import next_event, run, started, wait_for

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def source_flags(weights, video):
    return ["--model", weights, "--source", video, "--size", f"{SIZE[0]}x{SIZE[1]}", "--stream", "door"]


def size_of(folder: Path) -> int:
    return sum(file.size for file in segment_files(folder)) if folder.is_dir() else 0


def test_a_camera_that_is_killed_leaves_a_recording_that_replays_the_same_each_time(
    weights, source_flags, tmp_path
):
    folder = tmp_path / "recording"
    with started("detector", "--port", "0", "--model", weights, "--confidence", "0.001") as detector:
        url = f"ws://127.0.0.1:{next_event(detector, 'listening')['port']}"
        next_event(detector, "ready")
        camera_flags = ["camera", *source_flags, "--loop", "--detector", url, "--metrics-port", "0"]
        with started(
            *camera_flags, "--record", folder, "--record-mib", "2", "--record-segment-mib", "0.2"
        ) as camera:
            wait_for(lambda: size_of(folder) > 400_000)
            camera.send_signal(signal.SIGKILL)
            assert camera.wait() == -signal.SIGKILL
        shown = run("recording", "show", folder, "--json")
        files = [json.loads(line) for line in shown.stdout.splitlines()]
        assert len(files) > 1
        assert [file["ended"] for file in files] == [True] * (len(files) - 1) + [False]
        packets = sum(file["packets"] for file in files)
        accounts = []
        for speed in ("flat-out", "500"):
            ran = run("replay", folder, "--detector", url, "--stream", "again", "--speed", speed, "--json")
            assert ran.returncode == Exit.OK, ran.stderr
            accounts.append(json.loads(ran.stdout))
    assert [account["packets"] for account in accounts] == [packets] * 2
    assert [account["detected"] for account in accounts] == [packets] * 2
    assert accounts[0]["sha256"] == accounts[1]["sha256"]


def test_a_file_is_recorded_to_its_end(source_flags, tmp_path):
    ran = run("record", *source_flags, "--out", tmp_path / "out")
    assert ran.returncode == Exit.OK, ran.stderr
    assert f"{FRAMES} packets recorded in {tmp_path / 'out'}, 0 lost" in ran.stdout
    shown = run("recording", "show", tmp_path / "out")
    assert re.search(rf"door, random split at 4\.m, {SIZE[0]}x{SIZE[1]}", shown.stdout)
    assert f"{FRAMES} packets, " in shown.stdout


def test_a_live_source_is_recorded_until_it_is_stopped(source_flags, tmp_path):
    flags = ["record", *source_flags, "--out", tmp_path / "out", "--loop", "--realtime"]
    with started(*flags) as recording:
        wait_for(lambda: size_of(tmp_path / "out") > 150_000)
        recording.send_signal(signal.SIGTERM)
        ended = next_event(recording, "recording ended")
        assert recording.wait() == Exit.OK
    assert ended["lost"] == 0
    assert run(*flags, "--seconds", "1").returncode == Exit.OK
    assert len(segment_files(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["replay", "none.spr"], Exit.FAILURE, "cannot read none.spr: No such file or directory"),
        (["recording", "show", "none.spr"], Exit.FAILURE, "none.spr"),
        (["replay", "."], Exit.FAILURE, "holds no recording"),
        (["replay", "x.spr", "--speed", "fast"], Exit.USAGE, "--speed"),
        (["record", "--source", "demo"], Exit.USAGE, "--out"),
        (["recording"], Exit.USAGE, "required: COMMAND"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, code, told):
    ran = run(*words)
    assert ran.returncode == code
    assert told in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
