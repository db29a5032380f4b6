from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.frame import Frame
from stream.sources import recorded as recorded_source
from stream.sources.base import CaptureOptions, FrameUnreadable, SourceConnected, SourceLost, SourceRetry
from stream.sources.capture import SLOTS, CaptureRequest, Release, _explain, _FreeSlots
from stream.sources.opening import open_source
from stream.sources.recorded import RecordedSource
from stream.sources.virtual_camera import VirtualCamera
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.watching import (
    Events,
    assert_nothing_left,
    capture_children,
    drained,
    is_running,
    number_of,
    numbered,
    open_descriptors,
    receive,
    shown_to_all,
    write_video,
)

IMPATIENT = CaptureOptions(open_timeout_s=5.0, read_timeout_s=1.0, backoff_min_s=0.05, backoff_max_s=0.2)


async def numbers(source) -> list[int]:
    async with asyncio.timeout(LIVENESS_S):
        return [number_of(frame.image) async for frame in source]


# --- Files and folders ---


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
async def test_a_video_delivers_every_frame_and_ends(tmp_path, suffix):
    events = Events()
    async with open_source(str(write_video(tmp_path / f"clip{suffix}", 40)), on_event=events) as source:
        assert not source.live
        before_ns = time.monotonic_ns()
        frames = [frame async for frame in source]
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert all(frame.image.shape == (240, 320, 3) and frame.image.dtype == np.uint8 for frame in frames)
    times_ns = [before_ns, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert times_ns == sorted(times_ns)
    assert events.seen == [SourceConnected(320, 240)]


async def test_a_slow_consumer_of_a_video_misses_nothing(tmp_path):
    received = []
    async with open_source(str(write_video(tmp_path / "clip.avi", 10))) as source:
        async for frame in source:
            received.append(number_of(frame.image))
            await asyncio.sleep(0.05)
    assert received == list(range(10))


async def test_a_cancelled_read_of_a_file_loses_no_frame(tmp_path):
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number, 1920, 1080))
    received = []
    async with open_source(str(tmp_path)) as source:
        for yields in range(1, 6):
            reading = asyncio.create_task(anext(source))
            for _ in range(yields):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():  # the read was faster
                received.append(number_of(reading.result().image))
        received += await numbers(source)
    assert received == list(range(10))


async def test_images_of_a_folder_come_in_the_order_of_their_names(tmp_path):
    for number, suffix in enumerate([".jpg", ".PNG", ".bmp", ".webp", ".jpeg"]):
        cv2.imwrite(str(tmp_path / f"{number}{suffix}"), numbered(number, width=320 + 16 * number))
    (tmp_path / "labels.txt").write_text("not an image")
    (tmp_path / "2").mkdir()
    async with open_source(str(tmp_path)) as source:
        frames = [frame async for frame in source]
    assert [number_of(frame.image) for frame in frames] == list(range(5))
    assert [frame.width for frame in frames] == [320, 336, 352, 368, 384]


async def test_a_single_image_is_a_source(tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), numbered(7))
    async with open_source(str(tmp_path / "image.png")) as source:
        assert await numbers(source) == [7]


async def test_unreadable_images_are_left_out_and_reported(tmp_path):
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    (tmp_path / "1.png").write_bytes(b"nonsense")
    (tmp_path / "3.png").write_bytes(b"")
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "9.png").symlink_to(tmp_path / "gone.png")
    events = Events()
    async with open_source(str(tmp_path), on_event=events) as source:
        assert await numbers(source) == [0, 2, 5]
    unreadable = events.of(FrameUnreadable)
    assert [Path(event.name).name for event in unreadable] == ["1.png", "3.png", "4.png", "9.png"]
    assert all(event.reason for event in unreadable)


@pytest.mark.parametrize(("height", "width"), [(4, 65536), (65536, 4)])
async def test_an_image_too_large_for_a_packet_is_left_out_and_reported(tmp_path, height, width):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((height, width, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "1.png"), numbered(1, 65535 // 16 * 16, 8))
    events = Events()
    async with open_source(str(tmp_path), on_event=events) as source:
        assert await numbers(source) == [1]
    (unreadable,) = events.of(FrameUnreadable)
    assert f"{width} x {height}" in unreadable.reason
    assert "65535" in unreadable.reason


@pytest.mark.parametrize("kind", ["video", "folder"])
async def test_loop_begins_again(tmp_path, kind):
    if kind == "video":
        uri = write_video(tmp_path / "clip.avi", 5)
    else:
        uri = tmp_path
        for number in range(5):
            cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    async with open_source(str(uri), CaptureOptions(loop=True)) as source:
        frames = await receive(source, 12)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


async def test_loop_over_nothing_readable_ends(tmp_path):
    (tmp_path / "0.png").write_bytes(b"nonsense")
    events = Events()
    async with open_source(str(tmp_path), CaptureOptions(loop=True), events) as source:
        assert await numbers(source) == []
    assert len(events.of(FrameUnreadable)) == 1


async def test_a_truncated_video_ends_and_says_so(tmp_path):
    path = write_video(tmp_path / "clip.avi", 40)
    os.truncate(path, path.stat().st_size // 2)
    events = Events()
    async with open_source(str(path), on_event=events) as source:
        received = [frame async for frame in source]
    # Of the last one, half may be missing.
    assert [number_of(frame.image) for frame in received[:-1]] == list(range(len(received) - 1))
    assert 0 < len(received) < 40
    (lost,) = events.of(SourceLost)
    assert f"ends after {len(received)} frames" in lost.reason
    assert "40" in lost.reason


async def test_damage_within_a_video_is_reported(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 100)
    data = bytearray(path.read_bytes())
    media = data.index(b"mdat")
    start, end = media + (data.index(b"moov") - media) // 2, data.index(b"moov") - 8
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    events = Events()
    async with asyncio.timeout(LIVENESS_S), open_source(str(path), on_event=events) as source:
        frames = [frame async for frame in source]
    assert 0 < len(frames) < 100
    assert len(events.of(SourceLost)) == 1


async def test_realtime_keeps_the_newest_frame(tmp_path):
    path = write_video(tmp_path / "clip.avi", 50, fps=50.0)
    events = Events()
    received = []
    async with open_source(str(path), CaptureOptions(realtime=True), events) as source:
        assert source.live
        async for frame in source:
            received.append((number_of(frame.image), frame.captured_ns))
            assert time.monotonic_ns() >= frame.captured_ns
            await asyncio.sleep(0.1)
    order = [number for number, _ in received]
    assert order == sorted(set(order))
    assert order[0] == 0
    assert events.skipped > 0
    assert len(order) + events.skipped == 50
    # Each frame bears the moment at which a camera would have captured it.
    start_ns = received[0][1]
    assert [round((captured_ns - start_ns) / 20e6) for _, captured_ns in received] == order


async def test_realtime_with_loop_keeps_its_pace_over_the_end(tmp_path):
    path = write_video(tmp_path / "clip.avi", 5, fps=50.0)
    events = Events()
    async with open_source(str(path), CaptureOptions(realtime=True, loop=True), events) as source:
        frames = await receive(source, 12)
    indices = [round((frame.captured_ns - frames[0].captured_ns) / 20e6) for frame in frames]
    assert indices == sorted(set(indices))
    assert [number_of(frame.image) for frame in frames] == [index % 5 for index in indices]


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("missing.mp4", None, "check the path"),
        ("notes.mp4", b"not a video", "not a video"),
        ("empty.avi", b"", "not a video"),
    ],
)
def test_refuses_files_that_cannot_be_read(tmp_path, name, content, advice):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=advice):
        open_source(str(tmp_path / name))


@pytest.mark.parametrize("uri", ["rtsp:/admin:hunter2@cam/x", "rtsp:admin:hunter2@cam/x", "a:hunter2@b" * 99])
def test_refuses_a_url_with_too_few_slashes_without_showing_the_password(uri):
    with pytest.raises(SourceError, match=r"\*\*\*@") as refused:
        open_source(uri)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "folder", b"not a video"])
def test_what_cannot_be_opened_is_named_without_a_password(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = Path("rtsp:/admin:hunter2@cam")
    if content is not None:
        (path if content == "folder" else path.parent).mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SourceError) as refused:
        open_source(str(path))
    assert "rtsp:/***@cam" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_refuses_an_empty_uri():
    with pytest.raises(SourceError, match="empty"):
        open_source("")


def test_refuses_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SourceError, match="contains no images"):
        open_source(str(tmp_path))


def test_refuses_unknown_schemes_without_showing_the_password():
    with pytest.raises(SourceError, match="unknown scheme 'ftp'") as refused:
        open_source("ftp://user:secret@host/clip.mp4")
    assert "secret" not in str(refused.value)


def test_refuses_white_space_in_a_url_without_showing_the_password():
    with pytest.raises(SourceError, match="%20") as refused:
        open_source("rtsp://user:my secret@host/stream")
    assert "secret" not in str(refused.value)


def test_refuses_realtime_where_nothing_has_a_rate(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), numbered(0))
    with pytest.raises(SourceError, match="no frame rate"):
        open_source(str(tmp_path), CaptureOptions(realtime=True))


@pytest.mark.parametrize(
    "setting",
    [
        {"open_timeout_s": 0},
        {"read_timeout_s": float("inf")},
        {"backoff_min_s": 2.0, "backoff_max_s": 1.0},
        {"backoff_jitter": 2.0},
        {"rtsp_transport": "carrier pigeon"},
    ],
)
def test_refuses_senseless_options(setting):
    with pytest.raises(ValueError):  # noqa: PT011 (each has its own words)
        CaptureOptions(**setting)


async def test_closing_ends_the_iteration_and_may_be_repeated(tmp_path):
    source = open_source(str(write_video(tmp_path / "clip.avi", 10)))
    await anext(source)
    await source.aclose()
    await source.aclose()
    assert [frame async for frame in source] == []


@pytest.mark.parametrize("kind", ["video", "folder"])
@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("yields", [0, 1, 2, 3])
async def test_closing_during_a_read_neither_begins_again_nor_reads_what_is_closed(
    tmp_path, monkeypatch, kind, frames, yields
):
    """Of one frame, the read finds the end; of five, the next."""
    for number in range(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    uri = write_video(tmp_path / "clip.avi", frames) if kind == "video" else tmp_path
    events = Events()
    source = open_source(str(uri), CaptureOptions(loop=True), events)
    await receive(source, 1)
    called = []
    for name in ("read", "rewind", "close"):
        method = getattr(source._recording, name)
        monkeypatch.setattr(
            source._recording, name, lambda name=name, method=method: (called.append(name), method())[1]
        )
    # The source's thread is busy, so that the read waits there until the source is closed.
    busy = threading.Event()
    source._thread.submit(busy.wait)
    reading = asyncio.create_task(drain(source))
    for _ in range(yields):
        await asyncio.sleep(0)
    closing = asyncio.create_task(source.aclose())
    for _ in range(3):
        await asyncio.sleep(0)
    busy.set()
    async with asyncio.timeout(LIVENESS_S):
        await asyncio.gather(reading, closing)
    assert called in (["close"], ["read", "close"])
    assert events.of(SourceLost) == []


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0", "webcam 0"),
        ("/dev/video1", "/dev/video1"),
        ("rtsp://user:p%40ss@host/stream", "rtsp://***@host/stream"),
        ("HTTPS://host/?password=secret", "HTTPS://host/?password=***"),
    ],
)
async def test_live_sources_bear_a_name_without_credentials(uri, name):
    async with open_source(uri) as source:
        assert (source.live, source.name) == (True, name)


# --- The virtual camera ---

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


class Eternal:
    """A recording whose second frame is due in more than ten days."""

    fps = 1e-6

    def __init__(self) -> None:
        self.closed = False

    def rewind(self) -> None:
        raise AssertionError("it has no end")

    def read(self) -> Frame:
        return Frame(numbered(0), 0)

    def skip(self, count: int) -> int:
        return count

    def close(self) -> None:
        self.closed = True


async def test_closing_realtime_does_not_wait_for_the_next_frame():
    recording = Eternal()
    source = RecordedSource("eternal", recording, CaptureOptions(realtime=True), None)
    await receive(source, 1)
    waiting = asyncio.create_task(drain(source))
    for _ in range(10):
        await asyncio.sleep(0)
    async with asyncio.timeout(LIVENESS_S):
        await source.aclose()
        await source.aclose()
        await waiting
    assert recording.closed
    assert [frame async for frame in source] == []


@pytest.mark.parametrize("uri", ["demo:scene=moon", "demo:fps=0", "demo:zoom=2", "demo:///clip.mp4"])
def test_refuses_a_virtual_camera_with_bad_settings(uri):
    with pytest.raises(SourceError, match="virtual camera"):
        open_source(uri)


async def test_a_file_named_demo_is_opened_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    cv2.imwrite(str(tmp_path / "demo" / "0.png"), numbered(5))
    async with open_source("./demo") as source:
        assert await numbers(source) == [5]


# --- Live capture, from an HTTP camera on the test's own event loop ---


class HttpCamera:
    """Sends numbered JPEG pictures to whoever connects, as many network cameras do."""

    def __init__(self) -> None:
        self.number = 0  # of the next picture
        self.size = (320, 240)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.requests: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.port}/stream.mjpg"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=next\r\n\r\n")
            while True:
                await self.flowing.wait()
                _, jpeg = cv2.imencode(".jpg", numbered(self.number, *self.size))
                self.number += 1
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
                writer.write(head.encode() + jpeg.tobytes() + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test ends
        finally:
            self._writers.discard(writer)
            writer.close()


@pytest.fixture
async def camera():
    camera = HttpCamera()
    await camera.start()
    yield camera
    await camera.stop()
    assert_nothing_left()


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


async def test_pictures_stay_readable_when_the_camera_changes_its_resolution(camera):
    """OpenCV may scale them to the first size; whatever it delivers must arrive whole."""
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        await receive(source, 5)
        for size in [(640, 480), (160, 120)]:
            camera.size = size
            changed_from = camera.number
            async with asyncio.timeout(LIVENESS_S):
                while number_of((await anext(source)).image) < changed_from + 5:
                    pass
    assert events.of(SourceLost) == []


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
        assert all(0.05 <= retry.delay_s <= 0.2 for retry in retries)
        await camera.start()
        await receive(source, 3)
    assert len(events.of(SourceConnected)) == 2
    assert not any("secret" in str(event) for event in events.seen)


async def test_a_frozen_camera_is_lost_and_found(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source, drained(source):
        await events.until(SourceConnected)
        camera.flowing.clear()
        lost = await events.until(SourceLost)
        assert "no picture" in lost.reason
        camera.flowing.set()
        await events.until(SourceConnected, 2)


async def test_closing_while_the_camera_hangs(camera):
    events = Events()
    patient = CaptureOptions(open_timeout_s=60.0, read_timeout_s=60.0)
    async with open_source(camera.url, patient, events) as source:
        await receive(source, 1)
        camera.flowing.clear()
        hanging = asyncio.create_task(drain(source))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            await source.aclose()
            await hanging  # the iteration ends
    assert_nothing_left()


async def drain(source) -> None:
    async for _ in source:
        pass


async def test_closing_before_anything_answers(camera):
    camera.flowing.clear()
    source = open_source(camera.url, CaptureOptions(open_timeout_s=60.0))
    waiting = asyncio.create_task(drain(source))
    async with asyncio.timeout(LIVENESS_S):
        while not camera.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
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
        async with asyncio.timeout(5):
            await source.aclose()
    assert not is_running(child)
    assert_nothing_left()


async def test_closing_realtime_while_a_frame_is_awaited(tmp_path):
    path = write_video(tmp_path / "clip.avi", 5, fps=1.0)
    async with open_source(str(path), CaptureOptions(realtime=True)) as source:
        await receive(source, 1)
        waiting = asyncio.create_task(drain(source))
        await asyncio.sleep(0.1)
    async with asyncio.timeout(LIVENESS_S):
        await waiting


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
    """The last resort: the child itself hangs, timeouts and all, as in a camera's driver."""
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


async def test_a_busy_event_loop_is_not_taken_for_a_lost_camera(camera):
    events = Events()
    async with open_source(camera.url, IMPATIENT, events) as source:
        await receive(source, 3)
        (child,) = capture_children()
        # The HTTP camera stands still too, but the child has at least one picture to say by then.
        time.sleep(0.3)  # noqa: ASYNC251
        await receive(source, 3)
        assert capture_children() == [child]
    assert events.of(SourceLost) == []


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


async def test_the_password_is_on_no_command_line(camera):
    async with open_source(camera.url, IMPATIENT) as source:
        await receive(source, 1)
        (child,) = capture_children()
        assert b"secret" not in shown_to_all(child)


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


# --- Live capture, with a camera made up of code, in a real capture process ---

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

    def retrieve(self, image):
        if not self.decodes():
            return False, None
        height, width = self.size()
        if image is None or image.shape != (height, width, 3):
            image = np.empty((height, width, 3), np.uint8)
        image[:] = self.number % 256
        return True, image

    def size(self):
        return 240, 320

    def release(self):
        pass

    def decodes(self):
        return True

    def take(self):
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
    fake_webcam("""
        def take(self):
            return self.number <= 150
    """)
    events = Events()
    delivered = []
    once = CaptureOptions(backoff_min_s=60.0, backoff_max_s=60.0)
    async with open_source("3", once, events) as source:

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
    fake_webcam("""
        def take(self):
            return self.number <= 150

        def decodes(self):
            return self.number % 10
    """)
    events = Events()
    order = []
    once = CaptureOptions(backoff_min_s=60.0, backoff_max_s=60.0)
    async with open_source("3", once, events) as source:

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
            return self.number < 5
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
        assert "decoded for 1." in lost.reason
        assert len(events.of(FrameUnreadable)) > SLOTS
        await events.until(SourceConnected, 2)


async def test_a_read_that_returns_late_is_a_stall(fake_webcam):
    fake_webcam("""
        def take(self):
            time.sleep(1.2 if self.number == 5 else 0)
            return True
    """)
    events = Events()
    async with open_source("3", IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert "no picture for 1." in lost.reason


async def test_a_read_that_never_returns_is_ended(fake_webcam):
    fake_webcam("""
        def take(self):
            time.sleep(3600 if self.number == 5 else 0)
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


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("rtsp://admin:x@hunter2/y@127.0.0.1:9/live", False),
        ("rtsp://admin:hunter2/y@127.0.0.1/live", False),
        ("rtsp://hunter2?y@127.0.0.1/live", False),
        ("rtsp://hunter2#y@127.0.0.1/live", False),
        ("rtsp://admin:x@hunter2@127.0.0.1/live", False),
        ("rtsp://admin:secret@hunter2/live", True),
        ("rtsp://hunter2/live?a=b", True),
    ],
)
def test_what_ffmpeg_takes_for_the_host_is_not_told_where_it_may_be_the_password(target, told):
    complaint = "[tcp @ 0x55] Failed to resolve hostname hunter2: Name or service not known\n"
    reason = _explain(CaptureRequest(target, 5.0, 5.0, "tcp"), 0.1, complaint)
    assert ("Failed to resolve hostname hunter2" in reason) == told
    assert ("hunter2" in reason) == told
    assert ("%2F" in reason) != told


async def test_a_password_that_ffmpeg_takes_for_the_host_is_not_shown():
    events = Events()
    uri = "rtsp://admin:x@127.0.0.2:9/hunter2@127.0.0.1:9/live"
    async with open_source(uri, IMPATIENT, events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert "%2F" in lost.reason
    assert "127.0.0.2" not in source.name + str(events.seen)


def test_a_slot_of_former_memory_comes_not_free_in_the_new():
    slots = _FreeSlots()
    assert slots.take() is None
    for _ in range(2):
        slots.renew()
        assert sorted(slots.take() for _ in range(SLOTS)) == list(range(SLOTS))
        assert slots.take() is None
    slots.give_back(Release(memory=1, slot=0))
    assert slots.take() is None
    slots.give_back(Release(memory=2, slot=3))
    assert slots.take() == 3


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
