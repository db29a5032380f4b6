"""Cameras, a detector and a consumer, left alone among random faults: what grows, and whether the account is exact.

    python -m tests.faults.soak --minutes 60 --sessions 1000 --sources 1000 --out docs/results/soak.json

Tells once a minute how far it is, and writes the figures as JSON, and a table beside it. Ends with 1 where a bound is
not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np

from services.chaos.service import ChaosProxy, chaos_proxy
from services.chaos.settings import Address
from services.detections_address import detections_url
from services.logs import LogSettings, configure_logs
from services.metrics import VERSION
from stream.errors import ConnectionLost
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.transport.websocket import connect
from tests.faults.programs import (
    Metrics,
    Program,
    camera_program,
    detector_program,
    running,
    total,
    unaccounted,
    usage,
)
from tests.paths import ROOT
from tests.services.clips import write_video
from tests.stream.sources.cameras import HttpCamera
from tests.stream.sources.rtsp import RtspServer, missing_gstreamer

MB = 1e6
SAMPLE_S = 10.0
TOLD_S = 60.0
MOST_MB_PER_HOUR = 1.0
MOST_MB_OF_RECONNECTS = 5.0
WARM_UP_RECONNECTS = 100
PATIENCE_S = 180.0  # without a frame detected or a connection before a cycle counts as stuck

# What happens to a link, one at a time, for so long; then it is left alone for a while.
LINK_FAULTS = (
    "latency:ms=250,jitter=100,duration=10",
    "bandwidth:kbps=64,duration=15",
    "blackhole:duration=2",
    "blackhole:duration=15",
    "reset",
    "reset:duration=5",
    "half-open:side=client",
    "half-open:side=server",
    "half-open:side=both",
    "slow-close:ms=3000,duration=10",
    "flip:kind=binary,direction=up,probability=.3,duration=5",
    "flip:kind=keyframe,direction=up,duration=2",
    "truncate:kind=binary,direction=up,probability=.3,duration=5",
    "duplicate:kind=binary,direction=up,count=1,duration=5",
    "reorder:kind=binary,direction=up,every=5,duration=5",
    "lose:kind=binary,direction=up,probability=.1,duration=5",
    "oversize:kind=binary,direction=up,count=1,duration=5",
    "delay:ms=300,jitter=300,direction=down,duration=5",
    "flip:kind=any,direction=down,count=1,duration=5",
    "lose:kind=any,direction=down,count=1,duration=5",
    "duplicate:kind=any,direction=down,count=1,duration=5",
    "truncate:kind=text,direction=up,count=1,duration=5",
)


@dataclass(slots=True)
class Series:
    """What was seen of one process: resident bytes, descriptors and threads by seconds."""

    seconds: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    anonymous_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def sample(self, pid: int, now_s: float) -> None:
        """Add what the process holds now."""
        held = usage(pid)
        self.seconds.append(round(now_s, 1))
        self.resident_mb.append(round(held.resident_bytes / MB, 3))
        self.anonymous_mb.append(round(held.anonymous_bytes / MB, 3))
        self.descriptors.append(held.descriptors)
        self.threads.append(held.threads)

    def describe(self, warm_s: float) -> dict[str, Any]:
        """Slopes by least squares, and ranges, after `warm_s`."""
        first = sum(second < warm_s for second in self.seconds)
        resident, third = self.resident_mb[first:], max(1, (len(self.seconds) - first) // 3)
        return {
            "samples": len(resident),
            "mb_per_hour": _slope(self.seconds[first:], resident),
            "anonymous_mb_per_hour": _slope(self.seconds[first:], self.anonymous_mb[first:]),
            "mb_first_third": round(statistics.median(resident[:third]), 2),
            "mb_last_third": round(statistics.median(resident[-third:]), 2),
            "descriptors": _range(self.descriptors[first:]),
            "threads": _range(self.threads[first:]),
        }


def _slope(seconds: list[float], values: list[float]) -> float:
    """By hour, by least squares."""
    return round(float(np.polyfit(np.array(seconds) / 3600, np.array(values), 1)[0]), 3)


def _range(values: list[int]) -> list[int]:
    return [min(values), max(values)] if values else []


class Progress:
    """Tells how far a phase is, once a minute at most. Times are of any steady clock."""

    def __init__(self, phase: str, now_s: float) -> None:
        self._phase, self._told_s = phase, now_s

    def tell(self, words: str, now_s: float) -> None:
        """Print the words, if it is time to."""
        if now_s - self._told_s >= TOLD_S:
            self._told_s = now_s
            print(f"{self._phase}: {words}", flush=True)


# --- the soak ---


@dataclass(slots=True)
class Consumed:
    """What a consumer was told, by type of message."""

    messages: Counter[str] = field(default_factory=Counter)
    connections: int = 0


async def consume(url: str, consumed: Consumed) -> None:
    """Read whatever the detector publishes, for ever."""
    while True:
        try:
            async with connect(detections_url(url), DETECTIONS_PROTOCOL) as link:
                consumed.connections += 1
                async for text in link:
                    consumed.messages[json.loads(text).get("type", "?")] += 1
        except (ConnectionLost, ValueError):
            await asyncio.sleep(0.5)


async def trouble_link(proxy: ChaosProxy, chance: random.Random, until_s: float) -> None:
    """One fault after the other."""
    while time.monotonic() < until_s:
        await asyncio.sleep(chance.uniform(4, 12))
        switch = proxy.begin(chance.choice(LINK_FAULTS))
        await asyncio.sleep((switch.fault.duration or 0.0) + 0.5)
        proxy.end(switch)


async def trouble_source(
    camera: RtspServer, chance: random.Random, until_s: float, done: Counter[str]
) -> None:
    """Kill the camera's server, freeze it, let it come back with another size."""
    size = 0
    while time.monotonic() < until_s:
        await asyncio.sleep(chance.uniform(15, 30))
        what = chance.choice(("killed", "frozen", "another size"))
        done[what] += 1
        if what == "frozen":
            camera.send(signal.SIGSTOP)
            await asyncio.sleep(8)
            camera.send(signal.SIGCONT)
            continue
        await camera.kill()
        await asyncio.sleep(chance.uniform(0, 5))
        size += what == "another size"
        await camera.start("--fps", "10", "--size", ("320x240", "240x320")[size % 2])


async def soak(minutes: float, seed: int) -> dict[str, Any]:
    """Figures of so many minutes among faults."""
    seconds, chance = minutes * 60, random.Random(seed)
    consumed, source_faults = Consumed(), Counter[str]()
    async with AsyncExitStack() as stack:
        detector = detector_program()
        await stack.enter_async_context(running(detector))
        await detector.until_logged("ready")
        address = Address("127.0.0.1", detector.metrics_port)
        folder = Path(stack.enter_context(TemporaryDirectory()))
        sources = {
            "virtual": ("demo:scene=bus,fps=5,size=192x128", []),
            "file": (str(write_video(folder / "clip.avi", 100, fps=10)), ["--realtime", "--loop"]),
        }
        rtsp = None if missing_gstreamer() else RtspServer()
        if rtsp is not None:
            await rtsp.start("--fps", "10")
            stack.push_async_callback(rtsp.kill)
            sources["rtsp"] = (rtsp.url(), [])
        cameras: dict[str, Program] = {}
        proxies: dict[str, ChaosProxy] = {}
        for name, (source, flags) in sources.items():
            proxies[name] = await stack.enter_async_context(chaos_proxy(address, seed=seed))
            cameras[name] = camera_program(source, proxies[name].url, name, *flags)
        proxies["consumer"] = await stack.enter_async_context(chaos_proxy(address, seed=seed))
        await stack.enter_async_context(running(*cameras.values()))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for camera in cameras.values():
            await camera.until_serving(session)
        until_s = time.monotonic() + seconds
        tasks = [
            consume(proxies["consumer"].url, consumed),
            *(trouble_link(proxy, chance, until_s) for proxy in proxies.values()),
        ]
        if rtsp is not None:
            tasks.append(trouble_source(rtsp, chance, until_s, source_faults))
        watched = {"detector": detector, **{f"camera {name}": camera for name, camera in cameras.items()}}
        group = [asyncio.ensure_future(task) for task in tasks]
        try:
            return await _watch(watched, seconds, session, group) | {
                "consumer": {"connections": consumed.connections, "messages": dict(consumed.messages)},
                "link_faults": _struck(proxies.values()),
                "source_faults": dict(source_faults),
            }
        finally:
            for task in group:
                task.cancel()
            await asyncio.gather(*group, return_exceptions=True)


async def _watch(
    programs: dict[str, Program],
    seconds: float,
    session: aiohttp.ClientSession,
    group: list[asyncio.Future[None]],
) -> dict[str, Any]:
    """Sample every process until the time is over."""
    series = {name: Series() for name in programs}
    polls, worst, last = 0, 0.0, dict[str, Metrics]()
    start_s = time.monotonic()
    progress = Progress("soak", start_s)
    while (now_s := time.monotonic() - start_s) < seconds:
        resident = ", ".join(
            f"{name} {each.resident_mb[-1]:.0f} MB" for name, each in series.items() if polls
        )
        progress.tell(f"{now_s / 60:.0f} of {seconds / 60:.0f} minutes; {resident}", start_s + now_s)
        await asyncio.sleep(min(SAMPLE_S, seconds - now_s))
        for task in group:
            if task.done():
                task.result()
        for name, program in programs.items():
            assert program.exit_code is None, (
                f"{name} ended with {program.exit_code}: {list(program.log)[-3:]}"
            )
            series[name].sample(program.pid, time.monotonic() - start_s)
            try:
                last[name] = await program.metrics(session)
            except aiohttp.ClientError as error:
                raise AssertionError(f"{name} does not answer: {list(program.log)[-10:]}") from error
            if name != "detector":
                polls += 1
                worst = max(worst, abs(unaccounted(last[name])))
    warm_s = min(600.0, seconds / 4)
    return {
        "seconds": round(time.monotonic() - start_s, 1),
        "warm_up_s": warm_s,
        "polls": polls,
        "most_frames_unaccounted_for": worst,
        "processes": {name: each.describe(warm_s) for name, each in series.items()},
        "resident_mb": {
            name: each.resident_mb[:: max(1, round(60 / SAMPLE_S))] for name, each in series.items()
        },
        "cameras": {name: _account(metrics) for name, metrics in last.items() if name != "detector"},
    }


def _account(metrics: Metrics) -> dict[str, Any]:
    prefix = "splitcast_camera"
    return {
        "captured": total(metrics, f"{prefix}_frames_captured_total"),
        "detected": total(metrics, f"{prefix}_frames_detected_total"),
        "dropped": total(metrics, f"{prefix}_frames_dropped_total"),
        "reconnects": {
            peer: total(metrics, f"{prefix}_reconnects_total", peer=peer) for peer in ("source", "detector")
        },
    }


def _struck(proxies: Any) -> dict[str, int]:
    struck: Counter[str] = Counter()
    for proxy in proxies:
        for record in proxy.report.faults:
            struck[record.text] += record.switched_on
    return dict(struck)


# --- reconnects ---


async def session_reconnects(count: int) -> dict[str, Any]:
    """Figures of so many connections that are reset once a frame was answered."""
    async with AsyncExitStack() as stack:
        detector = detector_program()
        await stack.enter_async_context(running(detector))
        await detector.until_logged("ready")
        proxy = await stack.enter_async_context(chaos_proxy(Address("127.0.0.1", detector.metrics_port)))
        camera = camera_program("demo:scene=bus,fps=30,size=96x64", proxy.url, "cycling")
        await stack.enter_async_context(running(camera))
        await camera.until_logged("streaming")  # kernels may have to be compiled before

        async def cycle() -> None:
            messages = proxy.report.passed["down"].messages
            acks = messages["binary"]
            await _until(lambda: messages["binary"] > acks)
            proxy.begin("reset")

        return await _cycles("sessions", count, cycle, {"camera": camera, "detector": detector})


async def source_reconnects(count: int) -> dict[str, Any]:
    """Figures of so many losses of a camera that sends a few pictures each time."""
    async with AsyncExitStack() as stack:
        detector = detector_program()
        await stack.enter_async_context(running(detector))
        await detector.until_logged("ready")
        source = HttpCamera()
        await source.start()
        stack.push_async_callback(source.stop)
        camera = camera_program(source.url, f"ws://127.0.0.1:{detector.metrics_port}", "cycling")
        await stack.enter_async_context(running(camera))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await camera.until_logged("streaming")

        async def detected() -> float:
            return total(await camera.metrics(session), "splitcast_camera_frames_detected_total")

        async def cycle() -> None:
            before = await detected()
            async with asyncio.timeout(PATIENCE_S):
                while await detected() < before + 2:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0.05)
            await source.stop()
            await source.start()

        return await _cycles("sources", count, cycle, {"camera": camera, "detector": detector})


async def _cycles(
    what: str, count: int, cycle: Callable[[], Awaitable[None]], programs: dict[str, Program]
) -> dict[str, Any]:
    series = {name: Series() for name in programs}
    start_s, warm_up = time.monotonic(), min(WARM_UP_RECONNECTS, count)
    progress = Progress(what, start_s)
    for number in range(-warm_up, count + 1):
        await cycle()
        progress.tell(f"{number + warm_up} of {count + warm_up} lost and found", time.monotonic())
        if number >= 0 and number % max(1, count // 20) == 0:
            for name, program in programs.items():
                series[name].sample(program.pid, time.monotonic() - start_s)
    return {
        "cycles": count,
        "warm_up_cycles": warm_up,
        "seconds": round(time.monotonic() - start_s, 1),
        "processes": {
            name: {
                "growth_mb": round(each.resident_mb[-1] - each.resident_mb[0], 3),
                "anonymous_growth_mb": round(each.anonymous_mb[-1] - each.anonymous_mb[0], 3),
                "resident_mb": each.resident_mb,
                "descriptors": _range(each.descriptors),
                "threads": _range(each.threads),
            }
            for name, each in series.items()
        },
    }


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.005)


# --- what is kept, and the page ---


def broken(figures: dict[str, Any]) -> list[str]:
    """The bounds that are not kept, in words."""
    words = []
    soaked = figures.get("soak")
    if soaked:
        if soaked["most_frames_unaccounted_for"]:
            words.append(f"{soaked['most_frames_unaccounted_for']:g} frames were not accounted for")
        for name, process in soaked["processes"].items():
            slope = process["mb_per_hour"]
            if slope >= MOST_MB_PER_HOUR:
                words.append(f"{name} grows by {slope:g} MB/h")
    for kind in ("session_reconnects", "source_reconnects"):
        for name, process in figures.get(kind, {}).get("processes", {}).items():
            if process["growth_mb"] >= MOST_MB_OF_RECONNECTS:
                words.append(
                    f"{name} grew by {process['growth_mb']:g} MB in {figures[kind]['cycles']} {kind}"
                )
    return words


def page(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Left alone",
        "",
        f"Made by `make soak` from {figures['commit']} on {figures['machine']}, Python {figures['python']}. "
        "All figures: [soak.json](soak.json).",
    ]
    if soaked := figures.get("soak"):
        lines += _soak_lines(soaked)
    for kind, title in (("session_reconnects", "sessions"), ("source_reconnects", "sources")):
        if cycles := figures.get(kind):
            lines += _cycle_lines(cycles, title)
    words = broken(figures)
    lines += ["", f"Not kept: {'; '.join(words)}." if words else "Every bound is kept."]
    return "\n".join(lines) + "\n"


def _soak_lines(soaked: dict[str, Any]) -> list[str]:
    faults = sorted(soaked["source_faults"].items())
    told = sorted(soaked["consumer"]["messages"].items())
    return [
        "",
        f"## {soaked['seconds'] / 60:.0f} minutes among random faults",
        "",
        f"Resident memory after {soaked['warm_up_s'] / 60:.0f} minutes of warm-up, by least squares; the bound is "
        f"{MOST_MB_PER_HOUR:g} MB/h. Every camera was polled every {SAMPLE_S:g} s: captured = detected + dropped + "
        f"in flight was off by at most {soaked['most_frames_unaccounted_for']:g} frames in {soaked['polls']} polls.",
        "",
        *_table(
            (
                "process",
                "MB/h",
                "without libraries",
                "first third, MB",
                "last third, MB",
                "descriptors",
                "threads",
            ),
            (
                (
                    name,
                    process["mb_per_hour"],
                    process["anonymous_mb_per_hour"],
                    process["mb_first_third"],
                    process["mb_last_third"],
                    _words(process["descriptors"]),
                    _words(process["threads"]),
                )
                for name, process in soaked["processes"].items()
            ),
        ),
        "",
        *_table(
            ("", "captured", "detected", "dropped", "source came back", "detector came back"),
            (
                (
                    name,
                    *(camera[what] for what in ("captured", "detected", "dropped")),
                    *camera["reconnects"].values(),
                )
                for name, camera in soaked["cameras"].items()
            ),
        ),
        "",
        f"Faults: {sum(soaked['link_faults'].values())} on links, of {len(soaked['link_faults'])} kinds; on the RTSP "
        f"server {', '.join(f'{count} {what}' for what, count in faults) or 'none'}. The consumer, behind the same "
        f"faults, connected {soaked['consumer']['connections']} times and was told "
        f"{', '.join(f'{count} {kind}' for kind, count in told) or 'nothing'}.",
    ]


def _cycle_lines(cycles: dict[str, Any], title: str) -> list[str]:
    return [
        "",
        f"## {cycles['cycles']} {title} lost and found",
        "",
        f"After {cycles['warm_up_cycles']} to warm up, in {cycles['seconds'] / 60:.0f} minutes. The bound is "
        f"{MOST_MB_OF_RECONNECTS:g} MB.",
        "",
        *_table(
            ("process", "growth, MB", "without libraries", "descriptors", "threads"),
            (
                (
                    name,
                    process["growth_mb"],
                    process["anonymous_growth_mb"],
                    _words(process["descriptors"]),
                    _words(process["threads"]),
                )
                for name, process in cycles["processes"].items()
            ),
        ),
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _words(ends: list[int]) -> str:
    return " to ".join(map(str, dict.fromkeys(ends)))


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures that were asked for; the phases run side by side, each with its own services."""
    phases: dict[str, Coroutine[Any, Any, dict[str, Any]]] = {}
    if arguments.minutes:
        phases["soak"] = soak(arguments.minutes, arguments.seed)
    if arguments.sessions:
        phases["session_reconnects"] = session_reconnects(arguments.sessions)
    if arguments.sources:
        phases["source_reconnects"] = source_reconnects(arguments.sources)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # else programs would be left
    async with asyncio.TaskGroup() as group:  # one that fails ends the others
        tasks = {name: group.create_task(phase) for name, phase in phases.items()}
    return {name: task.result() for name, task in tasks.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="of random faults; 0: none")
    parser.add_argument("--sessions", type=int, default=1000, help="sessions lost and found; 0: none")
    parser.add_argument("--sources", type=int, default=1000, help="sources lost and found; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; a page of the same name goes beside it"
    )
    arguments = parser.parse_args()
    configure_logs(LogSettings("text", "error"))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    figures = {
        "commit": commit or "an unknown commit",
        "version": VERSION,
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "python": platform.python_version(),
        "bounds": {"mb_per_hour": MOST_MB_PER_HOUR, "mb_of_reconnects": MOST_MB_OF_RECONNECTS},
        **asyncio.run(run(arguments)),
    }
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(figures))
    print(page(figures))
    return 1 if broken(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
