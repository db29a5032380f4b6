"""`splitcast bench sizing`: what so many cameras need, by arithmetic from what `splitcast bench load` measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError

from services.bench.markdown import table, write_page
from services.bench.settings import BenchSizingSettings
from services.camera.metrics import CameraMetrics
from services.detector.metrics import DetectorMetrics
from services.detector.stream_series import STREAM_SERIES
from services.detector.stream_status import STREAM_STATES
from services.errors import NotMeasurable
from services.metrics import Metrics
from services.regular_file import open_regular
from services.units import KB
from stream.session.messages import REJECT_REASONS

# Bytes a frame on the wire beside the packet itself, above TCP, as tests/benchmarks/wire.py counts them.
UP_BYTES, DOWN_BYTES = 15, 17
LOOP_SHARE = 0.5  # of a core that a detector's event loop may take, beyond which answers come late
BALANCED_SOCKETS = 2  # that a camera takes at a balancer
BALANCER_SOCKETS = 40_000  # of a balancer, of which half go to detectors
LEAST_BESIDE_MS = 1.0  # a frame; what is measured less than that is the bare loop's own variation
BRIEF_SERIES = 30  # of a camera, without --metrics full
SCRAPE_S = 15.0
SERIES_KB = 2.3  # of a Prometheus' memory, as tests/benchmarks/prometheus_series.py measures, queries apart
GB = 1e9
MAX_RECORD_BYTES = 2**20

_HEADERS = (
    *("cameras", "frames/s", "up Mbit/s", "down Mbit/s", "cores", "detectors", "memory GB"),
    *("balancers", "series", "samples/s", "Prometheus GB"),
)


class _Machine(BaseModel):
    processor: str
    isa: str
    cores: int

    def __str__(self) -> str:
        return f"{self.processor} ({self.isa}), {self.cores} cores"


class _Row(BaseModel):
    streams: Annotated[int, Field(gt=0)]
    held: Annotated[int, Field(ge=0)]
    cpu_ms: Annotated[float, Field(gt=0)]
    beside_ms: float
    stream_mb: float
    resident_mb: Annotated[float, Field(gt=0)]


class LoadRecord(BaseModel):
    """What `splitcast bench load --out` wrote, as far as it matters here."""

    network: str
    codec: str
    kb_per_frame: Annotated[float, Field(gt=0)]
    machine: _Machine
    fps: Annotated[float, Field(gt=0)]
    detectors: Annotated[int, Field(ge=1)] = 1
    rows: list[_Row]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises NotMeasurable where the file is no such record, or no number of streams was held."""
        try:
            with open_regular(path) as file:
                record = cls.model_validate_json(file.read(MAX_RECORD_BYTES))
        except (OSError, ValidationError) as error:
            raise NotMeasurable(f"{path} is no record of `splitcast bench load --out`: {error}") from None
        if not record.held:
            raise NotMeasurable(f"{path}: no number of streams was held whole; measure fewer")
        return record

    @property
    def held(self) -> list[_Row]:
        """Numbers of streams of which none lost frames."""
        return [row for row in self.rows if row.held == row.streams]

    @property
    def busiest(self) -> _Row:
        """The most streams that were held."""
        return max(self.held, key=lambda row: row.streams)

    @property
    def base_mb(self) -> float:
        """What a detector holds without a stream."""
        row = self.busiest
        return max(0.0, row.resident_mb - row.streams * row.stream_mb) / self.detectors


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many cameras need."""

    cameras: int
    frames_s: float
    up_mbit_s: float  # from all cameras
    down_mbit_s: float
    cores: float  # of detectors, all of them busy
    detectors: int
    memory_gb: float  # of all detectors
    balancers: int  # 0 where one detector is enough
    series: int  # at Prometheus


def needs(record: LoadRecord, cameras: int, settings: BenchSizingSettings) -> Needs:
    """By arithmetic, as docs/sizing.md explains."""
    row, fps = record.busiest, settings.fps or record.fps
    frames_s = cameras * fps
    cpu_s = row.cpu_ms / 1e3
    by_cores = settings.cores * settings.busy / (fps * cpu_s)
    by_loop = LOOP_SHARE / (fps * max(row.beside_ms, LEAST_BESIDE_MS) / 1e3)
    detectors = math.ceil(cameras / max(1, int(min(by_cores, by_loop))))
    series = (
        detectors * _series(DetectorMetrics())
        + min(cameras, detectors * STREAM_SERIES) * (len(STREAM_STATES) + len(REJECT_REASONS) + 3)
        + cameras * (_series(CameraMetrics()) if settings.metrics == "full" else BRIEF_SERIES)
    )
    return Needs(
        cameras,
        frames_s,
        up_mbit_s=frames_s * (record.kb_per_frame * KB + UP_BYTES) * 8 / 1e6,
        down_mbit_s=frames_s * DOWN_BYTES * 8 / 1e6,
        cores=frames_s * cpu_s,
        detectors=detectors,
        memory_gb=(detectors * record.base_mb + cameras * max(0.0, row.stream_mb)) / 1e3,
        balancers=0 if detectors == 1 else math.ceil(cameras * BALANCED_SOCKETS / BALANCER_SOCKETS),
        series=series,
    )


def run_bench_sizing(settings: BenchSizingSettings) -> None:
    """Print the table, and write it where it is asked for. Raises NotMeasurable."""
    record = LoadRecord.read(settings.load_record)
    title, blocks = page(record, settings)
    print(title, *blocks, sep="\n\n")
    if settings.table:
        write_page(settings.table, [f"# {title}", *blocks])


def page(record: LoadRecord, settings: BenchSizingSettings) -> tuple[str, list[str]]:
    """Title and blocks of what the settings ask for."""
    rows = [needs(record, cameras, settings) for cameras in settings.camera_counts]
    row, fps = record.busiest, settings.fps or record.fps
    return f"What cameras with {record.network} at {fps:g} fps need", [
        table(_HEADERS, [_cells(each) for each in rows]),
        f"By arithmetic from {row.streams} streams that were measured on {record.machine}: {row.cpu_ms:.1f} ms of CPU "
        f"and {record.kb_per_frame:.2f} kB a frame ({record.codec.partition(',')[0]}), {row.stream_mb:.1f} MB a stream "
        f"and {record.base_mb:.0f} MB a detector. Detectors: on machines of {settings.cores} such cores each, kept "
        f"busy to {settings.busy:.0%}. Series with `--metrics {settings.metrics}` at the cameras, scraped every "
        f"{SCRAPE_S:g} s.",
    ]


def _series(metrics: Metrics) -> int:
    return sum(len(metric.samples) for metric in metrics.registry.collect())


def _cells(row: Needs) -> tuple[str, ...]:
    return (
        f"{row.cameras:,}",
        f"{row.frames_s:,.0f}",
        _rounded(row.up_mbit_s),
        _rounded(row.down_mbit_s),
        _rounded(row.cores),
        f"{row.detectors:,}",
        _rounded(row.memory_gb),
        f"{row.balancers:,}",
        _rounded(row.series),
        _rounded(row.series / SCRAPE_S),
        _rounded(row.series * SERIES_KB * KB / GB),
    )


def _rounded(value: float) -> str:
    """Two digits: what is measured is known no better, and a metric more is no other table."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
