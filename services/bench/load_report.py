"""What a measurement under load is told as: a page of Markdown, and a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from services.bench.load_figures import BareCost, LoadFigures, streams_a_core
from services.bench.machine import Machine
from services.bench.markdown import table
from services.bench.recording import RecordedPackets
from services.bench.settings import BenchLoadSettings
from services.units import KB

_HEADERS = (
    *("streams", "held", "frames/s", "drops", "p50 ms", "p95 ms", "p99 ms"),
    *("CPU ms", "beside ms", "cores", "Jain", "loop ms", "MB each"),
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadReport:
    """Figures for each number of streams, and what they were measured with."""

    settings: BenchLoadSettings
    recorded: RecordedPackets
    machine: Machine
    bare: BareCost
    rows: tuple[LoadFigures, ...]

    @property
    def title(self) -> str:
        recorded = self.recorded
        height, width = recorded.canvas
        return f"{recorded.network} split at {recorded.split}, {height}x{width}, {self.settings.fps:g} fps a stream"

    def blocks(self) -> list[str]:
        """The table, and what its columns are."""
        settings, bare = self.settings, self.bare
        where = f"Detector at {settings.detector}, load from " if settings.detector else ""
        shared = (
            f"; {settings.detectors} detectors, figures of all together" if settings.detectors > 1 else ""
        )
        generator = max(row.generator_cores for row in self.rows)
        at_least = "At least " if self.rows[-1].held == self.rows[-1].streams else ""
        return [
            table(_HEADERS, [_cells(row) for row in self.rows]),
            f"{at_least}{self.streams_a_core:.1f} streams a core at {settings.fps:g} fps. A stream is held that lost "
            f"no more than {settings.tolerance:.0%} of its frames.",
            f"CPU ms: of the detector's process, a frame. A bare loop takes {bare.tail_ms:.1f} for the tail, "
            f"{bare.boxes_ms:.2f} for boxes and {bare.decode_ms:.1f} to decode; beside: what is on top of these. "
            "Cores: how many the detector kept busy. Jain: fairness by frames detected, 1 where all streams have as "
            "many. Loop: how late the detector's event loop was, p99. MB each: resident memory that a stream added.",
            f"{where}{self.machine}; engine {settings.engine}, tails {settings.tails}{shared}; "
            f"{settings.seconds:g} s each. The load generator took {generator:.2f} cores at most.",
        ]

    @property
    def streams_a_core(self) -> float:
        return streams_a_core(self.rows, self.settings.fps, self.machine.cores)

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        recorded, settings = self.recorded, self.settings
        return {
            "network": recorded.network,
            "weights": recorded.weights,
            "split": recorded.split,
            "canvas": recorded.canvas,
            "codec": str(recorded.codec),
            "kb_per_frame": round(sum(map(len, recorded.packets)) / len(recorded.packets) / KB, 3),
            "detectors": settings.detectors,
            "engine": settings.engine,
            "tails": settings.tails,
            "fps": settings.fps,
            "seconds": settings.seconds,
            "tolerance": settings.tolerance,
            "machine": asdict(self.machine),
            "bare": asdict(self.bare),
            "streams_a_core": round(self.streams_a_core, 2),
            "rows": [asdict(row) for row in self.rows],
        }


def _cells(row: LoadFigures) -> tuple[str, ...]:
    dropped = sum(row.dropped.values()) / row.captured if row.captured else 0.0
    return (
        f"{row.streams}",
        f"{row.held}",
        f"{row.detected_fps:.1f}",
        f"{dropped:.1%}",
        *(f"{row.latency_ms[p]:.0f}" if row.latency_ms else "" for p in ("p50", "p95", "p99")),
        f"{row.cpu_ms:.1f}",
        f"{row.beside_ms:.1f}",
        f"{row.busy_cores:.2f}",
        f"{row.fairness:.3f}",
        f"{row.loop_delay_ms['p99']:.1f}",
        f"{row.stream_mb:.1f}",
    )
