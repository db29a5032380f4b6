"""How long streams are without detections when their detector dies, and when it comes back.

    python -m tests.benchmarks.shards [--streams 24] [--fps 5] [--cycles 12]

Three detector processes of the demo's network behind HAProxy by deploy/haproxy/haproxy.cfg, cameras that send recorded
packets over sessions of their own, consumers at each detector. In turn each detector is killed (SIGKILL), its streams
resume at the others, it is started again, and its streams return. `dies` is from the kill to a stream's first
detections at another detector, `returns` from a stream's last detections at the other one to its first ones at its own:
both hold up to a frame's interval. All runs on this machine, whose other programs count too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import structlog
from rich.console import Console
from rich.table import Table

from services.bench.machine import this_machine
from stream.tasks.worker import Worker
from tests.deploy.balancers import HAPROXY, Balancer, haproxy
from tests.deploy.fleet import ReplayedCamera, Told, listening, record
from tests.faults.programs import Program, detector_program, running
from tests.services.waiting import until

FLAGS = ("--tails", "1", "--address-rate", "1000", "--stranger-rate", "1000")
SETTLE_S = 1.0


class Moves:
    """Streams that lost their detector and got it back, again and again."""

    def __init__(self, told: Told, programs: dict[str, Program], streams: int) -> None:
        self.dies_s: list[float] = []
        self.returns_s: list[float] = []
        self._told, self._programs, self._streams = told, programs, streams

    async def run(self, cycles: int) -> None:
        await until(lambda: len(self._told.places()) == self._streams)
        await asyncio.sleep(SETTLE_S)
        homes = dict(self._told.places())
        for cycle in range(cycles):
            name = sorted(self._programs)[cycle % len(self._programs)]
            streams = {stream for stream, home in homes.items() if home == name}
            await self._kill(name, streams)
            await self._start(name, homes)

    async def _kill(self, name: str, streams: set[str]) -> None:
        killed_s = time.monotonic()
        await self._programs[name].kill()
        await until(lambda: streams <= self._elsewhere(name, killed_s).keys())
        first = self._elsewhere(name, killed_s)
        self.dies_s += [first[stream] - killed_s for stream in streams]
        await asyncio.sleep(SETTLE_S)

    async def _start(self, name: str, homes: dict[str, str]) -> None:
        begun_s = time.monotonic()
        await self._programs[name].start()
        await until(lambda: self._told.places(begun_s) == homes)
        for stream in (stream for stream, home in homes.items() if home == name):
            told = [
                (at_s, place)
                for at_s, place, of, _ in self._told.detections()
                if of == stream and at_s > begun_s
            ]
            back_s = min(at_s for at_s, place in told if place == name)
            away = [at_s for at_s, place in told if place != name and at_s < back_s]
            self.returns_s.append(back_s - max(away, default=begun_s))
        await asyncio.sleep(SETTLE_S)

    def _elsewhere(self, name: str, since_s: float) -> dict[str, float]:
        """When each stream was detected first by another detector than that one."""
        told = reversed(self._told.detections())
        return {stream: at_s for at_s, place, stream, _ in told if place != name and at_s > since_s}


async def measure(options: Namespace, folder: Path) -> tuple[Moves, list[ReplayedCamera], Told]:
    programs = {f"s{number}": detector_program(*FLAGS) for number in (1, 2, 3)}
    balancer = Balancer(folder, [program.metrics_port for program in programs.values()], None)
    recorded, told = await asyncio.to_thread(record), Told()
    async with running(*programs.values()):
        await asyncio.gather(*(program.until_logged("ready") for program in programs.values()))
        direct = {name: f"ws://127.0.0.1:{program.metrics_port}" for name, program in programs.items()}
        async with haproxy(balancer), listening(told, direct):
            url, worker = f"ws://127.0.0.1:{balancer.port}", Worker("fleet")
            cameras = [
                ReplayedCamera(recorded, url, f"cam{number}", fps=options.fps, worker=worker)
                for number in range(options.streams)
            ]
            playing = asyncio.gather(*(camera.run() for camera in cameras))
            moves = Moves(told, programs, options.streams)
            await moves.run(options.cycles)
            for camera in cameras:
                camera.stop()
            await playing
            worker.close()
    return moves, cameras, told


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.shards", description=__doc__)
    parser.add_argument("--streams", type=int, default=24)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--cycles", type=int, default=12)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if not HAPROXY:
        raise SystemExit("haproxy is not installed")
    with TemporaryDirectory() as folder:
        moves, cameras, told = asyncio.run(measure(options, Path(folder)))
    table = Table("a shard", "moves", "p50 s", "p90 s", "p99 s", "most s", title=f"{options.streams} streams")
    for name, seconds in (("dies", moves.dies_s), ("returns", moves.returns_s)):
        figures = [*np.percentile(seconds, (50, 90, 99)), max(seconds)]
        table.add_row(name, str(len(seconds)), *(f"{figure:.2f}" for figure in figures))
    console = Console(markup=False, emoji=False)
    console.print(table)
    counts = [camera.statistics.frame_counts for camera in cameras]
    console.print(
        f"captured {sum(one.captured for one in counts)} = detected {sum(one.detected for one in counts)} + dropped "
        f"{sum(one.dropped_total for one in counts)}: {all(camera.is_accounted_for for camera in cameras)}; "
        f"frames told twice: {len(told.told_again())}"
    )
    console.print(str(this_machine()))


if __name__ == "__main__":
    main()
