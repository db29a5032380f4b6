"""What a camera does with frames while its detector is away: each has one outcome, and one way."""

from __future__ import annotations

import asyncio

import pytest

from stream.frame import Frame
from tests.ports import free_port
from tests.services.camera.detectors import ObedientDetector
from tests.services.camera.sources import END, picture, scripted
from tests.services.clips import write_video
from tests.services.counts import balances
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S, until

NOWHERE = "ws://127.0.0.1:9"  # the discard port: nobody listens


class Collector:
    """A taker that keeps the times of capture of what it gets, and the sizes that the head was made for."""

    stage = "tail"

    def __init__(self, outcome="detected") -> None:
        self.outcome, self.is_due, self.error = outcome, True, None
        self.told: list[str | None] = []  # why there is no detector; None: there is one
        self.taken: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    def begin(self, reason: str) -> None:
        self.told.append(reason)

    def end(self) -> None:
        self.told.append(None)

    def due(self, outage_s: float) -> bool:
        assert outage_s >= 0
        return self.is_due

    async def take(self, frame: Frame, tensors, pipeline):
        assert list(tensors) == [spec.name for spec in pipeline.head.layout]
        self.taken.append(frame.captured_ns)
        self.sizes.append(pipeline.head.size)
        await self.may_finish.wait()
        if self.error:
            raise self.error
        return self.outcome


@pytest.fixture
def outage_of(make_camera, monkeypatch):
    """Makes a camera with takers, of a scripted live source; must be called on the event loop."""

    def make(*takers: Collector, url: str = NOWHERE, **settings):
        made = scripted(monkeypatch, live=True)
        camera = make_camera(url, silence_s=LIVENESS_S, **settings)
        camera._takers.extend(takers)
        return camera, made[0]

    return make


async def play_one_by_one(camera, source, frames: list[Frame]) -> None:
    """Each frame once the one before has its outcome, so that none is superseded."""
    for frame in frames:
        done = camera.statistics.frame_counts.done
        source.play(frame)
        await until(lambda done=done: camera.statistics.frame_counts.done > done)


@pytest.mark.parametrize(
    ("outcomes", "counted"),
    [
        (["detected"], "detected_locally"),
        (["recorded"], "recorded"),
        (["recorded", "detected"], "detected_locally"),
        ([None, "recorded"], "recorded"),
        ([None], "dropped_total"),
    ],
)
async def test_each_frame_of_an_outage_has_one_outcome(outage_of, outcomes, counted):
    takers = [Collector(outcome) for outcome in outcomes]
    camera, source = outage_of(*takers)
    playing = asyncio.ensure_future(camera.run())
    frames = [picture() for _ in range(5)]
    await play_one_by_one(camera, source, frames)
    counts = camera.statistics.frame_counts
    assert getattr(counts, counted) == counts.captured == 5
    assert balances(camera)
    assert all(taker.taken == [frame.captured_ns for frame in frames] for taker in takers)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_an_uplink_ends_the_outage_once_the_frame_in_work_is_done(outage_of):
    """No picture goes two ways, and none comes to a taker after the first that is sent."""
    taker, detector = Collector(), ObedientDetector()
    camera, source = outage_of(taker, url=f"ws://127.0.0.1:{(port := free_port())}")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(2)])
    taker.may_finish.clear()
    source.play(picture())
    await until(lambda: len(taker.taken) == 3)
    async with serving(detector.handle, port=port):
        await until(lambda: camera.statistics.connected["detector"])
        source.play(frame := picture())
        await until(lambda: camera.statistics.frame_counts.captured == 4)
        await asyncio.sleep(0.1)
        assert not detector.packets
        taker.may_finish.set()
        await until(lambda: camera.statistics.frame_counts.detected == 1)
        await play_one_by_one(camera, source, more := [picture() for _ in range(3)])
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    sent = [header.captured_ns for header in detector.packets]
    assert sent == [frame.captured_ns, *(frame.captured_ns for frame in more)]
    assert detector.packets[0].keyframe
    assert not set(sent) & set(taker.taken)
    counts = camera.statistics.frame_counts
    assert (counts.captured, counts.detected, counts.detected_locally) == (7, 4, 3)
    assert not counts.dropped


async def test_takers_are_told_why_there_is_no_detector_and_when_there_is_one(outage_of):
    taker, detector = Collector(), ObedientDetector()
    camera, source = outage_of(taker, url=f"ws://127.0.0.1:{(port := free_port())}")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture()])
    await until(lambda: len(taker.told) > 1)
    assert taker.told[0] == "none has been there"
    assert all(str(port) in reason for reason in taker.told[1:])
    async with serving(detector.handle, port=port):
        await until(lambda: camera.statistics.connected["detector"])
        await play_one_by_one(camera, source, [picture()])
        assert taker.told[-1] is None
    await until(lambda: taker.told[-1] is not None)
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_frame_that_comes_once_there_is_a_detector_goes_there(outage_of):
    """Though the outage waited for one."""
    taker, detector = Collector(), ObedientDetector()
    async with serving(detector.handle) as url:
        camera, source = outage_of(taker, url=url)
        taker.is_due = False
        playing = asyncio.ensure_future(camera.run())
        await play_one_by_one(camera, source, [picture()])
        taker.is_due = True
        camera._outage.begin("of the test")  # as after a lost connection
        await until(lambda: camera._outage.takes and camera._outage._pulling)
        await asyncio.wait_for(camera._outage.end(), LIVENESS_S)
        await play_one_by_one(camera, source, [picture()])
        source.play(END)
        await asyncio.wait_for(playing, LIVENESS_S)
    assert not taker.taken
    assert camera.statistics.frame_counts.detected == 2


async def test_every_lost_connection_begins_an_outage(outage_of):
    taker = Collector()

    async with serving((detector := ObedientDetector()).handle) as url:
        camera, source = outage_of(taker, url=url)
        playing = asyncio.ensure_future(camera.run())
        taker.is_due = False
        await play_one_by_one(camera, source, [picture() for _ in range(3)])
        taker.is_due = True
    await until(lambda: not camera.statistics.connected["detector"])
    await play_one_by_one(camera, source, [picture() for _ in range(3)])
    source.play(END)
    await asyncio.wait_for(playing, LIVENESS_S)  # nothing is left that a detector could get
    counts = camera.statistics.frame_counts
    assert (counts.detected, counts.detected_locally) == (len(detector.packets), 3) == (3, 3)


async def test_frames_that_nobody_is_due_to_take_are_superseded(outage_of):
    taker = Collector()
    taker.is_due = False
    camera, source = outage_of(taker)
    playing = asyncio.ensure_future(camera.run())
    source.play(*(picture() for _ in range(6)))
    counts = camera.statistics.frame_counts
    await until(lambda: counts.captured == 6)
    assert counts.dropped == {("grab", "disconnected"): 5}
    taker.is_due = True
    await until(lambda: counts.detected_locally == 1)
    taker.may_finish.clear()
    source.play(picture())
    await until(lambda: len(taker.taken) == 2)
    source.play(*(picture() for _ in range(3)))
    await until(lambda: counts.dropped["grab", "superseded"] == 2)
    assert counts.dropped["grab", "disconnected"] == 5
    taker.may_finish.set()
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)


async def test_an_error_costs_one_frame(outage_of):
    taker = Collector()
    camera, source = outage_of(taker)
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture()])
    taker.error = ValueError("of the test")
    await play_one_by_one(camera, source, [picture()])
    taker.error = None
    await play_one_by_one(camera, source, [picture()])
    assert camera.statistics.frame_counts.dropped == {("tail", "error"): 1}
    assert camera.statistics.frame_counts.detected_locally == 2
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_an_error_of_one_taker_leaves_what_another_has_made_of_the_frame(outage_of):
    keeper, broken = Collector("recorded"), Collector()
    broken.error = ValueError("of the test")
    camera, source = outage_of(keeper, broken)
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture() for _ in range(2)])
    assert camera.statistics.frame_counts.recorded == 2
    assert not camera.statistics.frame_counts.dropped
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_pictures_of_another_size_get_another_canvas_in_an_outage(outage_of):
    taker = Collector()
    camera, source = outage_of(taker, size="96")
    playing = asyncio.ensure_future(camera.run())
    await play_one_by_one(camera, source, [picture(64, 96)])
    await play_one_by_one(camera, source, [picture(96, 64) for _ in range(4)])
    assert taker.sizes == [(64, 96)] * 3 + [(96, 64)] * 2
    assert camera.statistics.frame_counts.detected_locally == 5
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)


async def test_a_file_waits_for_its_detector(make_camera, tmp_path):
    camera = make_camera(NOWHERE, source=str(write_video(tmp_path / "short.avi", 5)))
    camera._takers.append(taker := Collector())
    playing = asyncio.ensure_future(camera.run())
    await until(lambda: camera.statistics.frame_counts.captured and camera._preparation.pipeline.done())
    await asyncio.sleep(0.3)
    assert not taker.taken
    camera.stop()
    await asyncio.wait_for(playing, LIVENESS_S)
