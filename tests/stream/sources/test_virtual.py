from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources import recorded as recorded_source
from stream.sources.base import CaptureOptions, SourceConnected
from stream.sources.opening import open_source
from stream.sources.virtual_camera import VirtualCamera
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.watching import (
    Events,
    receive,
)

DEMO = "demo:scene=bus,size=96x64,fps={fps}"


class Clock:
    """The time that a source paces itself by, in the hands of the test."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(recorded_source, "time", clock)
    return clock


async def test_the_virtual_camera_is_a_live_source():
    events = Events()
    uri = "demo:scene=bus,size=96x64,fps=100"
    async with open_source(uri, on_event=events) as source:
        assert (source.live, source.name) == (True, "demo:scene=bus,fps=100,size=96x64,noise=2,seed=0")
        frames = await receive(source, 8)
        now_ns = time.monotonic_ns()
    camera = VirtualCamera.parse(uri)
    numbers = [round((frame.captured_ns - frames[0].captured_ns) / 10e6) for frame in frames]
    assert numbers == sorted(set(numbers))
    for number, frame in zip(numbers, frames, strict=True):
        assert frame.captured_ns == frames[0].captured_ns + number * 10_000_000
        assert np.array_equal(frame.image, camera.render(number))
    assert frames[-1].captured_ns <= now_ns
    assert numbers[-1] + 1 == len(frames) + events.skipped
    assert events.of(SourceConnected) == [SourceConnected(96, 64)]


async def test_the_virtual_camera_keeps_its_rate_and_counts_what_a_slow_consumer_misses(clock):
    events = Events()
    started_ns = clock.now_ns
    delivered = []
    async with asyncio.timeout(LIVENESS_S), open_source(DEMO.format(fps=29.97), on_event=events) as source:
        async for frame in source:
            delivered.append(frame)
            number = (frame.captured_ns - started_ns) * 29.97 / 1e9
            assert number == pytest.approx(len(delivered) + events.skipped - 1, abs=1e-6)
            if len(delivered) == 100:
                break
            clock.now_ns += 3_141_592_653  # as if the consumer had taken so long
    assert len(delivered) + events.skipped == 1 + int(99 * 3.141592653 * 29.97)


async def test_a_cancelled_read_of_the_virtual_camera_keeps_the_account(clock):
    events = Events()
    async with asyncio.timeout(LIVENESS_S), open_source(DEMO.format(fps=100), on_event=events) as source:
        first = await anext(source)
        clock.now_ns += 50_000_000
        busy = threading.Event()
        source._thread.submit(busy.wait)
        reading = asyncio.create_task(anext(source))
        for _ in range(10):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        busy.set()
        frame = await anext(source)
        assert frame.captured_ns - first.captured_ns == 50_000_000
        assert events.skipped == 4
        assert np.array_equal(frame.image, VirtualCamera.parse(DEMO.format(fps=100)).render(5))


async def test_the_virtual_camera_renders_on_a_thread_of_its_own(monkeypatch):
    threads = []
    render = VirtualCamera.render

    def watched(camera, n):
        threads.append(threading.current_thread().name)
        return render(camera, n)

    monkeypatch.setattr(VirtualCamera, "render", watched)
    async with open_source(DEMO.format(fps=120)) as source:
        await receive(source, 3)
    assert len(threads) == 3
    assert all(name.startswith("splitcast-source") for name in threads)


async def test_the_virtual_camera_goes_on_whatever_the_options_say():
    options = CaptureOptions(loop=True, realtime=False)
    async with open_source(DEMO.format(fps=120), options) as source:
        assert source.live
        await receive(source, 30)


@pytest.mark.parametrize("uri", ["demo:scene=moon", "demo:fps=0", "demo:zoom=2", "demo:///clip.mp4"])
def test_refuses_a_virtual_camera_with_bad_settings(uri):
    with pytest.raises(SourceError, match="virtual camera"):
        open_source(uri)
