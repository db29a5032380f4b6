from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from itertools import pairwise

import pytest

from stream.sources.base import (
    CaptureOptions,
    PictureSizeChanged,
    SourceConnected,
    SourceLost,
    SourceRetry,
)
from stream.sources.capture_messages import Opened
from stream.sources.live import Pace, next_message
from stream.sources.opening import open_source
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.watching import (
    IMPATIENT,
    Events,
    assert_nothing_left,
    capture_children,
    drain,
    drained,
    is_running,
    number_of,
    open_descriptors,
    receive,
)


async def test_live_frames_arrive_in_order(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        frames = await receive(source, 20)
        now_ns = time.monotonic_ns()
    order = [number_of(frame.image) for frame in frames]
    assert order == sorted(set(order))
    times_ns = [frame.captured_ns for frame in frames]
    assert times_ns == sorted(set(times_ns))
    assert now_ns - LIVENESS_S * 10**9 < times_ns[0] < times_ns[-1] < now_ns
    assert events.of(SourceConnected) == [SourceConnected(320, 240)]
    assert events.of(SourceLost) == []


async def test_a_slow_consumer_gets_the_newest_and_every_skip_is_counted(camera):
    events = Events()
    order = []
    async with asyncio.timeout(LIVENESS_S), open_source(camera.url, CaptureOptions(), events) as source:
        async for frame in source:
            order.append(number_of(frame.image))
            if len(order) == 6:
                break
            # While nobody asks, newer pictures keep displacing the one that waits.
            target = events.skipped + 5
            while events.skipped < target:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert all(later - earlier > 5 for earlier, later in pairwise(order))
    # The camera numbers its pictures and HTTP loses none, so the numbers tell how many were captured.
    assert order[-1] + 1 <= len(order) + events.skipped <= camera.number


async def test_a_frame_belongs_to_the_consumer(camera):
    async with open_source(camera.url, IMPATIENT) as source:
        (first,) = await receive(source, 1)
        number = number_of(first.image)
        await receive(source, 10)
        assert number_of(first.image) == number
        first.image[:] = 0


async def test_pictures_of_another_size_come_as_they_are_and_are_announced(camera):
    seen = []
    async with asyncio.timeout(LIVENESS_S), open_source(camera.url, CaptureOptions(), seen.append) as source:
        for size in [(320, 240), (640, 480), (160, 120)]:
            camera.size = size
            changed_from = camera.number
            while True:
                frame = await anext(source)
                last = next(event for event in reversed(seen) if hasattr(event, "width"))
                assert (frame.width, frame.height) == (last.width, last.height)
                if number_of(frame.image) >= changed_from + 5:
                    break
            assert (frame.width, frame.height) == size
    sizes = [event for event in seen if isinstance(event, PictureSizeChanged)]
    assert sizes == [PictureSizeChanged(640, 480), PictureSizeChanged(160, 120)]


async def test_a_camera_that_goes_away_is_awaited(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        await receive(source, 3)
        async with drained(source):
            await camera.stop()
            lost = await events.until(SourceLost, 3)
            assert "refused" in lost.reason
        retries = events.of(SourceRetry)
        assert [retry.attempt for retry in retries[:2]] == [1, 2]
        assert retries[0].delay_s == 0
        assert all(0.5 <= retry.delay_s <= 1.0 for retry in retries[1:])
        await camera.start()
        await receive(source, 3)
    assert len(events.of(SourceConnected)) == 2
    assert not any("secret" in str(event) for event in events.seen)


async def test_a_frozen_camera_is_lost_and_found(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        while camera.number < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        camera.flowing.clear()
        lost = await events.until(SourceLost)
        assert "for a picture" in lost.reason
        camera.flowing.set()
        await events.until(SourceConnected, 2)


async def test_closing_while_the_camera_hangs(camera):
    events = Events()
    patient = CaptureOptions(open_timeout_s=2 * LIVENESS_S, read_timeout_s=2 * LIVENESS_S)
    async with open_source(camera.url, patient, events) as source:
        await receive(source, 1)
        camera.flowing.clear()
        hanging = asyncio.create_task(drain(source))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(LIVENESS_S):
            await source.aclose()
            await hanging  # the iteration ends
    assert_nothing_left()


async def test_closing_before_anything_answers(camera):
    camera.flowing.clear()
    source = open_source(camera.url, CaptureOptions(open_timeout_s=2 * LIVENESS_S))
    waiting = asyncio.create_task(drain(source))
    async with asyncio.timeout(LIVENESS_S):
        while not camera.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with asyncio.timeout(LIVENESS_S):
        await source.aclose()
        await waiting
    assert_nothing_left()


@pytest.mark.parametrize("yields", [0, 1, 2, 5])
async def test_closing_while_a_capture_process_ends(camera, yields):
    source = open_source(camera.url, IMPATIENT)
    await receive(source, 3)
    async with drained(source):
        (child,) = capture_children()
        os.kill(child, signal.SIGSTOP)  # so that its end takes a while
        await camera.stop()
        for _ in range(yields):
            await asyncio.sleep(0)
        async with asyncio.timeout(LIVENESS_S):
            await source.aclose()
    assert not is_running(child)
    assert_nothing_left()


async def test_a_process_that_cannot_be_started_is_tried_again(camera, monkeypatch):
    events = Events()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python3")
        source = open_source(camera.url, IMPATIENT, events)
        reading = asyncio.create_task(receive(source, 1))
        lost = await events.until(SourceLost)
        assert "cannot be started" in lost.reason
    await reading
    await source.aclose()


async def test_a_killed_capture_process_is_replaced(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        await receive(source, 3)
        async with drained(source):
            (child,) = capture_children()
            os.kill(child, signal.SIGKILL)
            lost = await events.until(SourceLost)
            assert "ended unexpectedly" in lost.reason
            await events.until(SourceConnected, 2)
        assert capture_children() != [child]
        await receive(source, 3)


async def test_a_silent_capture_process_is_killed(camera):
    """The child itself hangs, as in a camera's driver."""
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        await receive(source, 3)
        async with drained(source):
            (child,) = capture_children()
            os.kill(child, signal.SIGSTOP)
            lost = await events.until(SourceLost)
            assert "for a picture" in lost.reason
            await events.until(SourceConnected, 2)
        assert not is_running(child)


class TalkingProcess:
    """A capture process of which only the messages matter."""

    def __init__(self):
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def say(self) -> None:
        self._theirs.send(b".")

    def fileno(self) -> int:
        return self._ours.fileno()

    def receive(self) -> Opened | None:
        try:
            return Opened() if self._ours.recv(1) else None
        except BlockingIOError:
            return None

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


async def test_a_busy_event_loop_is_not_taken_for_a_lost_camera():
    """What came while the loop stood still is taken, though its time is over."""
    with contextlib.closing(TalkingProcess()) as process:
        process.say()
        assert await next_message(process, timeout_s=-1.0) == Opened()
        waiting = asyncio.create_task(next_message(process, timeout_s=0.05))
        await asyncio.sleep(0)
        process.say()
        time.sleep(0.2)  # noqa: ASYNC251
        assert await waiting == Opened()
        assert await next_message(process, timeout_s=0.05) is None


@pytest.mark.parametrize(
    ("fps", "patience_s"), [(25, 3), (5, 3), (3, 10 / 3), (1, 10), (0.5, 20)], ids=lambda value: f"{value:g}"
)
def test_a_camera_may_be_silent_for_three_seconds_or_ten_of_its_periods(fps, patience_s):
    pace = Pace(timeout_s=3.0)
    for number in range(11):
        # Nothing is known of the rate before there are two pictures.
        assert pace.patience_s == pytest.approx(10 if number < 2 else patience_s)
        pace.picture(round(number * 1e9 / fps))
    assert pace.patience_s == pytest.approx(patience_s)


def test_first_pictures_that_come_at_once_do_not_stand_for_the_rate():
    pace = Pace(timeout_s=3.0)
    for at_s in (0.0, 0.001, 0.002, 1.0):
        pace.picture(round(at_s * 1e9))
    assert pace.patience_s == pytest.approx(10, abs=0.1)


def test_a_slower_frame_rate_is_followed():
    pace = Pace(timeout_s=3.0)
    for number in range(100):
        pace.picture(number * 40_000_000)
    for number in range(5, 15):
        pace.picture(number * 10**9)
    assert pace.patience_s == pytest.approx(10, abs=1)


async def test_connections_leave_nothing_open(camera):
    events = Events()
    open_before = open_descriptors()
    async with open_source(camera.url, IMPATIENT, events) as source, drained(source):
        for count in range(1, 4):
            await events.until(SourceConnected, count)
            for child in capture_children():
                os.kill(child, signal.SIGKILL)
            await events.until(SourceLost, count)
    await camera.stop()
    await asyncio.sleep(0.1)
    await camera.start()
    assert open_descriptors() <= open_before


async def test_an_error_of_the_event_handler_reaches_the_consumer(camera):
    def refuse(event):
        raise RuntimeError("the handler is broken")

    async with asyncio.timeout(LIVENESS_S), open_source(camera.url, IMPATIENT, refuse) as source:
        with pytest.raises(RuntimeError, match="the handler is broken"):
            await anext(source)


async def test_a_webcam_that_is_not_there_is_awaited():
    events = Events()
    async with open_source("99", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost, 2)
        assert "there is no /dev/video99" in lost.reason
    assert_nothing_left()


async def test_the_capture_process_outlives_a_lost_camera(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        (child,) = capture_children()
        await camera.stop()
        await events.until(SourceLost, 2)
        await camera.start()
        await events.until(SourceConnected, 2)
        assert capture_children() == [child]
