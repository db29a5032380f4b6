"""Recordings: a video file or a folder of images, of which every frame is kept unless it is played in real time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stream.errors import SourceError, UnreadableImage
from stream.frame import Frame
from stream.sources.base import (
    CaptureOptions,
    DecodeErrors,
    FramesSkipped,
    FrameUnreadable,
    Source,
    SourceConnected,
    SourceEvent,
    SourceLost,
)
from stream.sources.files import (
    IMAGE_SUFFIXES,
    LeftOut,
    is_image,
    list_images,
    open_video,
    read_image,
    shown,
)

if TYPE_CHECKING:
    from stream.sources.video import VideoReader


class Recording(Protocol):
    """Frames in order. All methods belong to one thread at a time."""

    @property
    def fps(self) -> float:
        """Frames a second; 0 or less where there is no rate."""

    def rewind(self) -> None:
        """Begin again."""

    def read(self) -> Frame | SourceEvent | None:
        """The next frame, or what is wrong, or None at the end."""

    def skip(self, count: int) -> int:
        """Pass over frames; returns how many, fewer than `count` at the end."""

    def close(self) -> None:
        """Let go of the file."""


class RecordedSource(Source):
    """A recording, read on the source's own thread."""

    def __init__(
        self,
        name: str,
        recording: Recording,
        options: CaptureOptions,
        on_event: Callable[[SourceEvent], None] | None,
    ) -> None:
        super().__init__(shown(name), live=options.realtime, on_event=on_event)
        self._recording = recording
        self._options = options
        self._connected = False
        self._frames = 0  # delivered or skipped so far
        self._pass_from = 0  # what `_frames` was when the recording last began
        self._started_ns = 0
        self._reading: asyncio.Future[tuple[int, Frame | SourceEvent | None]] | None = None
        self._closing = asyncio.Event()

    async def __anext__(self) -> Frame:
        while not self._closed:
            late = await self._keep_pace() if self._options.realtime else 0
            if self._closed:
                break
            match await self._read(late):
                case Frame() as frame:
                    return self._deliver(frame)
                case None:
                    # A pass without a single frame would be followed by as empty ones, for ever.
                    if self._closed or not self._options.loop or self._frames == self._pass_from:
                        break
                    self._pass_from = self._frames
                    await self._run(self._recording.rewind)
                case event:
                    self._emit(event)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        await self._run(self._recording.close)
        self._thread.shutdown(wait=False)

    async def _read(self, late: int) -> Frame | SourceEvent | None:
        """The next frame after those that are too late, or what is wrong, or None at the end."""
        # A cancelled call leaves its read to the next one: every frame of a file is kept or counted.
        if self._reading is None:
            # Handed to the thread here and now, so that no `aclose` comes between: none reads what is closed.
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, self._skip_and_read, late)
        skipped, item = await asyncio.shield(self._reading)
        self._reading = None
        if skipped:
            self._frames += skipped
            self._emit(FramesSkipped(skipped))
        return item

    def _skip_and_read(self, late: int) -> tuple[int, Frame | SourceEvent | None]:
        skipped = self._recording.skip(late) if late else 0
        return skipped, self._recording.read()

    def _deliver(self, frame: Frame) -> Frame:
        if not self._connected:
            self._connected = True
            self._emit(SourceConnected(frame.width, frame.height))
        self._announce(frame)
        if self._options.realtime:
            frame = replace(frame, captured_ns=self._due_ns(self._frames))
        self._frames += 1
        return frame

    def _due_ns(self, index: int) -> int:
        """When a camera would have captured the frame of this index, counted over all passes."""
        return self._started_ns + round(index * 1e9 / self._recording.fps)

    async def _keep_pace(self) -> int:
        """Wait until the next frame is due; returns how many are late: newer ones have replaced them by now."""
        now_ns = time.monotonic_ns()
        self._started_ns = self._started_ns or now_ns
        newest = int((now_ns - self._started_ns) * self._recording.fps / 1e9)
        # Not wait_for, which before Python 3.12 may swallow a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((self._due_ns(self._frames) - now_ns) / 1e9):
                await self._closing.wait()
        return max(0, newest - self._frames)


def open_recording(path: Path, options: CaptureOptions) -> Video | Images:
    """The recording at a path. Raises SourceError where there is none that can be read."""
    name = shown(path)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror}); check its permissions") from error
    if not (is_folder or is_file):
        raise SourceError(
            f"there is no file or folder {name}; check the path, "
            "or give a webcam's number or a URL such as rtsp://…"
        )
    if is_file and is_image(path):
        read_image(path)  # a picture that nobody can read is no source
    images = list_images(path) if is_folder else [path] if is_image(path) else []
    if is_folder and not any(isinstance(image, Path) for image in images):
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"the folder {name} contains no images; put some there ({suffixes})")
    recording = Images(images) if images else Video(path)
    if options.realtime and not 0 < recording.fps <= 1000:
        recording.close()
        raise SourceError(f"{name} has no frame rate to play it at; leave out realtime")
    return recording


class Video:
    """A video file. All methods belong to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin(open_video(path))
        self.fps = self._reader.fps

    def rewind(self) -> None:
        """Begin again. Opens the file anew: seeking is not exact in every format."""
        self._reader.close()
        with contextlib.suppress(SourceError):  # it is gone since, and the next read finds the end
            self._begin(open_video(self._path))

    def _begin(self, reader: VideoReader) -> None:
        self._reader = reader
        self._frames = self._damaged = 0
        self._has_broken_off = False

    def read(self) -> Frame | SourceEvent | None:
        """The next frame, or what is wrong, or None at the end."""
        picture = self._reader.peek()
        if damaged := self._reader.damaged - self._damaged:
            self._damaged += damaged
            return DecodeErrors(damaged)
        if picture is not None:
            self._reader.read()
            self._frames += 1
            return Frame(np.ascontiguousarray(self._reader.image(picture)), time.monotonic_ns())
        if self._reader.broken_off and not self._has_broken_off:
            self._has_broken_off = True
            reason = f"{shown(self._path)} breaks off after {self._frames} frames ({self._reader.broken_off})"
            return SourceLost(f"{reason}: it may be damaged")
        return None

    def skip(self, count: int) -> int:
        """Pass over frames; returns how many, fewer than `count` at the end."""
        before = self._frames
        while self._frames < before + count and self._reader.read() is not None:
            self._frames += 1
        return self._frames - before

    def close(self) -> None:
        self._reader.close()


class Images:
    """Image files in the given order, and what is left out. All methods belong to one thread at a time."""

    fps = 0.0

    def __init__(self, found: Sequence[Path | LeftOut]) -> None:
        self._found = found
        self.rewind()

    def rewind(self) -> None:
        self._next = iter(self._found)

    def read(self) -> Frame | SourceEvent | None:
        """The next image, or why it is left out, or None at the end."""
        path = next(self._next, None)
        if path is None:
            return None
        if isinstance(path, LeftOut):
            return FrameUnreadable(shown(path.path), path.reason)
        try:
            image = read_image(path)
        except UnreadableImage as error:
            return FrameUnreadable(error.path, error.reason)
        return Frame(image, time.monotonic_ns())

    def skip(self, count: int) -> int:
        raise AssertionError("images have no frame rate, so none is ever late")

    def close(self) -> None:
        pass
