"""How long the steps of a measurement take, in one run and on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Stopwatch:
    """Durations by name. A machine that others use is slow now and then, so their medians count."""

    def __init__(self) -> None:
        self._durations_ns: dict[str, list[int]] = {}

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """What `work` returns, its duration booked under `name`."""
        start_ns = time.perf_counter_ns()
        result = work()
        self._durations_ns.setdefault(name, []).append(time.perf_counter_ns() - start_ns)
        return result

    def medians_ms(self) -> dict[str, float]:
        return {
            name: round(statistics.median(durations) / 1e6, 4)
            for name, durations in self._durations_ns.items()
        }
