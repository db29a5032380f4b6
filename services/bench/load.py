"""`splitcast bench load`: recorded packets from many simulated cameras to one detector."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from services.bench.bare import bare_cost
from services.bench.detector_sample import DetectorSample, sample
from services.bench.load_figures import BareCost, LoadFigures, figures
from services.bench.load_report import LoadReport
from services.bench.machine import this_machine
from services.bench.markdown import write_page
from services.bench.recording import RecordedPackets, record_packets, recorded_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import SimulatedCamera
from services.certificates import client_tls
from services.commands.loopback import OPEN_DETECTOR, local_detector
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, choose_engine, find_network
from services.own_token import token_headers
from services.printable import well_formed
from stream.atomic_file import write_whole
from stream.tasks.background import run_with_background
from stream.transport.tls import ClientTls


@dataclass(frozen=True)
class Door:
    """Where a detector is, and by what it lets cameras and scrapes in."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ClientTls | None = None

    async def let_in(self, camera: SimulatedCamera, phase_s: float, stopping: asyncio.Event) -> None:
        """As `SimulatedCamera.run`."""
        await camera.run(self.url, phase_s, stopping, headers=self.headers, tls=self.tls)

    async def sample(self) -> DetectorSample:
        """What the detector tells of itself now. Raises NotMeasurable."""
        return await sample(self.url, self.headers, self.tls)


def run_bench_load(settings: BenchLoadSettings) -> None:
    """Measure each number of streams, print a table, and write record and page where they are asked for.

    Raises SourceError, OSError, NoRecording, WeightsError, CheckpointError, DetectorFailed, NotMeasurable.
    """
    asyncio.run(run(settings))


async def run(settings: BenchLoadSettings) -> None:
    """As `run_bench_load`, on an event loop."""
    report = await bench_load(settings)
    title, blocks = report.title, report.blocks()
    print(title, *blocks, sep="\n\n")
    if settings.out:
        write_whole(settings.out, json.dumps(report.record(), indent=2) + "\n")
    if settings.table:
        write_page(settings.table, [f"# {title}", *blocks])


async def bench_load(settings: BenchLoadSettings) -> LoadReport:
    """Figures for each number of streams, one after the other."""
    machine = this_machine()
    recorded, bare = await asyncio.to_thread(_prepare, settings)
    rows = []
    for streams in settings.stream_counts:
        async with _detectors(settings, streams) as doors:
            rows.append(await measure(settings, recorded, bare, doors, streams))
        print(
            f"{streams} streams: {rows[-1].held} held, {rows[-1].detected_fps:.1f} frames/s", file=sys.stderr
        )
    return LoadReport(settings, recorded, machine, bare, tuple(rows))


def _prepare(settings: BenchLoadSettings) -> tuple[RecordedPackets, BareCost]:
    """What needs the network, which is gone then: this process has nothing to do but send."""
    name = well_formed(Path(settings.model).stem)
    engine, device = choose_engine(settings.engine, settings.device)
    network = LoadedModel(name, find_network(settings.model, engine, device, settings.threads))
    if settings.recording:
        recorded = recorded_packets(settings, settings.recording, network)
    else:
        recorded = record_packets(settings, network)
    return recorded, bare_cost(network, recorded)


async def measure(
    settings: BenchLoadSettings,
    recorded: RecordedPackets,
    bare: BareCost,
    doors: Sequence[Door],
    streams: int,
) -> LoadFigures:
    """Figures of so many streams, shared out among the detectors behind the doors. Raises NotMeasurable."""
    random, stopping = Random(streams), asyncio.Event()
    interval_s = 1 / settings.fps
    cameras = [
        SimulatedCamera(
            recorded,
            f"load{number}",
            f"{random.getrandbits(128):032x}",
            window=settings.window,
            interval_s=interval_s,
        )
        for number in range(streams)
    ]
    for door in doors:
        await _come_and_go(settings, recorded, door)
    idle = await _sample(doors)

    async def watch() -> LoadFigures:
        for camera in cameras:
            await camera.welcomed.wait()
        await asyncio.sleep(settings.warm_up_s)
        started_ns, started_s, start = (
            time.monotonic_ns(),
            time.process_time(),
            await _sample(doors),
        )
        await asyncio.sleep(settings.seconds)
        ended_ns, ended_s, end = (
            time.monotonic_ns(),
            time.process_time(),
            await _sample(doors),
        )
        stopping.set()
        for camera in cameras:
            await camera.over.wait()
        return figures(
            [[f for f in camera.frames if started_ns <= f.captured_ns < ended_ns] for camera in cameras],
            (idle, start, end),
            bare,
            seconds=(ended_ns - started_ns) / 1e9,
            generator_s=ended_s - started_s,
            tolerance=settings.tolerance,
        )

    # Cameras are not in step: each begins somewhere in its interval.
    return await run_with_background(
        watch(),
        *(
            doors[number % len(doors)].let_in(camera, random.uniform(0, interval_s), stopping)
            for number, camera in enumerate(cameras)
        ),
    )


async def _sample(doors: Sequence[Door]) -> DetectorSample:
    """What the detectors tell of themselves now, added up."""
    first, *others = await asyncio.gather(*(door.sample() for door in doors))
    return sum(others, first)


async def _come_and_go(settings: BenchLoadSettings, recorded: RecordedPackets, door: Door) -> None:
    """One stream for a while, so that memory that only the first one takes is nobody's share."""
    camera = SimulatedCamera(
        recorded, "warm-up", f"{0:032x}", window=settings.window, interval_s=1 / settings.fps
    )
    stopping = asyncio.Event()

    async def leave_after_a_while() -> None:
        await camera.welcomed.wait()
        await asyncio.sleep(settings.warm_up_s)
        stopping.set()
        await camera.over.wait()

    await run_with_background(leave_after_a_while(), door.let_in(camera, 0.0, stopping))


@asynccontextmanager
async def _detectors(settings: BenchLoadSettings, streams: int) -> AsyncIterator[list[Door]]:
    """The door of the detector that the settings name, or of as many as are started for it."""
    if settings.detector:
        yield [Door(settings.detector, token_headers(settings), client_tls(settings))]
        return
    flags: dict[str, Any] = {
        "port": 0,
        "model": settings.model,
        "device": settings.device,
        "engine": settings.engine,
        "tails": settings.tails,
        "threads": settings.threads,
        "max_streams": streams + 1,  # the one that comes first and goes,
        "log_level": "error",
        **OPEN_DETECTOR,
    }
    async with AsyncExitStack() as started:
        yield [
            Door(await started.enter_async_context(local_detector(DetectorSettings.load(flags))))
            for _ in range(settings.detectors)
        ]
