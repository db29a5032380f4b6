"""How soon a camera is back after an outage, over many tries: the 50th and the 99th percentile.

    python -m tests.faults.returns --tries 50 --outage-s 3 --out returns.json

- source: from the opening of a camera's port to the first detections of a frame captured after it
- link: from the moment the link passes connections again to the session; until then it resets each
- black-hole: the same, of a link that swallowed all
- detector: from a restarted detector's readiness to the session

Outages of minutes and more are tested by clocks of the tests' own (tests/services/camera/test_reconnection.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from services.chaos.settings import Address
from services.logs import LogSettings, configure_logs
from tests.faults.cameras import PictureCamera
from tests.faults.harness import CONFIDENCE, MOVING, Rig, detecting, rig
from tests.faults.programs import detector_program, running
from tests.services.waiting import until

BOUNDS_S = {"source": 2.0, "link": 1.0, "black-hole": 1.0, "detector": 1.0}  # of the 99th percentile


async def source_returns(tries: int, outage_s: float) -> list[float]:
    """Seconds from a camera's open port to detections."""
    camera, seconds = PictureCamera(), list[float]()
    await camera.start()
    try:
        async with detecting() as detector, rig(detector, camera.url, checked=False) as one:
            for _ in range(tries):
                await one.until_fresh(time.monotonic())
                await camera.stop()
                await asyncio.sleep(outage_s)
                await camera.start()
                opened_s = time.monotonic()
                seconds.append(await one.until_fresh(opened_s) - opened_s)
    finally:
        await camera.stop()
    return seconds


async def link_returns(
    tries: int,
    outage_s: float,
    fault: str = "reset:duration=3600",  # whoever connects gets one, until it is ended
) -> list[float]:
    """Seconds from a link that passes again to a session."""
    seconds = []
    async with detecting() as detector, rig(detector, MOVING, checked=False) as one:
        for _ in range(tries):
            await one.until_fresh(time.monotonic())
            cut = one.proxy.begin(fault)
            await until(lambda: not is_connected(one))
            await asyncio.sleep(outage_s)
            one.proxy.end(cut)
            seconds.append(await until_session(one))
    return seconds


async def detector_returns(tries: int, outage_s: float) -> list[float]:
    """Seconds from a restarted detector's readiness to a session."""
    seconds = []
    program = detector_program("--confidence", str(CONFIDENCE))
    async with running(program):
        await program.until_logged("ready")
        async with rig(Address("127.0.0.1", program.metrics_port), MOVING, checked=False) as one:
            for number in range(tries):
                await one.until_fresh(time.monotonic())
                await program.kill()
                await until(lambda: not is_connected(one))
                await asyncio.sleep(outage_s)
                await program.start()
                await program.until_logged("ready", number + 2)
                seconds.append(await until_session(one))
    return seconds


def is_connected(one: Rig) -> bool:
    return one.camera.statistics.connected["detector"]


async def until_session(one: Rig) -> float:
    """Seconds from now to a session."""
    since_s = time.monotonic()
    await until(lambda: is_connected(one))
    return time.monotonic() - since_s


KINDS: dict[str, Callable[[int, float], Awaitable[list[float]]]] = {
    "source": source_returns,
    "link": link_returns,
    "black-hole": partial(link_returns, fault="blackhole:duration=3600"),
    "detector": detector_returns,
}


def summary(seconds: list[float], bound_s: float) -> dict[str, Any]:
    """What is written of one kind; the percentiles are of tries that were made, not between two."""
    p50, p99 = (float(np.percentile(seconds, share, method="higher")) for share in (50, 99))
    return {
        "tries": len(seconds),
        "p50_s": round(p50, 3),
        "p99_s": round(p99, 3),
        "most_s": round(max(seconds), 3),
        "bound_s": bound_s,
        "kept": p99 <= bound_s,
    }


async def measure(kinds: list[str], tries: int, outage_s: float) -> dict[str, Any]:
    """One kind after the other: beside one another they would take each other's time."""
    return {kind: summary(await KINDS[kind](tries, outage_s), BOUNDS_S[kind]) for kind in kinds}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tries", type=int, default=50, help="of each kind")
    parser.add_argument("--outage-s", type=float, default=3.0)
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help="may be repeated; all by default"
    )
    parser.add_argument("--out", type=Path, help="JSON file; else it is printed alone")
    arguments = parser.parse_args(words)
    configure_logs(LogSettings("text", "error"))
    kinds = asyncio.run(measure(arguments.kind or list(KINDS), arguments.tries, arguments.outage_s))
    machine = f"{os.cpu_count()} {platform.machine()} cores"
    text = json.dumps({"outage_s": arguments.outage_s, "machine": machine, **kinds}, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text)
    return 0 if all(kind["kept"] for kind in kinds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
