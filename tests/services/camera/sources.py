"""A source of the test's own, which does what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from services.camera import service
from stream.frame import Frame
from stream.sources.base import Source, SourceConnected, SourceEvent

END = None


class ScriptedSource(Source):
    """Delivers the frames and emits the events that are put into `script`, in order; END ends it."""

    def __init__(self, live: bool, on_event: Callable[[SourceEvent], None]) -> None:
        super().__init__("scripted", live, on_event)
        self.script: asyncio.Queue[Frame | SourceEvent | None] = asyncio.Queue()
        self._connected = False

    async def __anext__(self) -> Frame:
        while True:
            match await self.script.get():
                case Frame() as frame:
                    if not self._connected:
                        self._connected = True
                        self._emit(SourceConnected(frame.width, frame.height))
                    return frame
                case None:
                    raise StopAsyncIteration
                case event:
                    self._emit(event)

    async def aclose(self) -> None:
        self.script.put_nowait(END)

    def play(self, *items: Frame | SourceEvent | None) -> None:
        for item in items:
            self.script.put_nowait(item)


def scripted(monkeypatch, live: bool) -> list[ScriptedSource]:
    """Cameras get scripted sources from now on, which are appended to the list."""
    made: list[ScriptedSource] = []

    def open_scripted(_uri, _options, on_event):
        made.append(ScriptedSource(live, on_event))
        return made[-1]

    monkeypatch.setattr(service, "open_source", open_scripted)
    return made


def picture(height: int = 64, width: int = 96, age_s: float = 0.0) -> Frame:
    """A frame of noise, captured `age_s` ago."""
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Frame(image, time.monotonic_ns() - int(age_s * 1e9))
