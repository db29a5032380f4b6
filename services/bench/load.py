"""`splitcast bench load`: recorded packets from many simulated cameras to one detector."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from services.bench.bare import bare_cost
from services.bench.detector_sample import sample
from services.bench.load_figures import HEADERS, BareCost, LoadFigures, cells, figures, streams_a_core
from services.bench.machine import Machine, this_machine
from services.bench.recording import RecordedPackets, record_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import SimulatedCamera
from services.commands.loopback import local_detector
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, choose_device, find_model
from services.printable import well_formed
from services.units import KB
from stream.atomic_file import write_whole
from stream.tasks.background import run_with_background


def run_bench_load(settings: BenchLoadSettings) -> None:
    """Measure each number of streams, print a table, and write record and table where they are asked for.

    Raises SourceError, WeightsError, CheckpointError, DetectorFailed, NotMeasurable.
    """
    asyncio.run(run(settings))


async def run(settings: BenchLoadSettings) -> None:
    """As `run_bench_load`, on an event loop."""
    machine = this_machine()
    recorded, bare = await asyncio.to_thread(_prepare, settings)
    rows = await bench_load(settings, recorded, bare)
    title, notes = _title(settings, recorded), _notes(settings, machine, bare, rows)
    table = Table(
        *(Column(header, justify="right") for header in HEADERS),
        title=title,
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for row in cells(rows):
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table, *notes, sep="\n")
    if settings.out:
        record = _record(settings, recorded, machine, bare, rows)
        write_whole(settings.out, json.dumps(record, indent=2) + "\n")
    if settings.table:
        write_whole(settings.table, _markdown(title, notes, rows))


def _prepare(settings: BenchLoadSettings) -> tuple[RecordedPackets, BareCost]:
    """What needs the network, which is gone then: this process has nothing to do but send."""
    name = well_formed(Path(settings.model).stem)
    network = LoadedModel(name, find_model(settings.model, choose_device(settings.device)))
    recorded = record_packets(settings, network)
    return recorded, bare_cost(network, recorded)


async def bench_load(
    settings: BenchLoadSettings, recorded: RecordedPackets, bare: BareCost
) -> list[LoadFigures]:
    """Figures for each number of streams, one after the other."""
    console = Console(stderr=True, markup=False, emoji=False)
    rows = []
    for streams in settings.stream_counts:
        async with _detector(settings, streams) as url:
            rows.append(await measure(settings, recorded, bare, url, streams))
        console.print(f"{streams} streams: {rows[-1].held} held, {rows[-1].detected_fps:.1f} frames/s")
    return rows


async def measure(
    settings: BenchLoadSettings, recorded: RecordedPackets, bare: BareCost, url: str, streams: int
) -> LoadFigures:
    """Figures of so many streams at the detector at `url`. Raises NotMeasurable."""
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
    idle = await sample(url)

    async def watch() -> LoadFigures:
        for camera in cameras:
            await camera.welcomed.wait()
        await asyncio.sleep(settings.warm_up_s)
        started_ns, started_s, start = time.monotonic_ns(), time.process_time(), await sample(url)
        await asyncio.sleep(settings.seconds)
        ended_ns, ended_s, end = time.monotonic_ns(), time.process_time(), await sample(url)
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
        watch(), *(camera.run(url, random.uniform(0, interval_s), stopping) for camera in cameras)
    )


@asynccontextmanager
async def _detector(settings: BenchLoadSettings, streams: int) -> AsyncIterator[str]:
    """The address of the detector that the settings name, or of one that is started for it."""
    if settings.detector:
        yield settings.detector
        return
    flags: dict[str, Any] = {
        "port": 0,
        "model": settings.model,
        "device": settings.device,
        "threads": settings.threads,
        "max_streams": max(64, streams),
        "log_level": "error",
    }
    async with local_detector(DetectorSettings.load(flags)) as url:
        yield url


def _title(settings: BenchLoadSettings, recorded: RecordedPackets) -> str:
    height, width = recorded.canvas
    return f"{recorded.network} split at {recorded.split}, {height}x{width}, {settings.fps:g} fps a stream"


def _notes(
    settings: BenchLoadSettings, machine: Machine, bare: BareCost, rows: Sequence[LoadFigures]
) -> list[str]:
    where = f"detector at {settings.detector}, load from " if settings.detector else ""
    return [
        f"{where}{machine}; {settings.seconds:g} s each. The load generator took "
        f"{max(row.generator_cores for row in rows):.2f} cores at most.",
        f"Bare loop: tail {bare.tail_ms:.1f}, boxes {bare.boxes_ms:.2f}, decode {bare.decode_ms:.1f} ms of CPU "
        "a frame; `beside` is what a frame costs the detector beyond that.",
        f"{'At least ' if rows[-1].held == rows[-1].streams else ''}"
        f"{streams_a_core(rows, settings.fps, machine.cores):.1f} streams a core at {settings.fps:g} fps; "
        f"held: no more than {settings.tolerance:.0%} of a stream's frames dropped.",
    ]


def _markdown(title: str, notes: Sequence[str], rows: Sequence[LoadFigures]) -> str:
    lines = [HEADERS, ("---:",) * len(HEADERS), *cells(rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# {title}\n\n{table}\n\n" + "\n\n".join(notes) + "\n"


def _record(
    settings: BenchLoadSettings,
    recorded: RecordedPackets,
    machine: Machine,
    bare: BareCost,
    rows: Sequence[LoadFigures],
) -> dict[str, Any]:
    return {
        "network": recorded.network,
        "weights": recorded.weights,
        "split": recorded.split,
        "canvas": recorded.canvas,
        "codec": str(recorded.codec),
        "kb_per_frame": round(sum(map(len, recorded.packets)) / len(recorded.packets) / KB, 3),
        "fps": settings.fps,
        "seconds": settings.seconds,
        "tolerance": settings.tolerance,
        "machine": asdict(machine),
        "bare": asdict(bare),
        "streams_a_core": round(streams_a_core(rows, settings.fps, machine.cores), 2),
        "rows": [asdict(row) for row in rows],
    }
