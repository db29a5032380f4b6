"""The services as the programs they are: started, signalled, asked for their metrics, and watched from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.paths import ROOT
from tests.ports import free_port

START_S = 300.0  # importing torch, and perhaps compiling kernels, on the busiest machine
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

Metrics = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds."""

    resident_bytes: int
    anonymous_bytes: int  # of those, what no file backs: what a program allocates, and not its libraries
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """What the process holds now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return Usage(
        int(status["VmRSS"].split()[0]) * 1024,
        int(status["RssAnon"].split()[0]) * 1024,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(status["Threads"]),
    )


class Program:
    """One service in a process of its own."""

    def __init__(self, command: str, metrics_port: int, *arguments: str) -> None:
        self.metrics_port = metrics_port
        self.log: deque[dict[str, Any]] = deque(maxlen=5000)
        self._arguments = [sys.executable, "-m", "services.cli", command, "--log-format", "json", *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.returncode

    async def start(self, **environment: str) -> None:
        """Start it, for the first time or again."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT | environment,
            start_new_session=True,  # a group of its own, with the processes that it starts
        )
        assert self._process.stderr is not None
        self._reading = asyncio.ensure_future(self._read(self._process.stderr))

    async def _read(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"event": line.decode(errors="replace").rstrip()}
            self.log.append(record)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Records of that event, the newest last."""
        return [record for record in self.log if record["event"] == event]

    async def until_logged(self, event: str, count: int = 1) -> None:
        """Wait for an event. Raises AssertionError where the program ends before."""
        async with asyncio.timeout(START_S):
            while len(self.logged(event)) < count:
                assert self.exit_code is None, f"it ended with {self.exit_code}: {list(self.log)[-3:]}"
                await asyncio.sleep(0.02)

    async def until_serving(self, session: aiohttp.ClientSession) -> None:
        """Wait for /metrics. Raises AssertionError where the program ends before."""
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await self.metrics(session)
                    return
                except aiohttp.ClientConnectionError:
                    assert self.exit_code is None, f"it ended with {self.exit_code}: {list(self.log)[-3:]}"
                    await asyncio.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(START_S):
            code = await self._process.wait()
            await self._reading
        return code

    def kill_now(self) -> None:
        """End it, if it runs, and whatever it has started, which would keep its standard error open."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """End it at once, if it runs, and wait until it has."""
        self.kill_now()
        if self._process is not None:
            await self.ended()

    async def metrics(self, session: aiohttp.ClientSession) -> Metrics:
        """What it tells Prometheus now."""
        return await read_metrics(session, self.metrics_port)


@asynccontextmanager
async def running(*programs: Program) -> AsyncIterator[None]:
    """Programs that run meanwhile; whatever happens, none is left."""
    try:
        for program in programs:
            await program.start()
        yield
    finally:
        for program in programs:  # all of them, before waiting for any
            program.kill_now()
        await asyncio.gather(*(program.kill() for program in programs))


async def read_metrics(session: aiohttp.ClientSession, port: int) -> Metrics:
    """All samples of /metrics at one instant, by name and labels."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def detector_program(*arguments: str, port: int | None = None) -> Program:
    """A detector of the demo's network."""
    port = port or free_port()
    return Program("detector", port, "--port", str(port), "--model", "demo", *arguments)


def camera_program(source: str, detector: str, stream: str, *arguments: str) -> Program:
    """A camera of the demo's network, which the detector at that address is to know as `stream`."""
    port = free_port()
    flags = ["--source", source, "--detector", detector, "--stream", stream, "--metrics-port", str(port)]
    return Program("camera", port, *flags, "--model", "demo", "--size", "64x96", *arguments)


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum of the samples of that name that carry these labels."""
    return sum(
        value
        for (sample, pairs), value in metrics.items()
        if sample == name and labels.items() <= dict(pairs).items()
    )


def unaccounted(metrics: Metrics) -> float:
    """Frames of a camera that are neither detected, here or there, recorded, dropped nor in flight: none, ever."""
    prefix = "splitcast_camera_frames"
    captured, *outcomes = (
        total(metrics, f"{prefix}_{what}_total")
        for what in ("captured", "detected", "detected_locally", "recorded", "dropped")
    )
    return captured - sum(outcomes) - total(metrics, f"{prefix}_in_flight")
