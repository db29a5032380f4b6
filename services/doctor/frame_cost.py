"""What a frame takes of this machine's time, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream.frame import Frame
from stream.sources.virtual_camera import VirtualCamera

MEASURE_S = 3.0
LEAST_FRAMES = 6  # that are measured, whatever they take
COMFORT = 1.2  # of the rate wanted, below which a busy moment costs frames
FRAME_SIZE = (360, 640)  # (H, W) of the pictures that stand for a camera's where there are none
PICTURES = 8


@dataclass(frozen=True, slots=True)
class FrameCost:
    """What a frame took, as a mean over those measured."""

    stages_ms: Mapping[str, float]  # in order
    frames: int
    packet_bytes: float  # of packets that are no keyframes

    @property
    def ms(self) -> float:
        """All stages together."""
        return sum(self.stages_ms.values())

    @property
    def fps(self) -> float:
        """Frames a second on one thread, one after another, as the services work."""
        return 1000 / self.ms

    @property
    def facts(self) -> dict[str, object]:
        """For JSON."""
        stages = {f"{stage}_ms": round(ms, 3) for stage, ms in self.stages_ms.items()}
        return {**stages, "frame_ms": round(self.ms, 3), "packet_bytes": round(self.packet_bytes)}

    def __str__(self) -> str:
        parts = " + ".join(f"{stage} {ms:.1f} ms" for stage, ms in self.stages_ms.items())
        return f"{parts} = {self.ms:.1f} ms a frame"


class FrameTimer:
    """Adds up what the stages of frames take."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._frames = self._bytes = self._lap_ns = 0
        self._took_ns: dict[str, int] = {}

    def begin(self) -> None:
        """A frame begins."""
        self._lap_ns = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """A stage of it is over."""
        now_ns = time.perf_counter_ns()
        self._took_ns[stage] = self._took_ns.get(stage, 0) + now_ns - self._lap_ns
        self._lap_ns = now_ns

    def end(self, packet_bytes: int) -> None:
        """The frame is over, whose packet has so many bytes."""
        self._frames += 1
        self._bytes += packet_bytes

    @property
    def is_over(self) -> bool:
        """Whether enough was measured."""
        return self._frames >= LEAST_FRAMES and time.monotonic() - self._began_s >= MEASURE_S

    @property
    def cost(self) -> FrameCost:
        """Of the frames so far, of which there has to be one."""
        stages = {stage: took / self._frames / 1e6 for stage, took in self._took_ns.items()}
        return FrameCost(stages, self._frames, self._bytes / self._frames)


def example_frames() -> Sequence[Frame]:
    """Frames of the virtual camera, one after another, where there are none of a real one. For a thread."""
    camera = VirtualCamera.parse(f"demo:size={FRAME_SIZE[1]}x{FRAME_SIZE[0]}")
    return [Frame(camera.render(number), time.monotonic_ns()) for number in range(PICTURES)]
