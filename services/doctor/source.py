"""The camera's source: it opens, how many frames a second really come, and what is wrong with them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from services.camera.settings import CameraSettings
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.printable import printable
from stream.frame import Frame
from stream.redact import redact_url
from stream.sources.base import (
    CaptureOptions,
    DecodeErrors,
    FramesRepeated,
    FramesSkipped,
    FrameUnreadable,
    PictureSizeChanged,
    Source,
    SourceEvent,
    SourceFrozen,
    SourceLost,
    SourceMoving,
)
from stream.sources.opening import open_source

KEPT_FRAMES, KEPT_BYTES = 60, 128 * 2**20  # the newest, for what needs real pictures that follow each other
ATTEMPTS = 2  # to open a live source: the first may meet what is just being let go of
SETTLE_S = 1.0  # of a live source, whose server may send its first pictures at once
GAP_S = 0.5  # without a picture that are worth telling
GAP_PERIODS = 5
CLEAR_LOSS = 0.9  # of the rate wanted, below which a source counts as too slow


class SourceWatch:
    """What has come of a source so far."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.frames: deque[Frame] = deque()  # the newest, in order
        self.delivered = self.skipped = self.repeated = self.damaged = self.unreadable = self.resized = 0
        self.frozen = False
        self.losses: list[str] = []
        self.lost = asyncio.Event()
        self.longest_gap_s = 0.0
        self._first_ns = self._last_ns = self._counted = 0

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the newest picture, in pixels; None before the first."""
        return (self.frames[-1].height, self.frames[-1].width) if self.frames else None

    @property
    def fps(self) -> float | None:
        """Pictures a second that were captured, by their own times; None where two were too few to tell."""
        took_ns = self._last_ns - self._first_ns
        return self._counted * 1e9 / took_ns if took_ns > 0 else None

    @property
    def watched_s(self) -> float:
        """For which the rate was measured."""
        return (self._last_ns - self._first_ns) / 1e9

    def take(self, frame: Frame) -> None:
        """A picture has come."""
        self.frames.append(frame)
        if len(self.frames) > max(1, min(KEPT_FRAMES, KEPT_BYTES // frame.image.nbytes)):
            self.frames.popleft()
        self.delivered += 1
        if not self._first_ns:
            self._first_ns = frame.captured_ns
            self.skipped = 0  # those before it
        else:
            self.longest_gap_s = max(self.longest_gap_s, (frame.captured_ns - self._last_ns) / 1e9)
            self._counted += 1
        self._last_ns = frame.captured_ns

    def settle(self) -> None:
        """Measure the rate from the newest picture on."""
        self._first_ns, self._counted, self.longest_gap_s = self._last_ns, 0, 0.0

    def note(self, event: SourceEvent) -> None:
        """Something has happened besides frames."""
        match event:
            case FramesSkipped(count):
                self.skipped += count
                self._counted += count
            case FramesRepeated(count):
                self.repeated += count
            case DecodeErrors(count):
                self.damaged += count
            case FrameUnreadable():
                self.unreadable += 1
            case PictureSizeChanged():
                self.resized += 1
            case SourceFrozen() | SourceMoving():
                self.frozen = isinstance(event, SourceFrozen)
            case SourceLost(reason):
                self.losses.append(reason)
                if len(self.losses) >= ATTEMPTS and not self.frames:
                    self.lost.set()


async def watch_source(settings: CameraSettings, seconds: float) -> SourceWatch:
    """What comes of the camera's source within so many seconds, after the first picture.

    Raises SourceError where it can never open.
    """
    watch: SourceWatch | None = None

    def on_event(event: SourceEvent) -> None:
        if watch is not None:
            watch.note(event)

    options = CaptureOptions(
        open_timeout_s=settings.open_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        rtsp_transport=settings.rtsp_transport,
        realtime=settings.realtime,
        loop=settings.loop,
    )
    async with open_source(settings.source, options, on_event) as source:
        watch = SourceWatch(source.live)
        reading = asyncio.ensure_future(_read(source, watch, seconds))
        lost = asyncio.ensure_future(watch.lost.wait())
        try:
            await asyncio.wait([reading, lost], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, lost):
                task.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await task
    return watch


async def _read(source: Source, watch: SourceWatch, seconds: float) -> None:
    """Take pictures for so many seconds after the first, or to the end."""
    try:
        watch.take(await anext(source))
    except StopAsyncIteration:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            settled_s = time.monotonic() + (SETTLE_S if watch.live else 0)
            async for frame in source:
                watch.take(frame)
                if time.monotonic() < settled_s:
                    watch.settle()


def shown_source(source: str) -> str:
    """The source as it may be shown."""
    return redact_url(printable(source))


def judge_source(name: str, watch: SourceWatch, wanted_fps: float | None) -> Finding:
    """What is to be said of a source, shown by this name, of which so many frames a second are wanted."""
    if watch.size is None:
        why = watch.losses[-1] if watch.losses else "not a single picture came"
        return wrong(f"{name} does not open: {why}", _how_to_open(name))
    (height, width), fps = watch.size, watch.fps
    how = (
        f"{fps:.1f} frames/s {'' if watch.live else 'when read as fast as it goes '}" if fps else "one frame "
    )
    measured = f"{name}: {width}x{height}, {how}over {watch.watched_s:.1f} s"
    facts = {
        "width": width,
        "height": height,
        "fps": round(fps, 3) if fps else None,
        "live": watch.live,
        "frames": watch.delivered,
        "skipped": watch.skipped,
        "repeated": watch.repeated,
        "damaged": watch.damaged,
        "unreadable": watch.unreadable,
        "losses": len(watch.losses),
        "frozen": watch.frozen,
        "longest_gap_s": round(watch.longest_gap_s, 3),
    }
    faults = _faults(watch, wanted_fps)
    if not faults:
        return fine(measured, **facts)
    what, advice = zip(*faults, strict=True)
    return doubtful(f"{measured}; {', '.join(what)}", "; ".join(dict.fromkeys(advice)), **facts)


def _how_to_open(source: str) -> str:
    if source.isdecimal() or source.startswith("/dev/"):
        return "stop what uses it, as a camera that runs; ls -l /dev/video* shows what is there, and who may use it"
    if "://" in source:
        return "look at its address, user and password, and whether this machine reaches it"
    return "look at the file with another player"


def _faults(watch: SourceWatch, wanted_fps: float | None) -> list[tuple[str, str]]:
    """What is wrong with the pictures, each with what to do."""
    faults, fps = [], watch.fps
    if wanted_fps and fps and fps < CLEAR_LOSS * wanted_fps:
        faults.append(
            (
                f"{wanted_fps:g} frames/s are wanted (--fps)",
                "set the camera's own frame rate, or light the scene: many cameras expose longer in the dark",
            )
        )
    if watch.damaged:
        advice = "look at the network between (--rtsp-transport tcp), or have the file written anew"
        faults.append((f"damaged {watch.damaged} times", advice))
    if watch.losses:
        faults.append(
            (f"lost {len(watch.losses)} times: {watch.losses[-1]}", "look at the cable or the network")
        )
    if watch.frozen:
        faults.append(("the picture stands still", "look at the camera itself: its picture does not change"))
    if watch.unreadable:
        faults.append((f"{watch.unreadable} pictures cannot be read", "mend them, or leave them out"))
    if watch.live and fps and watch.longest_gap_s > max(GAP_S, GAP_PERIODS / fps):
        advice = "look at the network or the load of this machine"
        faults.append((f"once nothing came for {watch.longest_gap_s:.1f} s", advice))
    return faults
