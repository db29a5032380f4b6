"""What tails in Ray cost beside tails in the process, on this machine: `python -m tests.benchmarks.ray_tail`.

Each kind of detector holds 1, 4 and 8 streams of recorded packets of the demo's network, first at a rate that leaves
the machine idle, for the latency of a frame, then faster than it can, for the frames a second. Then a replica is killed
under four streams. Everything runs on one machine, the cameras too; both kinds have as many threads as it has cores.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from services.bench.bare import bare_cost
from services.bench.load import Door, measure
from services.bench.load_figures import BareCost, LoadFigures
from services.bench.machine import this_machine
from services.bench.recording import RecordedPackets, record_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import DETECTED, SimulatedCamera
from services.loading import LoadedModel, find_network
from tests.descendants import MARK, Descendants
from tests.faults.programs import Program, detector_program, total
from tests.services.waiting import until

MIB = 2**20
STREAMS = (1, 4, 8)
ROUNDS, SECONDS = 2, 5.0
CALM_FPS, FLAT_OUT_FPS = 2.0, 60.0  # of each stream
CORES = len(os.sched_getaffinity(0))
KINDS = {
    "local": [],
    "ray": ["--tail", "ray", "--ray-private-network", "--ray-replicas", str(CORES)],
}


@asynccontextmanager
async def detector(kind: str) -> AsyncIterator[tuple[Program, Descendants, float]]:
    """One that is ready, its processes, and the seconds that its start took."""
    program = detector_program(*KINDS[kind], "--max-age-s", "60")
    processes = Descendants(secrets.token_hex(16))
    began_s = time.monotonic()
    try:
        await program.start(**{MARK: processes.mark})
        await program.until_logged("ready")
        yield program, processes, time.monotonic() - began_s
    finally:
        program.send(signal.SIGTERM)
        await program.ended()
        processes.end()


def shared_out_bytes(pid: int) -> int:
    """Memory of a process, with its share of what it has in common with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no Pss")


@dataclass(frozen=True)
class Load:
    """Recorded packets, and what a frame of them takes where nothing else is done."""

    recorded: RecordedPackets
    bare: BareCost

    @classmethod
    def record(cls) -> Load:
        network = LoadedModel("demo", find_network("demo"))
        recorded = record_packets(BenchLoadSettings.load({}), network)
        return cls(recorded, bare_cost(network, recorded))

    async def measure(self, program: Program, streams: int, fps: float) -> LoadFigures:
        settings = BenchLoadSettings.load({"fps": fps, "seconds": SECONDS, "warm_up_s": 2})
        door = Door(f"ws://127.0.0.1:{program.metrics_port}")
        return await measure(settings, self.recorded, self.bare, [door], streams)


def processor_s(processes: Descendants) -> float:
    """Processor time that all of them have used: unlike the time that passes it hardly depends on what else runs."""
    ticks = 0
    for pid in processes.find():
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Kind:
    """A detector, and what was measured with so many streams."""

    program: Program
    processes: Descendants
    calm: list[LoadFigures] = field(default_factory=list)
    flat_out: list[LoadFigures] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # a frame, of all its processes

    async def measure(self, load: Load, streams: int) -> None:
        self.calm.append(await load.measure(self.program, streams, CALM_FPS))
        async with aiohttp.ClientSession() as http:
            before = total(await self.program.metrics(http), "splitcast_detector_frames_detected_total")
            before_s = processor_s(self.processes)
            self.flat_out.append(await load.measure(self.program, streams, FLAT_OUT_FPS))
            frames = (
                total(await self.program.metrics(http), "splitcast_detector_frames_detected_total") - before
            )
        self.cpu_ms.append((processor_s(self.processes) - before_s) / frames * 1000)

    def row(self, name: str, streams: int) -> str:
        p50, p99 = (median(row.latency_ms[p] for row in self.calm) for p in ("p50", "p99"))
        fps = median(row.detected_fps for row in self.flat_out)
        return f"| {name} | {streams} | {p50:.1f} | {p99:.1f} | {fps:.1f} | {median(self.cpu_ms):.1f} |"


async def compare(load: Load, kinds: dict[str, tuple[Program, Descendants]]) -> None:
    """Rows of a table: medians of rounds in which the kinds take turns, so that others' work meets both."""
    print("| tail | streams | p50 ms | p99 ms | frames/s at most | CPU ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for streams in STREAMS:
        measured = {name: Kind(*kind) for name, kind in kinds.items()}
        for _ in range(ROUNDS):
            for kind in measured.values():
                await kind.measure(load, streams)
        for name, kind in measured.items():
            print(kind.row(name, streams), flush=True)


async def recovery(load: Load, program: Program, processes: Descendants) -> tuple[float, float]:
    """Seconds from a replica's death until all streams have detections again, and until another has its place."""
    stopping = asyncio.Event()
    cameras = [
        SimulatedCamera(load.recorded, f"camera{number}", secrets.token_hex(16), window=3, interval_s=0.2)
        for number in range(4)
    ]
    url = f"ws://127.0.0.1:{program.metrics_port}"
    sending = [asyncio.ensure_future(camera.run(url, 0.0, stopping)) for camera in cameras]
    await asyncio.sleep(5)
    before = processes.replicas()
    killed_ns = time.monotonic_ns()
    os.kill(before.pop(), signal.SIGKILL)
    resumed_s = 0.0
    for camera in cameras:
        await until(
            lambda camera=camera: any(
                f.outcome == DETECTED and f.captured_ns > killed_ns for f in camera.frames
            )
        )
        resumed_s = max(resumed_s, (time.monotonic_ns() - killed_ns) / 1e9)
    await until(lambda: len(processes.replicas()) == CORES)
    async with aiohttp.ClientSession() as http:
        running = 0.0
        while running < CORES:
            running = total(await program.metrics(http), "splitcast_detector_ray_replicas")
            await asyncio.sleep(0.1)
    replaced_s = (time.monotonic_ns() - killed_ns) / 1e9
    stopping.set()
    await asyncio.gather(*sending)
    return resumed_s, replaced_s


async def main() -> None:
    print(this_machine())
    load = await asyncio.to_thread(Load.record)
    async with detector("local") as (local, of_local, _), detector("ray") as (ray, of_ray, start_s):
        for processes in (of_local, of_ray):
            parts = [
                f"{shared_out_bytes(pid) / MIB:.0f} {line[:60]}" for pid, line in processes.find().items()
            ]
            print(f"MiB of {len(parts)} processes that wait: {'; '.join(parts)}")
        print(f"Ray and its replicas started in {start_s:.1f} s")
        await compare(load, {"local": (local, of_local), "ray": (ray, of_ray)})
        async with aiohttp.ClientSession() as http:
            metrics = await ray.metrics(http)
        calls = total(metrics, "splitcast_detector_ray_overhead_seconds_count")
        spent_s = total(metrics, "splitcast_detector_ray_overhead_seconds_sum")
        print(f"{calls:.0f} calls, {spent_s / calls * 1000:.1f} ms of Ray each, under all these loads")
        resumed_s, replaced_s = await recovery(load, ray, of_ray)
        print(
            f"a replica killed: all streams go on after {resumed_s:.1f} s; replaced after {replaced_s:.1f} s"
        )


if __name__ == "__main__":
    asyncio.run(main())
