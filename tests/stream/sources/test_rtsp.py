"""Sources against a real RTSP server: GStreamer's, run by the system's Python."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from stream.sources.base import (
    CaptureOptions,
    SourceConnected,
    SourceFrozen,
    SourceLost,
    SourceMoving,
    SourceRetry,
)
from stream.sources.opening import open_source
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.rtsp import RtspServer, require_gstreamer
from tests.stream.sources.watching import Events, assert_nothing_left, drained, number_of, receive

IMPATIENT = CaptureOptions(open_timeout_s=4.0, read_timeout_s=1.5)


@pytest.fixture(scope="module", autouse=True)
def gstreamer():
    require_gstreamer()


@pytest.fixture
async def server():
    server = RtspServer()
    yield server
    await server.kill()
    assert_nothing_left()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_frames_arrive_in_order(server, transport):
    await server.start()
    events = Events()
    options = CaptureOptions(rtsp_transport=transport)
    async with open_source(server.url(), options, events) as source:
        before_ns = time.monotonic_ns()
        frames = await receive(source, 50)
    order = [number_of(frame.image) for frame in frames]
    assert order == sorted(set(order))
    # Nothing is skipped unseen; what UDP itself loses nobody can count.
    if transport == "tcp":
        assert order[-1] + 1 <= len(order) + events.skipped
    times_ns = [before_ns, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert times_ns == sorted(times_ns)
    assert events.of(SourceConnected) == [SourceConnected(320, 240)]
    assert events.of(SourceLost) == []


async def test_a_killed_server_is_awaited(server):
    await server.start()
    events = Events()
    async with open_source(server.url(), IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        await server.kill()
        await events.until(SourceLost, 2)
        refused = await events.until(SourceLost, 3)
        assert "Connection refused" in refused.reason
        await server.start("--size", "640x480")
        assert await events.until(SourceConnected, 2) == SourceConnected(640, 480)
        retries = len(events.of(SourceRetry))
        assert events.of(SourceRetry)[1].attempt == 2
        # A frame has arrived since, so the next failure is a first one again.
        await server.kill()
        await events.until(SourceRetry, retries + 1)
        assert events.of(SourceRetry)[retries].attempt == 1


async def test_a_frozen_server_is_lost_within_the_timeout_and_found(server):
    await server.start()
    events = Events()
    async with open_source(server.url(), IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        server.send(signal.SIGSTOP)
        lost = await events.until(SourceLost)
        assert "no picture" in lost.reason or "for a picture" in lost.reason
        unanswered = await events.until(SourceLost, 2)
        assert "no answer" in unanswered.reason or "to open" in unanswered.reason
        server.send(signal.SIGCONT)
        await events.until(SourceConnected, 2)


async def test_a_picture_that_stands_still_is_told(server):
    await server.start()
    events = Events()
    async with open_source(server.url(), IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        server.send(signal.SIGUSR1)
        await events.until(SourceFrozen)
        server.send(signal.SIGUSR1)
        await events.until(SourceMoving)
    assert events.of(SourceLost) == []


async def test_closing_while_the_server_is_frozen(server):
    await server.start()
    events = Events()
    patient = CaptureOptions(open_timeout_s=2 * LIVENESS_S, read_timeout_s=2 * LIVENESS_S)
    async with open_source(server.url(), patient, events) as source, drained(source):
        await events.until(SourceConnected)
        server.send(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(LIVENESS_S):
            await source.aclose()
    assert_nothing_left()


async def test_the_right_password_opens(server):
    await server.start("--auth", "camera:p@ss/w:rd")
    events = Events()
    async with open_source(server.url("camera:p%40ss%2Fw%3Ard@"), CaptureOptions(), events) as source:
        await receive(source, 3)
        assert source.name == server.url("***@")
    assert events.of(SourceLost) == []


async def test_a_wrong_password_is_told_without_showing_it_and_tried_again(server):
    await server.start("--auth", "camera:right")
    events = Events()
    async with open_source(server.url("camera:wrong-secret@"), IMPATIENT, events) as source, drained(source):
        await events.until(SourceRetry, 2)
    assert all("401" in lost.reason for lost in events.of(SourceLost))
    assert "wrong-secret" not in source.name + str(events.seen)
    # Not at once, and ever more rarely: cameras lock accounts.
    assert events.of(SourceRetry)[0].delay_s >= 2
    assert events.of(SourceRetry)[1].delay_s >= 4


async def test_a_server_of_nothing_but_sound_is_told(server):
    await server.start("--sound")
    events = Events()
    async with open_source(server.url(), IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert lost.reason == "it has no video"
