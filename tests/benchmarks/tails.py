"""Frames a second by threads, under more than they can serve; run it as a module, by hand.

    python -m tests.benchmarks.tails [--tails 1,2] [--streams 8,16] [--rounds 3] [--seconds 10] [--model demo]

Each round starts a detector for each number of threads in turn, and sends it recorded packets from so many streams,
faster than it can answer. Prints a line of JSON for each measurement, and the medians' ratios to the first number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from statistics import median

from services.bench.bare import bare_cost
from services.bench.load import Door, measure
from services.bench.recording import record_packets
from services.bench.settings import BenchLoadSettings
from services.commands.loopback import local_detector
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, find_network


async def compare(options: argparse.Namespace) -> None:
    settings = BenchLoadSettings.load(
        {"model": options.model, "fps": options.rate, "seconds": options.seconds, "warm_up_s": 2}
    )
    network = LoadedModel(options.model, find_network(options.model))
    recorded = record_packets(settings, network)
    bare = bare_cost(network, recorded)
    rates: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for streams in options.streams:
            for tails in options.tails:
                detector = DetectorSettings.load(
                    {"port": 0, "model": options.model, "device": "cpu", "tails": tails, "log_level": "error"}
                )
                async with local_detector(detector) as url:
                    figures = await measure(settings, recorded, bare, [Door(url)], streams)
                rates[streams, tails].append(figures.detected_fps)
                record = {
                    "streams": streams,
                    "tails": tails,
                    "frames_per_second": round(figures.detected_fps, 1),
                    "busy_cores": round(figures.busy_cores, 2),
                    "generator_cores": round(figures.generator_cores, 2),
                    "cpu_ms": round(figures.cpu_ms, 2),
                    "fairness": round(figures.fairness, 4),
                }
                print(json.dumps(record), flush=True)
    for streams in options.streams:
        first = median(rates[streams, options.tails[0]])
        for tails in options.tails[1:]:
            ratio = median(rates[streams, tails]) / first
            print(f"{streams} streams: {tails} threads {ratio:.2f} times {options.tails[0]}")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tails", type=numbers, default=[1, 2])
    parser.add_argument("--streams", type=numbers, default=[8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=30, help="frames a second that each camera captures")
    parser.add_argument("--model", default="demo")
    asyncio.run(compare(parser.parse_args()))


if __name__ == "__main__":
    main()
