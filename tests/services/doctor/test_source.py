"""Sources that give pictures as they should, and others."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import numpy as np
import pytest

from services.doctor.settings import DoctorCameraSettings
from services.doctor.source import SourceWatch, judge_source, watch_source
from stream.errors import SourceError
from stream.frame import Frame
from stream.sources.base import (
    DecodeErrors,
    FramesSkipped,
    FrameUnreadable,
    SourceFrozen,
    SourceLost,
    SourceMoving,
)
from tests.ports import free_port
from tests.services.clips import FRAMES, SIZE, write_video
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.rtsp import RtspServer, require_gstreamer

IMAGE = np.zeros((*SIZE, 3), np.uint8)


async def look(source, seconds: float = 2.0, fps: float | None = None, **settings):
    """What is found of a source."""
    config = DoctorCameraSettings.load({"source": str(source), **settings})
    async with asyncio.timeout(LIVENESS_S):
        watch = await watch_source(config, seconds)
    return judge_source(str(source), watch, fps)


def watched(*, live: bool = True, fps: float = 10.0, count: int = 40) -> SourceWatch:
    """A source of which so many pictures have come."""
    watch = SourceWatch(live)
    for number in range(count):
        watch.take(Frame(IMAGE, 10**9 + round(number * 1e9 / fps)))
    return watch


async def test_a_file(video):
    finding = await look(video)
    assert finding.level == "ok"
    assert (finding.facts["height"], finding.facts["width"], finding.facts["frames"]) == (*SIZE, FRAMES)
    assert not finding.facts["live"]


async def test_the_true_rate_of_a_live_source(tmp_path):
    clip = write_video(tmp_path / "clip.avi", 200, fps=50.0)
    finding = await look(clip, seconds=2.0, realtime=True)
    assert finding.facts["live"]
    assert finding.facts["fps"] == pytest.approx(50.0, rel=0.02)


@pytest.mark.parametrize("live", [True, False])
async def test_a_live_source_settles_before_its_rate_is_measured(tmp_path, monkeypatch, live):
    monkeypatch.setattr("services.doctor.source.SETTLE_S", LIVENESS_S)
    finding = await look(write_video(tmp_path / "clip.avi", 20, fps=50.0), realtime=live)
    assert (finding.facts["live"], finding.facts["fps"] is None) == (live, live)


async def test_a_source_that_is_slower_than_wanted(tmp_path):
    clip = write_video(tmp_path / "clip.avi", 100, fps=10.0)
    finding = await look(clip, realtime=True, fps=25.0)
    assert finding.level == "warning"
    assert "25 frames/s are wanted" in finding.measured


@pytest.mark.parametrize(("fps", "level"), [(24.0, "ok"), (22.0, "warning")])
def test_a_camera_that_is_a_little_slower_than_it_says_is_well(fps, level):
    assert judge_source("door", watched(fps=fps), 25.0).level == level


async def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        await look(tmp_path / "none.mp4")


async def test_a_file_that_breaks_off(tmp_path):
    whole = write_video(tmp_path / "whole.avi", 50).read_bytes()
    (tmp_path / "short.avi").write_bytes(whole[: len(whole) * 2 // 3])
    finding = await look(tmp_path / "short.avi")
    assert finding.level == "warning"
    assert "lost 1 times" in finding.measured or "damaged" in finding.measured


async def test_a_camera_that_nobody_answers_for():
    finding = await look(f"rtsp://root:hunter2@127.0.0.1:{free_port()}/stream")
    assert finding.level == "error"
    assert "does not open" in finding.measured


async def test_a_camera_that_accepts_and_says_nothing():
    async def silent(_reader, writer):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    finding = await look(f"rtsp://127.0.0.1:{port}/stream", open_timeout_s=0.5, read_timeout_s=0.5)
    server.close()
    assert finding.level == "error"


@pytest.fixture
async def rtsp():
    require_gstreamer()
    server = RtspServer()
    await server.start()
    yield server
    await server.kill()


async def test_a_real_rtsp_camera(rtsp):
    finding = await look(rtsp.url("viewer:secret@"), seconds=3.0)
    assert finding.facts["frames"] > 1
    assert (finding.facts["height"], finding.facts["width"]) == (240, 320)


async def test_a_real_camera_whose_picture_stands_still(rtsp):
    rtsp.send(signal.SIGUSR1)
    finding = await look(rtsp.url(), seconds=15.0)
    assert (finding.level, "the picture stands still" in finding.measured) == ("warning", True)


async def test_a_real_camera_that_is_lost_meanwhile(rtsp, monkeypatch):
    seen, take = asyncio.Event(), SourceWatch.take

    def noted(watch: SourceWatch, frame: Frame) -> None:
        take(watch, frame)
        if watch.delivered > 5:
            seen.set()

    monkeypatch.setattr(SourceWatch, "take", noted)
    looking = asyncio.ensure_future(look(rtsp.url(), seconds=8.0, read_timeout_s=1.0))
    await asyncio.wait_for(seen.wait(), LIVENESS_S)
    await rtsp.kill()
    finding = await looking
    assert (finding.level, "lost" in finding.measured) == ("warning", True)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (DecodeErrors(7), "damaged 7 times"),
        (SourceLost("it went away"), "lost 1 times: it went away"),
        (SourceFrozen(50), "the picture stands still"),
        (FrameUnreadable("door", "it cannot be decoded"), "1 pictures cannot be read"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_with_pictures_is_told(event, words):
    watch = watched()
    assert judge_source("door", watch, None).level == "ok"
    watch.note(event)
    finding = judge_source("door", watch, None)
    assert (finding.level, words in finding.measured, bool(finding.advice)) == ("warning", True, True)


def test_a_picture_that_moves_again_is_not_frozen():
    watch = watched()
    watch.note(SourceFrozen(50))
    watch.note(SourceMoving())
    assert judge_source("door", watch, None).level == "ok"


def test_pictures_that_were_not_read_count_for_the_rate():
    watch = SourceWatch(live=True)
    for number in range(10):
        watch.take(Frame(IMAGE, 10**9 + number * 10**8))
        if number < 9:
            watch.note(FramesSkipped(1))
    assert watch.fps == pytest.approx(20.0)


@pytest.mark.parametrize("live", [True, False])
def test_a_stutter_is_told_of_what_is_live(live):
    watch = watched(live=live, fps=10.0, count=40)
    watch.take(Frame(IMAGE, 75 * 10**8))
    assert ("once nothing came for 2.6 s" in judge_source("door", watch, None).measured) is live


def test_what_came_before_it_settled_counts_for_no_rate():
    watch = SourceWatch(live=True)
    for number in range(10):
        watch.take(Frame(IMAGE, 10**9 + number))  # at once, as a server has them ready
    watch.take(Frame(IMAGE, 2 * 10**9))
    watch.settle()
    assert (watch.fps, watch.longest_gap_s) == (None, 0.0)
    for number in range(1, 5):
        watch.take(Frame(IMAGE, 2 * 10**9 + number * 10**8))
    assert watch.fps == pytest.approx(10.0)


def test_few_pictures_are_kept():
    watch = SourceWatch(live=True)
    for number in range(100):
        watch.take(Frame(IMAGE, number + 1))
    assert len(watch.frames) == 60
    large = np.zeros((2160, 3840, 3), np.uint8)
    for number in range(10):
        watch.take(Frame(large, 200 + number))
    assert len(watch.frames) <= 60
