"""What every source of frames is: an asynchronous iterator, with events for whatever happens besides frames."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

from stream.frame import Frame

T = TypeVar("T")


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
    """An image of a folder, or a camera's picture, could not be decoded and was left out."""

    name: str  # the image's path, or the name of the live source
    reason: str


@dataclass(frozen=True, slots=True)
class PictureSizeChanged:
    """The next frame has another size than the one before, and so have those that follow. In pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FramesRepeated:
    """Frames whose picture is that of the frame before, bit by bit. They are delivered all the same."""

    count: int


@dataclass(frozen=True, slots=True)
class SourceFrozen:
    """So many pictures in a row look the same, for seconds: something stands still. They are delivered all the same."""

    pictures: int


@dataclass(frozen=True, slots=True)
class SourceMoving:
    """Pictures differ again after SourceFrozen."""


@dataclass(frozen=True, slots=True)
class DecodeErrors:
    """Coded data was damaged: pictures that come of it may be wrong, or missing."""

    count: int


SourceEvent: TypeAlias = (
    SourceConnected
    | SourceLost
    | SourceRetry
    | FramesSkipped
    | FrameUnreadable
    | PictureSizeChanged
    | FramesRepeated
    | SourceFrozen
    | SourceMoving
    | DecodeErrors
)


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How to capture. Raises ValueError where a value makes no sense."""

    open_timeout_s: float = 5.0
    read_timeout_s: float = 3.0  # or ten periods of the measured frame rate; longer until the first picture
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


class Source(ABC):
    """An asynchronous iterator of frames, for one consumer. Close it, or use it as a context manager."""

    name: str  # the URI without credentials
    live: bool  # the newest frame is kept, rather than every frame

    def __init__(self, name: str, live: bool, on_event: Callable[[SourceEvent], None] | None) -> None:
        self.name, self.live = name, live
        self._emit: Callable[[SourceEvent], None] = on_event or (lambda event: None)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splitcast-source")
        self._closed = False
        self._size: tuple[int, int] | None = None  # of the last frame, width and height

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

    def _announce(self, frame: Frame) -> None:
        """Tell of a frame that is about to be delivered and has another size than the one before."""
        size = frame.width, frame.height
        if self._size is not None and self._size != size:
            self._emit(PictureSizeChanged(*size))
        self._size = size

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run on the source's own thread: OpenCV and large copies never run on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
