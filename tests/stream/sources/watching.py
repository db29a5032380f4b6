"""What the tests of sources watch: numbered pictures, events, and what a source leaves in the system."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from stream.sources.base import CaptureOptions, FramesSkipped, Source, SourceEvent
from tests.services.waiting import LIVENESS_S

BITS = 16
CLIPS = Path(__file__).with_name("clips")
IMPATIENT = CaptureOptions(open_timeout_s=5.0, read_timeout_s=1.0)


def numbered(number: int, width: int = 320, height: int = 240) -> NDArray[np.uint8]:
    """A picture that carries its number as 16 vertical bars, most significant bit first."""
    bars = [255 if number >> bit & 1 else 0 for bit in reversed(range(BITS))]
    row = np.repeat(np.array(bars, np.uint8), width // BITS)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, row.size, 3)))


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a picture carries, also after lossy coding."""
    height, width, _ = image.shape
    bars = image[height // 4 : -(height // 4)].mean(axis=(0, 2)).reshape(BITS, width // BITS).mean(axis=1)
    assert np.all((bars < 64) | (bars > 192)), "the bars cannot be read"
    return int("".join("1" if bar > 128 else "0" for bar in bars), 2)


class Events:
    """Collects a source's events."""

    def __init__(self) -> None:
        self.seen: list[SourceEvent] = []
        self._arrived = asyncio.Event()

    def __call__(self, event: SourceEvent) -> None:
        self.seen.append(event)
        self._arrived.set()

    def of(self, kind: type[SourceEvent]) -> list:
        return [event for event in self.seen if isinstance(event, kind)]

    @property
    def skipped(self) -> int:
        return sum(event.count for event in self.of(FramesSkipped))

    async def until(self, kind: type[SourceEvent], count: int = 1) -> SourceEvent:
        """The count-th event of a kind."""
        async with asyncio.timeout(LIVENESS_S):
            while len(self.of(kind)) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.of(kind)[count - 1]


async def receive(source: Source, count: int) -> list:
    """The next frames."""
    frames = []
    async with asyncio.timeout(LIVENESS_S):
        while len(frames) < count:
            frames.append(await anext(source))
    return frames


async def numbers(source) -> list[int]:
    """What all pictures that are still to come carry."""
    async with asyncio.timeout(LIVENESS_S):
        return [number_of(frame.image) async for frame in source]


async def drain(source) -> None:
    """Take every frame until the source ends."""
    async for _ in source:
        pass


@contextlib.asynccontextmanager
async def drained(source: Source):
    """Take frames as fast as they come, in the background."""
    draining = asyncio.create_task(drain(source))
    try:
        yield
    finally:
        draining.cancel()
        await asyncio.wait([draining])


def capture_children(parent: int | None = None) -> list[int]:
    """Process ids of the capture processes of this (or another) process."""
    parent = parent or os.getpid()
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = status.read_text().rsplit(")", 1)[1].split()[:2]
            command = (status.parent / "cmdline").read_bytes()
            if int(ppid) == parent and state != "Z" and b"stream.sources.capture_child" in command:
                children.append(int(status.parent.name))
    return children


def is_running(pid: int) -> bool:
    """Whether the process exists, other than as a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def shown_to_all(pid: int) -> bytes:
    """What the system shows of a process: its command line and environment."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def open_descriptors() -> int:
    """How many files, sockets and pipes this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def shared_memories() -> list[str]:
    """Mappings and descriptors of capture memory in this process."""
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:splitcast" in line]
    descriptors = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            descriptors.append(str(link.readlink()))
    return maps + [target for target in descriptors if "memfd:splitcast" in target]


def assert_nothing_left() -> None:
    """No capture process, no shared memory."""
    assert capture_children() == []
    assert not shared_memories(), shared_memories()


def write_video(path: Path, frames: int, fps: float = 25.0) -> Path:
    """A video of numbered pictures; the suffix chooses the container."""
    codec = "mp4v" if path.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (320, 240))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(numbered(number))
    writer.release()
    return path


def write_resized_video(path: Path, parts: list[tuple[int, int, int]]) -> Path:
    """An MPEG transport stream whose pictures change their size: width, height and number of frames of each part."""
    data = b""
    for width, height, frames in parts:
        with av.open(str(path), "w", format="mpegts") as clip:
            stream = clip.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(frames):
                picture = av.VideoFrame.from_ndarray(numbered(number, width, height), format="bgr24")
                clip.mux(stream.encode(picture))
            clip.mux(stream.encode())
        data += path.read_bytes()
    path.write_bytes(data)
    return path
