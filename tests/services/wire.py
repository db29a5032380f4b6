"""What a calm stream costs on the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2

from services.camera.service import Camera
from stream.sources.files import Image
from tests.services.waiting import until

FIRST_FRAMES = 10  # with the handshake, the keyframe, and what it left out


@dataclass(frozen=True, slots=True)
class WireCost:
    """Bytes above TCP, both ways, and what went on meanwhile."""

    frames: int  # detected
    packets: int
    seconds: float
    sent: int
    received: int
    packet_bytes: int

    @property
    def sent_per_frame(self) -> float:
        return self.sent / self.packets

    @property
    def received_per_frame(self) -> float:
        return self.received / self.frames


async def measure_wire(camera: Camera, frames: int) -> WireCost:
    """Cost of so many frames of a camera that runs in this event loop, after the first ones."""
    first = await _after(camera, FIRST_FRAMES)
    last = await _after(camera, FIRST_FRAMES + frames)
    return WireCost(*(b - a for a, b in zip(first, last, strict=True)))


async def _after(camera: Camera, frames: int) -> tuple[int, int, float, int, int, int]:
    statistics = camera.statistics
    await until(lambda: statistics.frame_counts.detected >= frames)
    return (
        statistics.frame_counts.detected,
        statistics.totals.packets,
        time.monotonic(),
        statistics.wire.sent,
        statistics.wire.received,
        statistics.totals.encoded_bytes,
    )


def write_still(path: Path, picture: Image, fps: float, frames: int) -> Path:
    """A video of one picture, again and again, the same to the last bit."""
    height, width, _ = picture.shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    for _ in range(frames):
        writer.write(picture)
    writer.release()
    return path
