"""The machine that figures were measured on, for their record."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_ISAS = ("avx512_bf16", "avx512f", "avx2", "avx", "sse4_2", "asimd")  # the widest first


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor as the kernel describes it."""

    processor: str
    isa: str  # the widest vector instructions that it has
    cores: int  # that this process may use
    load: float  # of the last minute, when asked: beside 0 others use the machine

    def __str__(self) -> str:
        return f"{self.processor} ({self.isa}), {self.cores} cores, load {self.load:.1f} before"


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine that this process runs on, as it is now."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    processor = facts.get("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor, next((isa for isa in _ISAS if isa in flags), "unknown"), cores, os.getloadavg()[0]
    )
