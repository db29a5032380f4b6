from __future__ import annotations

import asyncio
import sys
import textwrap
import time

import numpy as np
import pytest

from stream.sources.base import (
    FramesRepeated,
    FrameUnreadable,
    SourceConnected,
    SourceFrozen,
    SourceLost,
    SourceMoving,
    SourceRetry,
)
from stream.sources.capture_messages import SLOTS
from stream.sources.opening import open_source
from stream.sources.stillness import FROZEN_PICTURES
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.watching import (
    IMPATIENT,
    Events,
    assert_nothing_left,
    capture_children,
    drained,
    is_running,
    receive,
    shown_to_all,
)


async def test_the_password_is_on_no_command_line(camera):
    async with open_source(camera.url, IMPATIENT) as source:
        await receive(source, 1)
        (child,) = capture_children()
        assert b"secret" not in shown_to_all(child)


async def test_the_token_is_not_where_strangers_bytes_are_decoded(camera, monkeypatch):
    monkeypatch.setenv("SPLITCAST_TOKEN", "hunter2")
    async with open_source(camera.url, IMPATIENT) as source:
        await receive(source, 1)
        (child,) = capture_children()
        seen = shown_to_all(child)
    assert b"PYTHONPATH=" in seen
    assert b"hunter2" not in seen


FAKE_CV2 = """
import os, time
import numpy as np

CAP_V4L2, CAP_FFMPEG, CAP_PROP_BUFFERSIZE = 200, 1900, 38
CAP_PROP_OPEN_TIMEOUT_MSEC, CAP_PROP_READ_TIMEOUT_MSEC, CAP_PROP_N_THREADS = 53, 54, 70


class VideoCapture:
    def __init__(self, target, backend, parameters):
        assert (target, backend, parameters) == ("/dev/video3", CAP_V4L2, [CAP_PROP_BUFFERSIZE, 1])
        self.number = 0

    def isOpened(self):
        return True

    def grab(self):
        time.sleep(0.01)
        self.number += 1
        return self.take()

    def retrieve(self):
        if not self.decodes():
            return False, None
        height, width = self.size()
        return True, np.full((height, width, 3), self.number % 256, np.uint8)

    def size(self):
        return 240, 320

    def release(self):
        pass

    def decodes(self):
        return True

    def take(self):
        return True

"""

PARENT = """
import asyncio, sys
from stream.sources.base import CaptureOptions
from stream.sources.opening import open_source

async def main():
    source = open_source(sys.argv[1], CaptureOptions(open_timeout_s=60.0, read_timeout_s=60.0))
    async for _ in source:
        print("frame", flush=True)

asyncio.run(main())
"""


# The rest of a count is not to be mixed with that of the next capture.
OPENS_ONCE = """
def isOpened(self):
    open(os.path.join(os.path.dirname(__file__), "opened"), "x").close()
    return True
"""


@pytest.fixture
def fake_webcam(tmp_path, monkeypatch):
    """Makes webcam 3 behave as the given methods say, in the capture process only."""

    def install(methods: str) -> None:
        body = textwrap.indent(textwrap.dedent(methods), "    ")
        (tmp_path / "cv2.py").write_text(FAKE_CV2 + body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    yield install
    assert_nothing_left()


async def test_a_webcam_delivers_frames(fake_webcam):
    fake_webcam("")
    async with open_source("3", IMPATIENT) as source:
        frames = await receive(source, 20)
    order = [int(frame.image[0, 0, 0]) for frame in frames]
    assert order == sorted(set(order))
    assert all(np.all(frame.image == frame.image[0, 0, 0]) for frame in frames)


async def test_a_picture_that_stands_still_is_told_and_counted(fake_webcam):
    fake_webcam("""
        def retrieve(self):
            return True, np.full((240, 320, 3), min(self.number, 20) if self.number < 700 else 0, np.uint8)
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        frozen = await events.until(SourceFrozen)
        await events.until(SourceMoving)
    assert frozen.pictures > FROZEN_PICTURES
    assert sum(event.count for event in events.of(FramesRepeated)) >= frozen.pictures - 1
    assert events.of(SourceLost) == []


async def test_memory_follows_the_size_of_the_picture(fake_webcam):
    fake_webcam("""
        def size(self):
            return [(240, 320), (480, 640), (90, 160), (1080, 1920)][self.number // 20 % 4]
    """)
    events = Events()
    sizes = set()
    async with asyncio.timeout(LIVENESS_S), open_source("3", IMPATIENT, events) as source:
        async for frame in source:
            assert np.all(frame.image == frame.image[0, 0, 0])
            sizes.add(frame.image.shape)
            if len(sizes) == 4 and frame.image.shape == (240, 320, 3):
                break
    assert sizes == {(240, 320, 3), (480, 640, 3), (90, 160, 3), (1080, 1920, 3)}
    assert events.of(SourceLost) == []
    assert len(events.of(SourceConnected)) == 1


async def test_every_captured_picture_is_delivered_or_counted(fake_webcam):
    fake_webcam(
        OPENS_ONCE
        + """
def take(self):
    return self.number <= 150
"""
    )
    events = Events()
    delivered = []
    async with open_source("3", IMPATIENT, events) as source:

        async def consume() -> None:
            async for frame in source:
                delivered.append(frame)
                if not events.of(SourceLost):
                    # Stands still, as a busy loop would: the child runs out of slots and must count by itself.
                    time.sleep(0.2)  # noqa: ASYNC251
                    await asyncio.sleep(0.05)

        consuming = asyncio.create_task(consume())
        await events.until(SourceRetry)
        consuming.cancel()
        await asyncio.wait([consuming])
    assert len(delivered) + events.skipped == 150


async def test_pictures_that_cannot_be_decoded_are_reported_and_keep_no_slot(fake_webcam):
    fake_webcam(
        OPENS_ONCE
        + """
def take(self):
    return self.number <= 150

def decodes(self):
    return self.number % 10
"""
    )
    events = Events()
    order = []
    async with open_source("3", IMPATIENT, events) as source:

        async def consume() -> None:
            async for frame in source:
                order.append(int(frame.image[0, 0, 0]))  # noqa: PERF401 (kept when cancelled)

        consuming = asyncio.create_task(consume())
        await events.until(SourceRetry)
        consuming.cancel()
        await asyncio.wait([consuming])
    unreadable = events.of(FrameUnreadable)
    assert SLOTS < len(unreadable) <= 15
    assert {event.name for event in unreadable} == {source.name}
    assert len(order) + len(unreadable) + events.skipped == 150
    assert order[-1] > 140


async def test_a_camera_of_which_nothing_can_be_decoded_is_lost(fake_webcam):
    fake_webcam("""
        def decodes(self):
            return self.number < 20
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
        assert "for a picture that can be decoded" in lost.reason
        assert len(events.of(FrameUnreadable)) > SLOTS
        await events.until(SourceConnected, 2)


async def test_a_read_that_returns_late_is_a_stall(fake_webcam):
    fake_webcam("""
        def take(self):
            time.sleep(1.2 if self.number == 20 else 0)
            return True
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert "for a picture" in lost.reason


async def test_a_read_that_never_returns_is_ended(fake_webcam):
    fake_webcam("""
        def take(self):
            time.sleep(3600 if self.number == 20 else 0)
            return True
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
        assert "for a picture" in lost.reason
        await events.until(SourceConnected, 2)


async def test_a_crash_of_the_library_is_survived(fake_webcam):
    fake_webcam("""
        def take(self):
            if self.number == 5:
                os.abort()
            return True
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
        assert "ended unexpectedly" in lost.reason
        await events.until(SourceConnected, 2)


async def test_an_error_of_the_library_is_told_without_credentials(fake_webcam):
    fake_webcam("""
        def take(self):
            raise OSError("cannot read rtsp://user:secret@host/")
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert "cannot read rtsp://***@host/" in lost.reason


async def test_a_password_that_ffmpeg_takes_for_the_host_is_not_shown():
    events = Events()
    uri = "rtsp://admin:x@127.0.0.2:9/hunter2@127.0.0.1:9/live"
    async with open_source(uri, IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert "%2F" in lost.reason
    assert "127.0.0.2" not in source.name + str(events.seen)


@pytest.mark.parametrize("hanging", [False, True])
async def test_the_capture_process_dies_with_its_parent(camera, hanging):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, camera.url, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIVENESS_S):
        assert parent.stdout is not None
        assert await parent.stdout.readline() == b"frame\n"
        (child,) = capture_children(parent.pid)
        if hanging:
            camera.flowing.clear()
            await asyncio.sleep(0.2)
        parent.kill()
        await parent.communicate()
        while is_running(child):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
