"""What one camera has beside sixteen that take all they can get; run it as a module, by hand.

    python -m tests.benchmarks.greedy [--greedy 16] [--canvas 640] [--split 0] [--seconds 20] [--rate 5] [--tails auto]

The greedy ones send noise, of which the network makes thousands of candidates, on a large canvas, from an early split,
as fast as they are answered. Prints a line of JSON for the camera alone, and one beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np

from codec.packet import Stamp
from codec.spec import parse_codec
from services.bench.detector_sample import sample
from services.bench.recording import RecordedPackets, record_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import DETECTED, SimulatedCamera
from services.commands.loopback import local_detector
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, find_network
from stream.tasks.background import run_with_background

WARM_UP_S = 3.0


def make_noise(honest: RecordedPackets, network: LoadedModel, split: str, side: int) -> RecordedPackets:
    canvas = (side, side)
    layout = network.model.cut(split).layout(canvas)
    codec = parse_codec("rle:bits=2")
    random = np.random.default_rng(0)
    tensors = {spec.name: 9 * random.standard_normal(spec.shape, np.float32) for spec in layout}
    packet = codec.encoder(layout).encode(tensors, Stamp(0, 0, *canvas)).data
    return replace(
        honest, split=split, canvas=canvas, layout=layout, codec=codec, frame_size=canvas, packets=(packet,)
    )


async def attack(options: argparse.Namespace) -> None:
    """Be the greedy ones, in a process of their own, until it is ended."""
    settings = BenchLoadSettings.load({"model": options.model, "frames": 1})
    network = LoadedModel(options.model, find_network(options.model))
    noise = make_noise(record_packets(settings, network), network, options.split, options.canvas)
    stopping = asyncio.Event()
    cameras = [
        SimulatedCamera(noise, f"greedy{number}", f"{number + 1:032x}", window=8, interval_s=0.02)
        for number in range(options.greedy)
    ]

    async def tell() -> None:
        for camera in cameras:
            await camera.welcomed.wait()
        print("all there", flush=True)
        await stopping.wait()

    await run_with_background(tell(), *(camera.run(options.attack, 0.0, stopping) for camera in cameras))


@asynccontextmanager
async def attacked(url: str, options: argparse.Namespace) -> AsyncIterator[None]:
    flags = {"attack": url, "greedy": options.greedy, "canvas": options.canvas, "split": options.split}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.benchmarks.greedy", "--model", options.model, *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        assert await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def measure(honest: RecordedPackets, url: str, options: argparse.Namespace) -> dict[str, object]:
    stopping = asyncio.Event()
    camera = SimulatedCamera(honest, "honest", f"{0:032x}", window=3, interval_s=1 / options.rate)

    async def watch() -> dict[str, object]:
        await camera.welcomed.wait()
        await asyncio.sleep(WARM_UP_S)
        first, before = len(camera.frames), await sample(url)
        await asyncio.sleep(options.seconds)
        frames, after = camera.frames[first:-1], await sample(url)
        detected = [frame for frame in frames if frame.outcome == DETECTED]
        p50, p99 = np.percentile([frame.latency_ns / 1e6 for frame in detected], [50, 99])
        stopping.set()
        await camera.over.wait()
        return {
            "frames": len(frames),
            "detected": len(detected),
            "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1),
            "detected_of_all": round(after.frames - before.frames),
            "resident_mb": round(after.resident_bytes / 1e6),
            "cpu_s": round(after.cpu_s - before.cpu_s, 1),
        }

    return await run_with_background(watch(), camera.run(url, 0.0, stopping))


async def compare(options: argparse.Namespace) -> None:
    settings = BenchLoadSettings.load({"model": options.model, "fps": options.rate})
    honest = record_packets(settings, LoadedModel(options.model, find_network(options.model)))
    detector = DetectorSettings.load(
        {"port": 0, "model": options.model, "device": "cpu", "tails": options.tails, "log_level": "error"}
    )
    async with local_detector(detector) as url:
        print(json.dumps({"greedy": 0, **await measure(honest, url, options)}), flush=True)
        async with attacked(url, options):
            print(json.dumps({"greedy": options.greedy, **await measure(honest, url, options)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--greedy", type=int, default=16)
    parser.add_argument("--canvas", type=int, default=640)
    parser.add_argument("--split", default="0")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--tails", default="auto")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--attack", metavar="URL", help="only be the greedy ones")
    options = parser.parse_args()
    asyncio.run(attack(options) if options.attack else compare(options))


if __name__ == "__main__":
    main()
