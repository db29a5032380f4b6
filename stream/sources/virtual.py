"""The virtual camera as a source: a recording without an end, played at its own rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from stream.frame import Frame
from stream.sources.base import CaptureOptions, SourceEvent
from stream.sources.recorded import RecordedSource
from stream.sources.virtual_camera import VirtualCamera


def is_virtual(uri: str) -> bool:
    """Whether the URI names a virtual camera. A file of that name is `./demo`."""
    return uri == "demo" or uri.startswith("demo:")


def open_virtual(
    uri: str, options: CaptureOptions, on_event: Callable[[SourceEvent], None] | None
) -> RecordedSource:
    """The virtual camera that `demo:setting=value,...` names, live. Raises BadVirtualCamera."""
    camera = VirtualCamera.parse(uri)
    options = replace(options, realtime=True, loop=False)
    return RecordedSource(str(camera), VirtualRecording(camera), options, on_event)


class VirtualRecording:
    """A virtual camera's frames in order, without end. All methods belong to one thread at a time."""

    def __init__(self, camera: VirtualCamera) -> None:
        self._camera = camera
        self._next = 0
        self.fps = camera.fps

    def rewind(self) -> None:
        self._next = 0

    def read(self) -> Frame:
        """The next frame."""
        image = self._camera.render(self._next)
        self._next += 1
        return Frame(image, time.monotonic_ns())

    def skip(self, count: int) -> int:
        """Pass over frames, which costs nothing; returns how many."""
        self._next += count
        return count

    def close(self) -> None:
        pass
