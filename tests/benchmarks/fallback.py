"""What a camera does without its detector: a detector is killed for a minute, and comes back.

    python -m tests.benchmarks.fallback yolov5n.pt pedestrians.mp4 [--seconds 60]

Detector and camera are programs of their own, and the clip is played at its own rate. First a camera without --fallback
tells what it takes; then one with it, before the outage, in it and after it. Memory is what no file backs (RssAnon).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.faults.programs import Metrics, Program, detector_program, running, total, unaccounted, usage
from tests.ports import free_port

STREAM = f"fallback-{os.getpid()}"  # another camera of that name would keep it from coming back at once
STEADY_S = 15.0  # for caches to fill, and for a rate


@dataclass(frozen=True)
class Stretch:
    """A part of the run."""

    name: str
    split_fps: float
    local_fps: float
    camera_cores: float
    camera_mib: float


def camera_program(options: Namespace, url: str, *flags: str) -> Program:
    port = free_port()
    return Program(
        "camera", port, "--source", str(options.clip), "--realtime", "--loop", "--detector", url, "--stream", STREAM,
        "--model", str(options.weights), "--metrics-port", str(port), "--metrics", "full", *flags,
    )  # fmt: skip


def frames(metrics: Metrics, where: str = "") -> float:
    return total(metrics, f"splitcast_camera_frames_detected{where}_total")


async def watch(name: str, camera: Program, session: aiohttp.ClientSession, seconds: float) -> Stretch:
    began, before = time.monotonic(), await camera.metrics(session)
    await asyncio.sleep(seconds)
    after, took = await camera.metrics(session), time.monotonic() - began
    assert not unaccounted(after)
    cpu = "process_cpu_seconds_total"
    return Stretch(
        name,
        (frames(after) - frames(before)) / took,
        (frames(after, "_locally") - frames(before, "_locally")) / took,
        (total(after, cpu) - total(before, cpu)) / took,
        usage(camera.pid).anonymous_bytes / 2**20,
    )


async def kept(camera: Program, session: aiohttp.ClientSession) -> list[dict]:
    count = round(total(await camera.metrics(session), "splitcast_camera_fallback_kept_messages"))
    url = f"http://127.0.0.1:{camera.metrics_port}/v1/detections?types=detections&since=0"
    async with session.ws_connect(url) as consumer:
        return [json.loads(await consumer.receive_str()) for _ in range(count)]


async def until_streaming(camera: Program, session: aiohttp.ClientSession, more: float = 20) -> None:
    await camera.until_serving(session)
    enough = frames(await camera.metrics(session)) + more
    while frames(await camera.metrics(session)) < enough:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.1)


async def measure(options: Namespace) -> None:
    detector = detector_program("--model", str(options.weights))
    url = f"ws://127.0.0.1:{detector.metrics_port}"
    stretches = []
    async with running(detector), aiohttp.ClientSession() as session:
        async with running(camera := camera_program(options, url)):
            await until_streaming(camera, session)
            stretches.append(await watch("without --fallback", camera, session, STEADY_S))
        flags = ("--fallback", "local", "--fallback-after-s", str(options.after))
        async with running(camera := camera_program(options, url, *flags)):
            await until_streaming(camera, session)
            stretches.append(await watch("split", camera, session, STEADY_S))
            killed_at = time.time()
            detector.send(signal.SIGKILL)
            await detector.ended()
            stretches.append(await watch("no detector", camera, session, options.seconds))
            back_at = time.time()
            await detector.start()
            await until_streaming(camera, session)
            messages = [
                message for message in await kept(camera, session) if message["captured_at"] > killed_at
            ]
            stretches.append(await watch("split again", camera, session, STEADY_S))
            drops = {
                "/".join(value for _, value in sorted(labels, reverse=True)): round(count)
                for (name, labels), count in (await camera.metrics(session)).items()
                if name == "splitcast_camera_frames_dropped_total" and count
            }
    seconds = {math.floor(message["captured_at"] - killed_at) for message in messages}
    whole = range(int(options.seconds))
    print(f"{'':20} {'split/s':>8} {'local/s':>8} {'cores':>6} {'MiB':>6}")
    for part in stretches:
        print(
            f"{part.name:20} {part.split_fps:8.1f} {part.local_fps:8.1f} "
            f"{part.camera_cores:6.2f} {part.camera_mib:6.0f}"
        )
    print(
        f"seconds with detections: {len(seconds & set(whole))} of {len(whole)}; without: {set(whole) - seconds}"
    )
    size = sum(len(json.dumps(message, separators=(",", ":"))) for message in messages)
    print(f"{len(messages)} messages kept, {size / 1e3:.0f} kB")
    print(f"first {messages[0]['captured_at'] - killed_at:.2f} s after the end of the detector")
    print(f"last {messages[-1]['captured_at'] - back_at:.2f} s after it was started again")
    print(f"dropped: {drops}")


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.fallback", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="that the detector is away")
    parser.add_argument("--after", type=float, default=0.5, help="--fallback-after-s")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
