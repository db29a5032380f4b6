"""What an outage left is sent late: to a real detector, beside a live stream that comes first."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.access.tokens import new_token
from services.camera.settings import CameraSettings
from services.chaos.service import chaos_proxy
from services.recording.backlog import Backlog
from services.recording.folder import segment_files
from services.recording.segment_writer import Written
from services.replay import late as module
from services.replay.connection import ReplayConnection
from services.replay.late import LateLine, LateSender
from stream.errors import NoRecording
from tests.recordings import hello, marked_late, packets, segment_bytes
from tests.services.clips import FRAMES
from tests.services.detector.test_gate import entry
from tests.services.replay.test_replay import recorded
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


@dataclass
class Live:
    connected: bool = True
    connections: int = 1
    unanswered: int = 0
    detected: int = 0


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    monkeypatch.setattr(module, "POLL_S", 0.001)


@pytest.fixture
async def left(tmp_path, weights, video):
    """A folder as an outage left it: two files of FRAMES packets each."""
    folder = tmp_path / "left"
    for _ in range(2):
        await recorded(folder, weights, video)
    for file in segment_files(folder):
        file.path.write_bytes(marked_late(file.path.read_bytes()))
    return folder


@asynccontextmanager
async def sending(folder, running, live=None, **flags):
    """A sender of the folder's backlog."""
    backlog = Backlog(folder, "door")
    await backlog.look()
    settings = CameraSettings.load({"source": "demo", "detector": running.url, **flags})
    sender = LateSender(settings, running.url, "door", live=live or Live(), backlog=backlog)
    task = asyncio.ensure_future(sender.run())
    try:
        yield backlog
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_what_was_left_is_detected_marked_and_deleted(start_detector, left):
    """In order, with the times of the recording, as another stream; the files are gone afterwards."""
    messages = []
    async with start_detector() as running:
        watching = await subscribed(running, running.url, messages, "door.late")
        async with sending(left, running) as backlog, asyncio.timeout(LIVENESS_S):
            await until(lambda: backlog.kept and not backlog.waiting and not segment_files(left))
        await until(lambda: len(messages) == 2 * FRAMES)
        described = running.detector.streams.get("door.late").describe(0)
    await watching
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}
    assert all(message["late"] and message["late_of"] == "door" for message in messages)
    captured = [message["captured_at"] for message in messages]
    assert captured == sorted(set(captured))
    assert all(message["published_at"] > message["captured_at"] for message in messages)
    assert [message["frame"] for message in messages] == list(range(2 * FRAMES))
    assert described["late"]


async def test_what_cannot_be_deleted_is_tried_again_with_the_next_file(start_detector, left, monkeypatch):
    """A folder may be read-only for a while."""
    unlink, refused = Path.unlink, []

    def refuse_once(path: Path, missing_ok: bool = False) -> None:
        if path.parent == left and not refused:
            refused.append(path)
            raise OSError(30, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_once)
    first, _ = (file.path for file in segment_files(left))
    async with start_detector() as running, sending(left, running) as backlog, asyncio.timeout(LIVENESS_S):
        await until(lambda: backlog.kept and not backlog.waiting and not segment_files(left))
    assert refused == [first]
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}


async def test_what_was_recorded_to_be_kept_is_neither_sent_nor_deleted(start_detector, left, weights, video):
    await recorded(left, weights, video)
    *_, to_be_kept = segment_files(left)
    async with start_detector() as running, sending(left, running) as backlog, asyncio.timeout(LIVENESS_S):
        await until(lambda: backlog.kept and not backlog.waiting and len(segment_files(left)) == 1)
    assert segment_files(left) == [to_be_kept]
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}


async def test_it_waits_once_for_each_connection_of_the_live_stream(start_detector, left, monkeypatch):
    """And not for each of the many files that a link leaves which breaks again and again."""
    live, waited = Live(), []

    async def until_steady(_live) -> None:
        waited.append(live.connections)

    monkeypatch.setattr(module, "_until_steady", until_steady)
    first, second = segment_files(left)
    again = second.path.read_bytes()
    async with (
        start_detector() as running,
        sending(left, running, live) as backlog,
        asyncio.timeout(LIVENESS_S),
    ):
        await until(lambda: backlog.kept and not backlog.waiting and not segment_files(left))
        assert waited == [1]
        live.connections = 2
        first.path.write_bytes(again)
        backlog.follow(Written(by_file=Counter({first.path: FRAMES}), ended=[first.path]))
        await until(lambda: not backlog.waiting)
    assert waited == [1, 2]


async def test_a_live_camera_gets_the_place_of_what_is_late(start_detector, make_camera, left, video):
    """And what is late goes on once there is room again."""
    live = Live(unanswered=1)  # nothing late is sent, but it has its place
    async with start_detector(max_streams=1) as running, sending(left, running, live) as backlog:
        streams = running.detector.streams
        await until(lambda: (late := streams.get("door.late")) and late.connected)
        camera = make_camera(running.url, source=str(video), stream="yard")
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert camera.statistics.frame_counts.detected == FRAMES
        assert streams.get("door.late").ending == "closed"
        live.unanswered = 0
        async with asyncio.timeout(LIVENESS_S):
            await until(lambda: backlog.kept and not backlog.waiting)
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}


async def test_nothing_is_sent_while_the_live_stream_has_no_detector(start_detector, left):
    live = Live(connected=False)
    async with start_detector() as running, sending(left, running, live) as backlog:
        await until(lambda: backlog.waiting == 2 * FRAMES)
        await asyncio.sleep(0.1)
        assert running.detector.streams.get("door.late") is None
        live.connected = True
        await until(lambda: backlog.settled["detected"] == 2 * FRAMES)


async def test_it_leaves_where_the_live_stream_finds_no_detector_and_comes_back_behind_it(
    start_detector, left, monkeypatch
):
    """Its memory at the detector may be what the live stream lacks."""
    monkeypatch.setattr(module, "AWAY_S", 0.0)
    live = Live(unanswered=1)
    async with start_detector() as running, sending(left, running, live) as backlog:
        await until(lambda: backlog.waiting == 2 * FRAMES)
        live.detected += module.LIVE_FIRST
        streams = running.detector.streams
        await until(lambda: (late := streams.get("door.late")) and late.connected)
        live.connected = False
        await until(lambda: not streams.get("door.late").connected)
        live.connected, live.unanswered = True, 0
        await until(lambda: backlog.settled["detected"] == 2 * FRAMES)
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}


async def test_a_detector_that_is_lost_costs_no_packet(start_detector, left):
    """What was not answered comes again, behind its keyframe: a consumer may see that much twice."""
    live, messages = Live(unanswered=1), []
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        watching = await subscribed(running, running.url, messages, "door.late")
        async with sending(left, SimpleNamespace(url=proxy.url), live) as backlog:
            for cut in range(1, 4):
                settled = backlog.settled.total()
                while backlog.settled.total() < settled + 3:
                    live.detected += module.LIVE_FIRST
                    await asyncio.sleep(0.01)
                assert backlog.waiting
                proxy.begin("reset")
                await until(lambda cut=cut: proxy.report.accepted == cut + 1)
            live.unanswered = 0
            await until(lambda: not backlog.waiting and not segment_files(left))
    await watching
    assert backlog.account == {"kept": 2 * FRAMES, "detected": 2 * FRAMES, "waiting": 0}
    assert len({message["captured_ns"] for message in messages}) == 2 * FRAMES


async def test_a_file_that_is_deleted_is_not_sent_to_its_end(start_detector, left):
    live = Live(unanswered=1)
    async with start_detector() as running, sending(left, running, live) as backlog:
        await until(lambda: backlog.waiting == 2 * FRAMES)
        first = await backlog.next_file()
        await until(lambda: running.detector.streams.get("door.late"))
        backlog.lose(first, "deleted")
        first.unlink()
        live.unanswered = 0
        await until(lambda: not backlog.waiting)
    assert backlog.account == {"kept": 2 * FRAMES, "deleted": FRAMES, "detected": FRAMES, "waiting": 0}


async def test_what_no_detector_takes_is_given_up_and_what_follows_is_sent(start_detector, left):
    """The first file is of another network, as after an update. It stays where it is."""
    (first, _) = segment_files(left)
    first.path.write_bytes(segment_bytes(packets(5), hello(late=True)))
    async with start_detector() as running, sending(left, running) as backlog:
        await until(lambda: backlog.kept and not backlog.waiting)
        await until(lambda: segment_files(left)[-1].path == first.path)
    assert backlog.account == {"kept": 5 + FRAMES, "refused": 5, "detected": FRAMES, "waiting": 0}


@pytest.mark.parametrize("error", [OSError(5, "of the test"), NoRecording("of the test"), RuntimeError()])
async def test_what_cannot_be_sent_costs_its_file_alone(start_detector, left, monkeypatch, error):
    """Even where it is a defect of ours."""
    run, errors = ReplayConnection.run, [error]

    async def fail_once(self):
        if errors:
            raise errors.pop()
        return await run(self)

    monkeypatch.setattr(ReplayConnection, "run", fail_once)
    (first, _) = segment_files(left)
    async with start_detector() as running, sending(left, running) as backlog:
        await until(lambda: backlog.kept and not backlog.waiting)
        await until(lambda: segment_files(left)[-1].path == first.path)
    assert backlog.account == {"kept": 2 * FRAMES, "unreadable": FRAMES, "detected": FRAMES, "waiting": 0}


async def test_a_file_that_goes_before_its_turn_is_counted(start_detector, left):
    live = Live(connected=False)
    async with start_detector() as running, sending(left, running, live) as backlog:
        await until(lambda: backlog.waiting == 2 * FRAMES)
        for file in segment_files(left):
            file.path.unlink()
        live.connected = True
        await until(lambda: not backlog.waiting)
    assert backlog.account == {"kept": 2 * FRAMES, "deleted": 2 * FRAMES, "waiting": 0}


async def test_who_may_send_a_stream_may_send_it_late(start_detector, left, tmp_path):
    token = new_token()
    (file := tmp_path / "token").write_text(token)
    async with (
        start_detector(tokens=entry("door", token, "camera", "door")) as running,
        sending(left, running, token_file=str(file)) as backlog,
    ):
        await until(lambda: backlog.settled["detected"] == 2 * FRAMES)


@pytest.fixture
def slept(monkeypatch):
    """Seconds that the line rests."""
    slept_s, clock = [], SimpleNamespace(now_s=100.0)

    async def sleep(seconds):
        slept_s.append(seconds)
        clock.now_s += seconds

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now_s)
    return slept_s, clock


async def test_a_late_packet_rests_by_how_long_the_one_before_took(slept, tmp_path):
    slept_s, clock = slept
    backlog = SimpleNamespace(holds=lambda path: True)
    line = LateLine(tmp_path, 0, Live(), backlog, None)
    await line.until_due(SimpleNamespace(data=bytes(1000)))
    clock.now_s += 0.2
    await line.until_due(SimpleNamespace(data=bytes(1000)))
    assert slept_s == pytest.approx([0.2 * module.REST])
    target = LateLine(tmp_path, 0, Live(), backlog, 80.0)
    await target.until_due(SimpleNamespace(data=bytes(1000)))
    clock.now_s += 0.01
    await target.until_due(SimpleNamespace(data=bytes(1000)))
    assert slept_s[1:] == pytest.approx([0.19])  # 8000 bit at half of 80 kbit/s
    line.close()
    target.close()


async def test_live_packets_come_first_but_not_for_ever(tmp_path):
    live, backlog = Live(unanswered=2), SimpleNamespace(holds=lambda path: True)
    line = LateLine(tmp_path, 0, live, backlog, None)
    due = asyncio.ensure_future(line.until_due(SimpleNamespace(data=b"")))
    await asyncio.sleep(0.02)
    assert not due.done()
    live.detected = module.LIVE_FIRST
    await asyncio.wait_for(due, LIVENESS_S)
    live.unanswered = 0
    await asyncio.wait_for(line.until_due(SimpleNamespace(data=b"")), LIVENESS_S)
    line.close()
