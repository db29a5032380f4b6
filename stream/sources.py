"""Where frames come from: a webcam, a network camera, a video file or a folder of images.

    async with open_source("rtsp://user:password@camera/stream") as source:
        async for frame in source:
            ...

Live sources keep the newest frame and never end; files and folders keep every frame and end. Each frame
that is captured but not delivered is reported through an event, so that captured = delivered + skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

import cv2
import numpy as np

from stream.backoff import Backoff
from stream.capture import (
    CaptureEnded,
    CaptureProcess,
    CaptureRequest,
    Lost,
    Opened,
    Opening,
    Picture,
    Shared,
)
from stream.frame import Frame
from stream.mailbox import Mailbox, MailboxClosed
from stream.redact import redact_url

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

_START_TIMEOUT_S = 30.0  # for a new interpreter to import OpenCV on a busy machine
_GRACE_S = 1.0  # for the child to notice its own timeout and say so, before the parent kills it

T = TypeVar("T")


class SourceError(Exception):
    """The source cannot be opened and trying again would not help. The message says what to do."""


@dataclass(frozen=True, slots=True)
class SourceConnected:
    """Frames arrive, for the first time or again. Width and height of the first one, in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class SourceLost:
    """Frames no longer arrive. A live source tries again; a file that breaks off ends."""

    reason: str  # for people, without credentials


@dataclass(frozen=True, slots=True)
class SourceRetry:
    """A live source waits before it connects again."""

    delay_s: float
    attempt: int  # from 1, since the last frame


@dataclass(frozen=True, slots=True)
class FramesSkipped:
    """Frames were captured, but newer ones arrived before anyone asked for them."""

    count: int


@dataclass(frozen=True, slots=True)
class FrameUnreadable:
    """An image of a folder could not be read and was left out."""

    path: Path
    reason: str


SourceEvent: TypeAlias = SourceConnected | SourceLost | SourceRetry | FramesSkipped | FrameUnreadable


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How to capture. Raises ValueError where a value makes no sense."""

    open_timeout_s: float = 5.0
    read_timeout_s: float = 5.0  # must exceed the camera's keyframe interval, which the first frame waits for
    backoff_min_s: float = 0.5
    backoff_max_s: float = 30.0
    backoff_jitter: float = 1.0  # 0 none, 1 full; see Backoff
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    realtime: bool = False  # play a video file at its own rate, as if it were a live camera
    loop: bool = False  # start a file or folder again at its end, for ever

    def __post_init__(self) -> None:
        for name in ("open_timeout_s", "read_timeout_s"):
            timeout_s = getattr(self, name)
            if not 0 < timeout_s < math.inf:
                raise ValueError(f"{name} must be a positive number of seconds, got {timeout_s}")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise ValueError(f"rtsp_transport must be tcp or udp, got {self.rtsp_transport!r}")
        Backoff(self.backoff_min_s, self.backoff_max_s, self.backoff_jitter, Random())


def open_source(
    uri: str,
    options: CaptureOptions = CaptureOptions(),
    on_event: Callable[[SourceEvent], None] | None = None,
) -> Source:
    """The source that a URI names: `0` (a webcam), `rtsp://…`, a video file, a folder of images.

    A file is opened here and now, a camera at the first frame. `on_event` is called on the event loop, for
    whatever happens besides frames.

    Raises SourceError for what trying again cannot heal: an unknown scheme, a missing or unreadable file, a
    folder without images.
    """
    scheme, separator, _ = uri.partition("://")
    if uri.isdecimal() and uri.isascii():
        return _LiveSource(f"webcam {int(uri)}", f"/dev/video{int(uri)}", options, on_event)
    if uri.startswith("/dev/video"):
        return _LiveSource(uri, uri, options, on_event)
    if separator:
        if scheme.lower() not in LIVE_SCHEMES:
            raise SourceError(
                f"cannot capture from {redact_url(uri)}: unknown scheme {scheme!r}; "
                f"use one of {', '.join(sorted(LIVE_SCHEMES))}, a webcam's number, a file or a folder"
            )
        if any(map(str.isspace, uri)):
            raise SourceError(f"the {scheme} URL contains white space; write it as %20")
        return _LiveSource(redact_url(uri), scheme.lower() + uri[len(scheme) :], options, on_event)
    return _RecordedSource(uri, _open_recording(Path(uri), options), options, on_event)


class Source(ABC):
    """An asynchronous iterator of frames, for one consumer. Close it, or use it as a context manager."""

    name: str  # the URI without credentials
    live: bool  # the newest frame is kept, rather than every frame

    def __init__(self, name: str, live: bool, on_event: Callable[[SourceEvent], None] | None) -> None:
        self.name, self.live = name, live
        self._emit: Callable[[SourceEvent], None] = on_event or (lambda event: None)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splitcast-source")
        self._closed = False

    def __aiter__(self) -> Source:
        return self

    @abstractmethod
    async def __anext__(self) -> Frame:
        """The next frame. Its image belongs to the caller."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the camera or file, ending any iteration. May be called again."""

    async def __aenter__(self) -> Source:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run on the source's own thread: OpenCV and large copies never run on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


class _LiveSource(Source):
    """A camera, watched by a task that replaces its capture process whenever it fails."""

    def __init__(
        self, name: str, target: str, options: CaptureOptions, on_event: Callable[[SourceEvent], None] | None
    ) -> None:
        super().__init__(name, live=True, on_event=on_event)
        self._options = options
        self._request = CaptureRequest(
            target, options.open_timeout_s, options.read_timeout_s, options.rtsp_transport
        )
        self._backoff = Backoff(
            options.backoff_min_s, options.backoff_max_s, options.backoff_jitter, Random()
        )
        self._newest: Mailbox[Picture] = Mailbox()
        self._watch: asyncio.Task[None] | None = None

    async def __anext__(self) -> Frame:
        if self._closed:
            raise StopAsyncIteration
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_connected())
        try:
            picture = await self._newest.get()
        except MailboxClosed:
            if self._watch is not None:
                await self._watch  # which ended only by an error of ours: raise it here
            raise StopAsyncIteration from None
        try:
            return Frame(await self._run(picture.copy), picture.captured_ns)
        except BaseException:
            self._emit(FramesSkipped(1))
            raise
        finally:
            picture.release()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Forgotten as well as ended: its traceback would keep the last picture's memory alive.
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        if self._newest.take() is not None:
            self._emit(FramesSkipped(1))
        self._newest.close()
        # The thread works in order: once it has done this, the capture process has ended too.
        await self._run(self._thread.shutdown, False)

    async def _keep_connected(self) -> None:
        try:
            while True:
                reason = await self._capture()
                self._emit(SourceLost(redact_url(reason)))
                delay_s = self._backoff.next_delay_s()
                self._emit(SourceRetry(delay_s, self._backoff.attempt))
                await asyncio.sleep(delay_s)
        finally:
            self._newest.close()

    async def _capture(self) -> str:
        """Receive pictures from one capture process until it fails; return the reason."""
        try:
            process = CaptureProcess(self._request)
        except OSError as error:
            return f"the capture process cannot be started: {error.strerror}"
        try:
            return await self._receive(process)
        except CaptureEnded as ended:
            return str(ended)
        finally:
            # Shielded: a queued call that is cancelled would leave the child behind.
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(process.stop)))

    async def _receive(self, process: CaptureProcess) -> str:
        patience_s, waiting_for = _START_TIMEOUT_S, "the capture process to start"
        connected, count = False, 0
        while True:
            match await _next_message(process, patience_s):
                case Opening():
                    patience_s, waiting_for = self._options.open_timeout_s + _GRACE_S, "the camera to open"
                case Opened():
                    patience_s, waiting_for = self._options.read_timeout_s + _GRACE_S, "a picture"
                case Shared(width, height):
                    if not connected:
                        self._emit(SourceConnected(width, height))
                        connected = True
                case Picture() as picture:
                    self._backoff.reset()
                    displaced = self._newest.put(picture)
                    if displaced is not None:
                        displaced.release()
                    self._report_skipped(picture.count - count - 1 + (displaced is not None))
                    count = picture.count
                case Lost(reason, captured):
                    self._report_skipped(captured - count)
                    return reason
                case None:
                    process.kill()
                    return f"waited {patience_s:.1f} s for {waiting_for}"

    def _report_skipped(self, count: int) -> None:
        if count > 0:
            self._emit(FramesSkipped(count))


async def _next_message(
    process: CaptureProcess, timeout_s: float
) -> Opening | Opened | Shared | Picture | Lost | None:
    """The child's next message, or None if it stays silent for the whole timeout.

    Raises CaptureEnded when the child has ended.
    """
    if (message := process.receive()) is not None:
        return message
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(process.fileno(), readable.set)
    try:
        # Not wait_for, which before Python 3.12 may swallow a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await readable.wait()
    finally:
        loop.remove_reader(process.fileno())
    # Also after a timeout: if it was the event loop that stood still, the message is there by now.
    return process.receive()


class _RecordedSource(Source):
    """A file or folder, read on the source's own thread."""

    def __init__(
        self,
        name: str,
        recording: _Video | _Images,
        options: CaptureOptions,
        on_event: Callable[[SourceEvent], None] | None,
    ) -> None:
        super().__init__(name, live=options.realtime, on_event=on_event)
        self._recording = recording
        self._options = options
        self._connected = False
        self._frames = 0  # delivered or skipped so far
        self._pass_from = 0  # what `_frames` was when the recording last began
        self._started_ns = 0
        self._reading: asyncio.Future[Frame | SourceEvent | None] | None = None

    async def __anext__(self) -> Frame:
        while not self._closed:
            if self._options.realtime:
                await self._keep_pace()
                if self._closed:
                    break
            match await self._read():
                case Frame() as frame:
                    return self._deliver(frame)
                case None:
                    # A pass without a single frame would be followed by as empty ones, for ever.
                    if not self._options.loop or self._frames == self._pass_from:
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
        await self._run(self._recording.close)
        self._thread.shutdown(wait=False)

    async def _read(self) -> Frame | SourceEvent | None:
        # A cancelled call leaves its read to the next one: every frame of a file is kept.
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._run(self._recording.read))
        item = await asyncio.shield(self._reading)
        self._reading = None
        return item

    def _deliver(self, frame: Frame) -> Frame:
        if not self._connected:
            self._connected = True
            self._emit(SourceConnected(frame.width, frame.height))
        if self._options.realtime:
            frame = replace(frame, captured_ns=self._due_ns(self._frames))
        self._frames += 1
        return frame

    def _due_ns(self, index: int) -> int:
        """When a camera would have captured the frame of this index, counted over all passes."""
        return self._started_ns + round(index * 1e9 / self._recording.fps)

    async def _keep_pace(self) -> None:
        """Skip the frames that newer ones have replaced by now, and wait until the next one is due."""
        now_ns = time.monotonic_ns()
        self._started_ns = self._started_ns or now_ns
        newest = int((now_ns - self._started_ns) * self._recording.fps / 1e9)
        if self._reading is None and newest > self._frames:
            skipped = await self._run(self._recording.skip, newest - self._frames)
            self._frames += skipped
            if skipped:
                self._emit(FramesSkipped(skipped))
        await asyncio.sleep(max(0.0, (self._due_ns(self._frames) - now_ns) / 1e9))


def _open_recording(path: Path, options: CaptureOptions) -> _Video | _Images:
    try:
        if path.is_dir():
            images = sorted(child for child in path.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES)
            if not images:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise SourceError(f"the folder {path} contains no images; put some there ({suffixes})")
        elif not path.is_file():
            raise SourceError(
                f"there is no file or folder {path}; check the path, "
                "or give a webcam's number or a URL such as rtsp://…"
            )
        else:
            images = [path] if path.suffix.lower() in IMAGE_SUFFIXES else []
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    recording = _Images(images) if images else _Video(path)
    if options.realtime and not 0 < recording.fps <= 1000:
        recording.close()
        raise SourceError(f"{path} has no frame rate to play it at; leave out realtime")
    return recording


class _Video:
    """A video file. All methods belong to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # a relative name such as concat:x would mean something to FFmpeg
        self.rewind()
        if not self._capture.isOpened():
            raise SourceError(
                f"{path} is not a video that can be read; convert it, or check that it is whole"
            )
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))

    def rewind(self) -> None:
        """Begin again. Opens the file anew: seeking is not exact in every format."""
        # One thread: the machine's cores belong to the model.
        parameters = [cv2.CAP_PROP_N_THREADS, 1]
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, parameters)
        self._promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._frames = 0

    def read(self) -> Frame | SourceEvent | None:
        """The next frame, or what is wrong, or None at the end."""
        ok, image = self._capture.read()
        if ok:
            self._frames += 1
            return Frame(image, time.monotonic_ns())
        if self._frames < self._promised:
            promised, self._promised = self._promised, 0
            return SourceLost(
                f"{self._path.name} ends after {self._frames} frames, but promises {promised}: it may be damaged"
            )
        return None

    def skip(self, count: int) -> int:
        """Pass over frames; returns how many, fewer than `count` at the end."""
        before = self._frames
        while self._frames < before + count and self._capture.grab():
            self._frames += 1
        return self._frames - before

    def close(self) -> None:
        self._capture.release()


class _Images:
    """Image files in the given order. All methods belong to one thread at a time."""

    fps = 0.0

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.rewind()

    def rewind(self) -> None:
        self._next = iter(self._paths)

    def read(self) -> Frame | SourceEvent | None:
        """The next image, or why it is left out, or None at the end."""
        path = next(self._next, None)
        if path is None:
            return None
        try:
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error) as error:
            return FrameUnreadable(path, getattr(error, "strerror", None) or "it is not an image")
        if image is None:
            return FrameUnreadable(path, "it is not an image")
        return Frame(image, time.monotonic_ns())

    def skip(self, count: int) -> int:
        raise AssertionError("images have no frame rate, so none is ever late")

    def close(self) -> None:
        pass
