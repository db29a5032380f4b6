from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.frame import Frame
from stream.sources.base import (
    CaptureOptions,
    DecodeErrors,
    FrameUnreadable,
    PictureSizeChanged,
    SourceConnected,
    SourceLost,
)
from stream.sources.opening import open_source
from stream.sources.recorded import RecordedSource
from tests.services.waiting import LIVENESS_S
from tests.stream.sources.watching import (
    CLIPS,
    Events,
    drain,
    number_of,
    numbered,
    numbers,
    receive,
    write_resized_video,
    write_video,
)


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


async def test_a_name_that_is_not_utf8_is_shown_in_utf8(tmp_path):
    path = write_video(tmp_path / "clip.avi", 2).rename(tmp_path / os.fsdecode(b"caf\xe9.avi"))
    async with open_source(str(path)) as source:
        assert source.name.endswith(r"/caf\udce9.avi")
        assert await numbers(source) == [0, 1]


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
    events = Events()
    async with open_source(str(tmp_path), on_event=events) as source:
        frames = [frame async for frame in source]
    assert [number_of(frame.image) for frame in frames] == list(range(5))
    assert [frame.width for frame in frames] == [320, 336, 352, 368, 384]
    assert not events.of(FrameUnreadable)
    assert [event.width for event in events.of(PictureSizeChanged)] == [336, 352, 368, 384]


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
    (tmp_path / "._0.png").write_bytes(b"of macOS")
    (tmp_path / "a.mp4").touch()
    events = Events()
    async with open_source(str(tmp_path), on_event=events) as source:
        assert await numbers(source) == [0, 2, 5]
    unreadable = events.of(FrameUnreadable)
    assert [Path(event.name).name for event in unreadable] == [
        *("._0.png", "1.png", "3.png", "4.png", "9.png", "a.mp4")
    ]
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
    assert f"breaks off after {len(received)} frames" in lost.reason
    assert events.of(DecodeErrors) == [DecodeErrors(1)]


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
    assert sum(event.count for event in events.of(DecodeErrors)) > 10


@pytest.mark.parametrize("name", ["vfr.mkv", "trim.mp4", "av1.mkv"])
async def test_a_whole_video_raises_no_alarm(name, capfd):
    events = Events()
    async with open_source(str(CLIPS / name), on_event=events) as source:
        await drain(source)
    assert events.seen == [SourceConnected(320, 240)]
    assert capfd.readouterr().err == ""


async def test_pictures_of_another_size_come_as_they_are_and_are_announced(tmp_path):
    path = write_resized_video(tmp_path / "clip.ts", [(240, 320, 5), (640, 480, 5), (240, 320, 5)])
    sizes = []
    async with open_source(str(path), on_event=sizes.append) as source:
        async for frame in source:
            size = frame.width, frame.height
            if sizes[-1] != size:
                sizes.append(size)
    portrait, landscape = (240, 320), (640, 480)
    assert sizes == [
        SourceConnected(*portrait),
        portrait,
        PictureSizeChanged(*landscape),
        landscape,
        PictureSizeChanged(*portrait),
        portrait,
    ]


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
        ("empty.png", b"", "no image that can be read"),
        ("notes.jpg", b"no image", "no image that can be read"),
    ],
)
def test_refuses_files_that_cannot_be_read(tmp_path, name, content, advice):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=advice):
        open_source(str(tmp_path / name))


def test_refuses_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SourceError, match="contains no images"):
        open_source(str(tmp_path))


def test_refuses_realtime_where_nothing_has_a_rate(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), numbered(0))
    with pytest.raises(SourceError, match="no frame rate"):
        open_source(str(tmp_path), CaptureOptions(realtime=True))


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


async def test_closing_realtime_while_a_frame_is_awaited(tmp_path):
    path = write_video(tmp_path / "clip.avi", 5, fps=1.0)
    async with open_source(str(path), CaptureOptions(realtime=True)) as source:
        await receive(source, 1)
        waiting = asyncio.create_task(drain(source))
        await asyncio.sleep(0.1)
    async with asyncio.timeout(LIVENESS_S):
        await waiting
