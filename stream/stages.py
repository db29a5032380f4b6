"""Where the time of one frame goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`."""
        now_ns = time.monotonic_ns()
        self.durations_ns[stage] = self.durations_ns.get(stage, 0) + now_ns - self._last_ns
        self._last_ns = now_ns

    @contextmanager
    def stage(self, stage: str, waiting: str) -> Iterator[None]:
        """Book the body under `stage`, and the time before it under `waiting`."""
        self.lap(waiting)
        yield
        self.lap(stage)


def network_ns(latency_ns: int, camera_ns: Mapping[str, int], detector_ns: Mapping[str, int]) -> int:
    """What the link took of a round trip, both ways: the part neither end accounts for.

    Never negative: the ends' clocks run at the same rate but tick at different moments.
    """
    return max(0, latency_ns - sum(camera_ns.values()) - sum(detector_ns.values()))
