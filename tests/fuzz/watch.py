"""Counts, times and bounds what a target does."""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.targets import Broken, Target

MAX_SECONDS = 1.0  # of one execution, of this process's own time
MAX_MIB = 256  # that a run may take beyond what it had after its seeds


@dataclass(slots=True)
class Report:
    """What was seen until now."""

    executions: int = 0
    slowest_s: float = 0.0
    before_mib: float = 0.0  # largest size in memory when the seeds were done
    peak_mib: float = 0.0


class Watch:
    """A target under observation; call it with bytes. Raises whatever is a finding."""

    def __init__(self, target: Target, report: Path | None = None) -> None:
        self._target, self._path = target, report
        self.report = Report()
        for seed in target.seeds:  # compiled and allocated now what there is
            target.run(seed)
        self.report.before_mib = self.report.peak_mib = _peak_mib()
        self._written_s = 0.0

    def __call__(self, data: bytes) -> None:
        started_s = time.process_time()
        self._target.run(data)
        taken_s = time.process_time() - started_s
        report = self.report
        report.executions += 1
        report.slowest_s = max(report.slowest_s, taken_s)
        if taken_s > MAX_SECONDS:
            raise Broken(f"an execution took {taken_s:.2f} s; the limit is {MAX_SECONDS} s")
        if report.executions % 64 == 0:
            report.peak_mib = _peak_mib()
            if report.peak_mib > report.before_mib + MAX_MIB:
                raise Broken(f"{report.peak_mib - report.before_mib:.0f} MiB more than after the seeds")
            self._write(time.monotonic())

    def _write(self, now_s: float) -> None:
        # The fuzzer ends its process without a word, so the report is written as it grows.
        if self._path and now_s > self._written_s + 0.5:
            self._path.write_text(json.dumps(asdict(self.report)))
            self._written_s = now_s


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
