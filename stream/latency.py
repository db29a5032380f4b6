"""Where the time of one frame goes."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# In the order a frame passes them. `grab` lasts from the capture until the head takes the frame, `network` is
# what remains of the round trip once both ends' own stages are taken off, so the stages add up to the latency.
CAMERA_STAGES = ("grab", "head", "encode", "send")
DETECTOR_STAGES = ("queue", "decode", "tail", "nms", "publish")
STAGES = (*CAMERA_STAGES, "network", *DETECTOR_STAGES)


class StageClock:
    """Splits the time since `started_ns` into named stages; every nanosecond belongs to exactly one."""

    def __init__(self, started_ns: int) -> None:
        self._last_ns = started_ns
        self.durations_ns: dict[str, int] = {}

    def lap(self, stage: str, now_ns: int) -> None:
        """Count the time since the last lap under `stage`; `now_ns` is on the clock of `started_ns`."""
        self.durations_ns[stage] = self.durations_ns.get(stage, 0) + now_ns - self._last_ns
        self._last_ns = now_ns

    def lap_elsewhere(self, durations_ns: Mapping[str, int], waiting: str, now_ns: int) -> None:
        """Count what the stages took in another process since the last lap, and the rest of that time as `waiting`.

        Clocks of two machines do not run alike: what was spent there is at most what has passed here.
        """
        for stage, duration_ns in durations_ns.items():
            self.lap(stage, min(self._last_ns + duration_ns, now_ns))
        self.lap(waiting, now_ns)


def network_ns(latency_ns: int, camera_ns: Mapping[str, int], detector_ns: Mapping[str, int]) -> int:
    """What the link took of a round trip, both ways: the part neither end accounts for.

    Never negative: the ends' clocks run at the same rate but tick at different moments.
    """
    return max(0, latency_ns - sum(camera_ns.values()) - sum(detector_ns.values()))


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Durations of several frames in milliseconds."""

    mean_ms: float
    median_ms: float
    p95_ms: float


class StageDurations:
    """Every duration of each stage. A machine that others use is slow now and then, so that medians count."""

    def __init__(self) -> None:
        self._durations_ns: dict[str, list[int]] = {}

    def add(self, durations_ns: Mapping[str, int]) -> None:
        """Add what one frame's stages took."""
        for stage, duration_ns in durations_ns.items():
            self._durations_ns.setdefault(stage, []).append(duration_ns)

    def spread_over(self, frames: int) -> None:
        """Give each of so many frames its equal share of every stage, where work cannot be told apart by frames."""
        for durations_ns in self._durations_ns.values():
            durations_ns[:] = [sum(durations_ns) // frames] * frames

    def medians_ms(self) -> dict[str, float]:
        """Median of each stage, in the order in which the stages first occurred."""
        return {stage: statistics.median(times) / 1e6 for stage, times in self._durations_ns.items()}


class StageStatistics:
    """Durations of the newest frames, by stage and in total."""

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._frames: deque[Mapping[str, int]] = deque()
        self._sums_ns: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def add(self, durations_ns: Mapping[str, int]) -> None:
        """Count one frame's stages."""
        self._frames.append(dict(durations_ns))
        self._sums_ns.update(durations_ns)
        self._counts.update(durations_ns.keys())
        if len(self._frames) > self._capacity:
            oldest = self._frames.popleft()
            self._sums_ns.subtract(oldest)
            self._counts.subtract(oldest.keys())

    def __len__(self) -> int:
        return len(self._frames)

    def means_ms(self) -> dict[str, float]:
        """Mean of every stage that occurred, in the order a frame passes them; cheap at any time."""
        return {s: self._sums_ns[s] / self._counts[s] / 1e6 for s in STAGES if self._counts[s]}

    def latency(self) -> LatencySummary | None:
        """Summary of the stages' sum; None before the first frame."""
        return _summary([sum(frame.values()) for frame in self._frames])

    def by_stage(self) -> dict[str, LatencySummary]:
        """Summary of every stage that occurred, in the order a frame passes them."""
        summaries = {s: _summary([frame[s] for frame in self._frames if s in frame]) for s in STAGES}
        return {stage: summary for stage, summary in summaries.items() if summary}


def _summary(durations_ns: list[int]) -> LatencySummary | None:
    if not durations_ns:
        return None
    milliseconds = np.array(durations_ns) / 1e6
    median, p95 = np.percentile(milliseconds, [50, 95])
    return LatencySummary(float(milliseconds.mean()), float(median), float(p95))
