"""What a measurement under load says: from frames and samples to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.bench.detector_sample import DetectorSample
from services.bench.simulated_camera import DETECTED, IN_FLIGHT, SimulatedFrame

MB = 1e6


@dataclass(frozen=True, slots=True)
class BareCost:
    """CPU in ms of one frame where nothing else is done: a loop over the recorded packets in one thread."""

    decode_ms: float
    tail_ms: float  # the network's last layers
    boxes_ms: float  # their output to boxes, NMS among it

    @property
    def total_ms(self) -> float:
        return self.decode_ms + self.tail_ms + self.boxes_ms


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """So many streams at one rate."""

    streams: int
    held: int  # streams that lost no more than the tolerance of their frames
    captured: int
    detected_fps: float  # of all streams together
    dropped: dict[str, int]  # frames, by reason
    latency_ms: dict[str, float]  # p50, p95 and p99, capture to answer; empty where nothing was detected
    cpu_ms: float  # of the detector's process, a frame
    beside_ms: float  # of it, beside what BareCost has
    busy_cores: float  # of the detector's process
    generator_cores: (
        float  # of this process, which takes them from the detector where both run on one machine
    )
    fairness: float  # Jain's index of frames detected by stream: 1 where all have as many, 1/streams where one has all
    loop_delay_ms: dict[str, float]  # of the detector's event loop, p50 and p99
    stream_mb: float  # resident memory that a stream added
    resident_mb: float


def figures(
    cameras: Sequence[Sequence[SimulatedFrame]],
    samples: tuple[DetectorSample, DetectorSample, DetectorSample],
    bare: BareCost,
    *,
    seconds: float,
    generator_s: float,
    tolerance: float,
) -> LoadFigures:
    """Figures of the frames that each camera captured while it was measured, for `seconds`.

    `samples` were taken before there was a stream, then at the beginning and at the end; `generator_s` is the CPU
    of the load generator between the last two.
    """
    idle, start, end = samples
    outcomes = [Counter(frame.outcome for frame in frames) for frames in cameras]
    total = sum(outcomes, Counter[str]())
    latencies_ms = [f.latency_ns / 1e6 for frames in cameras for f in frames if f.outcome == DETECTED]
    frames = end.frames - start.frames
    cpu_s = end.cpu_s - start.cpu_s
    cpu_ms = cpu_s * 1e3 / frames if frames else 0.0
    return LoadFigures(
        streams=len(cameras),
        held=sum(_is_held(outcome, tolerance) for outcome in outcomes),
        captured=total.total(),
        detected_fps=round(frames / seconds, 2),
        dropped={
            reason: count for reason, count in sorted(total.items()) if reason not in (DETECTED, IN_FLIGHT)
        },
        latency_ms={
            f"p{rank}": round(float(np.percentile(latencies_ms, rank)), 2)
            for rank in (50, 95, 99)
            if latencies_ms
        },
        cpu_ms=round(cpu_ms, 3),
        beside_ms=round(cpu_ms - bare.total_ms, 3),
        busy_cores=round(cpu_s / seconds, 3),
        generator_cores=round(generator_s / seconds, 3),
        fairness=round(jains_index([outcome[DETECTED] for outcome in outcomes]), 4),
        loop_delay_ms={
            f"p{rank}": round(1e3 * end.delay_quantile_s(start, rank / 100), 2) for rank in (50, 99)
        },
        stream_mb=round((end.resident_bytes - idle.resident_bytes) / MB / len(cameras), 2),
        resident_mb=round(end.resident_bytes / MB, 1),
    )


def _is_held(outcome: Counter[str], tolerance: float) -> bool:
    lost = outcome.total() - outcome[DETECTED] - outcome[IN_FLIGHT]
    return outcome[DETECTED] > 0 and lost <= tolerance * outcome.total()


def jains_index(shares: Sequence[float]) -> float:
    """Jain's index of fairness: (sum x)^2 / (n sum x^2), 1/n to 1; 1 where nobody has anything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def streams_a_core(rows: Sequence[LoadFigures], fps: float, cores: int) -> float:
    """Streams at `fps` that a core serves: the most frames a second that were detected, shared out."""
    return max(row.detected_fps for row in rows) / fps / cores
