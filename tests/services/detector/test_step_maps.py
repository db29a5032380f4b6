"""Step maps from the detector (`--feedback`): who gets them, when they are measured, and when they are not."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from codec.errors import BadStepMap
from codec.layout import TensorSpec
from services.detector import step_maps
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.step_maps import CameraStepMaps, StepMaps
from services.detector.streams import Streams
from stream.session.camera import CameraSession, StepMapReceived
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S, until
from tests.stream.session.peers import make_hello as hello

LAYOUT = (TensorSpec("4.m", (1, 4, 4)),)
TENSORS = {"4.m": np.zeros((1, 4, 4), np.float32)}


def count(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def of_detector(running, name):
    return count(running.detector.statistics.metrics, f"splitcast_detector_{name}")


def of_camera(camera):
    return count(camera.statistics.metrics, "splitcast_camera_step_maps_total")


async def test_a_camera_gets_a_map_and_codes_by_it(start_detector, make_camera, profile, monkeypatch):
    """One frame in the air at a time, so that each map is there before the next frame."""
    guided = []
    async with start_detector(feedback=1, tails=2) as running:
        camera = make_camera(running.url, codec=f"feature:profile={profile.hash}", window=1, loop=True)
        task = asyncio.ensure_future(camera.run())
        await until(lambda: of_camera(camera) and of_camera(camera) > 2)
        encoder = camera._preparation.newest.encoder
        assert encoder.step_map_bytes > 0
        guide = encoder.guide
        monkeypatch.setattr(
            encoder, "guide", lambda sequence, data: (guided.append((sequence, data)), guide(sequence, data))
        )
        await until(lambda: len(guided) > 2)
        camera.stop()
        await asyncio.wait_for(task, LIVENESS_S)
        assert of_detector(running, "step_map_seconds_count") >= of_camera(camera) > 2
        assert 0 < of_detector(running, "step_map_seconds_sum") < LIVENESS_S  # in seconds
        assert of_detector(running, "sessions_closed_total") is None
    assert all(len(data) == encoder.step_map_bytes for _, data in guided)
    sequences = [sequence for sequence, _ in guided]
    assert sequences == sorted(set(sequences))
    assert sequences[-1] < camera.statistics.frame_counts.detected  # each is of a frame that was detected on


async def test_a_map_is_sent_under_the_number_of_its_frame(start_detector, make_camera, profile, monkeypatch):
    received = []
    receive = CameraSession.receive
    monkeypatch.setattr(CameraSession, "receive", lambda *a: received.append(event := receive(*a)) or event)
    async with start_detector(feedback=1000, tails=2) as running:  # only the first is due
        camera = make_camera(running.url, codec=f"feature:profile={profile.hash}", window=1, loop=True)
        task = asyncio.ensure_future(camera.run())
        await until(lambda: of_camera(camera))
        camera.stop()
        await asyncio.wait_for(task, LIVENESS_S)
    assert [event.sequence for event in received if isinstance(event, StepMapReceived)] == [0]


@pytest.mark.parametrize(
    ("feedback", "codec"), [(None, "feature:profile={}"), (1, "rle"), (1, "feature:profile=none")]
)
async def test_who_wants_none_gets_none(start_detector, make_camera, profile, feedback, codec):
    """A detector without --feedback measures none, and a codec that has no use for one says so in its hello."""
    async with start_detector(feedback=feedback) as running:
        camera = make_camera(running.url, codec=codec.format(profile.hash))
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert (
            of_detector(running, "step_map_seconds_count")
            == of_detector(running, "step_maps_shed_total")
            == 0
        )
    assert camera.statistics.frame_counts.detected == FRAMES
    assert of_camera(camera) == 0


async def test_a_frame_is_not_measured_while_the_next_has_come(
    start_detector, make_camera, profile, monkeypatch, capsys
):
    go, received = threading.Event(), []
    async with start_detector(feedback=1000) as running:  # only the first is due
        detector, url = running.detector, running.url
        detect, receive = detector.inference.detect, detector.statistics.receive
        monkeypatch.setattr(detector.inference, "detect", lambda *a: go.wait(LIVENESS_S) and detect(*a))
        monkeypatch.setattr(detector.statistics, "receive", lambda *a: (received.append(a), receive(*a)))
        camera = make_camera(url, codec=f"feature:profile={profile.hash}", window=2)
        task = asyncio.ensure_future(camera.run())
        try:
            await until(lambda: len(received) == 2)
        finally:
            go.set()
        await asyncio.wait_for(task, LIVENESS_S)
        assert of_detector(running, "step_maps_shed_total") == 1
        assert of_detector(running, "step_map_seconds_count") == 0
    assert camera.statistics.frame_counts.detected == FRAMES
    assert "no step map" not in capsys.readouterr().out  # none was tried


class Slow:
    """Measures until it may end."""

    def __init__(self, result=b"map"):
        self.begun, self.go, self.result = threading.Event(), threading.Event(), result

    def __call__(self, _tensors):
        self.begun.set()
        assert self.go.wait(LIVENESS_S)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def statistics():
    return DetectorStatistics(Streams())


@pytest.fixture
async def make_maps(weights, workers, statistics):
    """Maps of one camera, measured by this."""
    made = []

    def make(mapper, every=1):
        settings = DetectorSettings.load({"model": str(weights), "feedback": every})
        maps = StepMaps(settings, workers, statistics)
        maps._mappers = lambda *_: mapper
        made.append(maps)
        camera = maps.camera(hello(step_map_bytes=1), LAYOUT, object())
        assert camera
        return camera

    yield make
    for maps in made:
        maps.close()


def shed(statistics):
    return count(statistics.metrics, "splitcast_detector_step_maps_shed_total")


@pytest.mark.parametrize(("size", "profile"), [(0, object()), (2, object()), (1, None)])
async def test_a_camera_that_asks_for_what_there_is_not_gets_none(make_maps, size, profile):
    """For no maps, for those of another layout, or for those of a codec without a profile."""
    maps = make_maps(Slow())._maps
    assert maps.camera(hello(step_map_bytes=size), LAYOUT, profile) is None


async def test_every_nth_frame_is_due_from_the_first(make_maps, statistics):
    slow = Slow()
    slow.go.set()
    camera, due = make_maps(slow, every=3), []
    for number in range(7):
        due.append(camera.take(waiting=False))
        if due[-1]:
            camera.put(number, TENSORS)
            assert await asyncio.wait_for(camera.next(), LIVENESS_S) == (number, b"map")
    assert due == [True, False, False, True, False, False, True]
    assert shed(statistics) == 0


async def test_a_frame_is_not_measured_while_another_packet_of_its_camera_waits(make_maps, statistics):
    camera = make_maps(Slow(), every=2)
    assert [camera.take(waiting=True) for _ in range(4)] == [False] * 4
    assert shed(statistics) == 2


async def test_nor_while_another_camera_is_measured(make_maps, statistics):
    slow = Slow()
    camera = make_maps(slow)
    other = CameraStepMaps(camera._maps, Slow(), 1)
    assert camera.take(waiting=False)
    camera.put(7, TENSORS)
    measured = asyncio.ensure_future(camera.next())
    await asyncio.to_thread(slow.begun.wait, LIVENESS_S)
    assert not other.take(waiting=False)
    slow.go.set()
    await asyncio.wait_for(measured, LIVENESS_S)
    assert other.take(waiting=False)
    assert shed(statistics) == 1


async def test_nor_while_one_is_about_to_be_measured(make_maps):
    camera, slow = make_maps(Slow()), Slow()
    before = asyncio.ensure_future(camera._maps._worker.run(slow, TENSORS))
    await asyncio.to_thread(slow.begun.wait, LIVENESS_S)
    measured = asyncio.ensure_future(camera._maps.measure(lambda _: b"map", TENSORS))
    await until(lambda: camera._maps._worker.queue_length > 0)
    assert not camera.take(waiting=False)
    slow.go.set()
    assert await asyncio.wait_for(asyncio.gather(before, measured), LIVENESS_S) == [b"map", b"map"]
    assert camera.take(waiting=False)


async def test_nor_while_a_camera_that_has_left_is_measured(make_maps):
    slow = Slow()
    camera = make_maps(slow)
    other = CameraStepMaps(camera._maps, Slow(), 1)
    camera.put(7, TENSORS)
    measured = asyncio.ensure_future(camera.next())
    await asyncio.to_thread(slow.begun.wait, LIVENESS_S)
    measured.cancel()
    await asyncio.wait([measured])
    assert not other.take(waiting=False)
    slow.go.set()
    await until(lambda: other.take(waiting=False))


async def test_nor_while_the_one_before_is_measured(make_maps, statistics):
    slow = Slow()
    camera = make_maps(slow)
    assert camera.take(waiting=False)
    camera.put(7, TENSORS)
    measured = asyncio.ensure_future(camera.next())
    await asyncio.to_thread(slow.begun.wait, LIVENESS_S)
    assert not camera.take(waiting=False)
    assert shed(statistics) == 1
    slow.go.set()
    assert await asyncio.wait_for(measured, LIVENESS_S) == (7, b"map")
    assert camera.take(waiting=False)


async def test_nor_while_more_cameras_want_a_turn_than_there_are_threads(make_maps, workers, statistics):
    camera, slow = make_maps(Slow()), [Slow() for _ in range(3)]
    turns = [asyncio.ensure_future(workers.run(workers.owner(), each, None)) for each in slow[:2]]
    await until(lambda: workers.queue_length == 2)
    assert not camera._maps.is_busy
    turns.append(asyncio.ensure_future(workers.run(workers.owner(), slow[2], None)))
    await until(lambda: workers.queue_length == 3)
    assert not camera.take(waiting=False)
    assert shed(statistics) == 1
    for each in slow:
        each.go.set()
    await asyncio.wait_for(asyncio.gather(*turns), LIVENESS_S)
    await until(lambda: workers.queue_length == 0)
    assert camera.take(waiting=False)


async def test_no_more_than_one_frame_is_held(make_maps, statistics):
    slow = Slow()
    slow.go.set()
    camera = make_maps(slow)
    assert [camera.take(waiting=False) for _ in range(3)] == [True, False, False]
    assert shed(statistics) == 2
    camera.put(1, TENSORS)
    assert await asyncio.wait_for(camera.next(), LIVENESS_S) == (1, b"map")
    assert camera.take(waiting=False)


async def test_without_feedback_nothing_is_loaded(weights, workers, statistics, monkeypatch):
    monkeypatch.setattr(step_maps, "_load", lambda *_: pytest.fail("torch is loaded"))
    maps = StepMaps(DetectorSettings.load({"model": str(weights)}), workers, statistics)
    await maps.load("cpu")
    maps.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("step_maps")]


async def test_a_detector_that_stops_measures_no_more(start_detector):
    async with start_detector(feedback=1):
        assert threads()
    await until(lambda: not threads())


@pytest.mark.parametrize("error", [BadStepMap("an energy is not finite"), RuntimeError("out of memory")])
async def test_a_frame_that_cannot_be_measured_costs_nothing_else(make_maps, error):
    bad = Slow(error)
    bad.go.set()
    camera = make_maps(bad)
    camera.put(1, TENSORS)
    following = asyncio.ensure_future(camera.next())
    await asyncio.to_thread(bad.begun.wait, LIVENESS_S)
    bad.result = b"map"
    await until(lambda: camera.take(waiting=False))
    camera.put(2, TENSORS)
    assert await asyncio.wait_for(following, LIVENESS_S) == (2, b"map")
