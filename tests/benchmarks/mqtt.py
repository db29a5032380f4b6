"""What publishing to a real mosquitto costs a detector, and how much later than over WebSocket a detection comes.

    python -m tests.benchmarks.mqtt [--rounds 4] [--seconds 10]

Two detectors run, one with `--mqtt`, and are loaded in turn by simulated cameras that ask for more than they can do;
both have a consumer over WebSocket, so that both make their texts. CPU seconds are of the detector's process. Delays
are measured with two cameras of five frames a second: the same message's way over MQTT, with the broker, and over
WebSocket, to one process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles

import aiohttp

from services.detections_address import detections_url
from services.mqtt.broker import Broker, BrokerAddress
from services.mqtt.reader import broker_messages
from stream.errors import ConnectionLost
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.transport.websocket import connect
from tests.faults.programs import Metrics, Program, detector_program, running, total
from tests.mosquitto import Mosquitto, mosquitto

BUSY = ("8", "20")  # cameras, frames a second of each
LIGHT = ("2", "5")
OWN = ("--drain-s", "1", "--reserve-s", "0")  # cameras are ended, and others come under their names

Arrivals = dict[tuple[str, int, int], float]  # by stream, connection and frame, in seconds


def note(text: str, arrivals: Arrivals) -> None:
    message = json.loads(text)
    arrivals[message["stream"], message["connection"], message["frame"]] = time.perf_counter()


@asynccontextmanager
async def websocket_consumer(port: int) -> AsyncIterator[Arrivals]:
    arrivals: Arrivals = {}

    async def consume() -> None:
        with suppress(ConnectionLost):
            address = detections_url(f"ws://127.0.0.1:{port}", types="detections")
            async with connect(address, DETECTIONS_PROTOCOL) as link:
                async for text in link:
                    assert isinstance(text, str)
                    note(text, arrivals)

    task = asyncio.ensure_future(consume())
    try:
        yield arrivals
    finally:
        task.cancel()


@asynccontextmanager
async def mqtt_consumer(broker: Mosquitto) -> AsyncIterator[Arrivals]:
    arrivals: Arrivals = {}

    async def consume() -> None:
        async for text in broker_messages(
            Broker(BrokerAddress.parse(broker.url)), "splitcast", types=["detections"]
        ):
            note(text, arrivals)

    task = asyncio.ensure_future(consume())
    try:
        await asyncio.sleep(0.5)
        yield arrivals
    finally:
        task.cancel()


async def load(port: int, cameras: tuple[str, str], seconds: int) -> None:
    streams, fps = cameras
    flags = ["--streams", streams, "--fps", fps, "--seconds", str(seconds), "--frames", "20"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "bench", "load", "--detector", f"ws://127.0.0.1:{port}"),
        *flags,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


def spent(before: Metrics, after: Metrics, name: str) -> float:
    return total(after, name) - total(before, name)


async def cost(detector: Program, seconds: int) -> tuple[float, float]:
    """Frames a second while it is busy, and milliseconds of CPU a frame."""
    async with aiohttp.ClientSession() as session, websocket_consumer(detector.metrics_port):
        loading = asyncio.ensure_future(load(detector.metrics_port, BUSY, seconds + 60))
        before = await detector.metrics(session)
        while spent(before, await detector.metrics(session), "splitcast_detector_frames_detected_total") < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await asyncio.sleep(3.0)
        before, began_s = await detector.metrics(session), time.perf_counter()
        await asyncio.sleep(seconds)
        after, took_s = await detector.metrics(session), time.perf_counter() - began_s
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
    frames = spent(before, after, "splitcast_detector_frames_detected_total")
    return frames / took_s, 1e3 * spent(before, after, "process_cpu_seconds_total") / frames


def percentiles(values_ms: list[float]) -> str:
    cuts = quantiles(values_ms, n=100)
    return f"p50 {median(values_ms):.2f} ms, p99 {cuts[98]:.2f} ms, of {len(values_ms)}"


async def measure(rounds: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with mosquitto(Path(folder)) as broker:
            plain = detector_program(*OWN)
            publishing = detector_program(*OWN, "--mqtt", broker.url)
            async with running(plain, publishing):
                await asyncio.gather(plain.until_logged("ready"), publishing.until_logged("ready"))
                costs: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
                for _ in range(rounds):
                    for name, detector in (("without", plain), ("with", publishing)):
                        costs[name].append(await cost(detector, seconds))
                        rate, cpu_ms = costs[name][-1]
                        print(f"{name:8} {rate:6.1f} frames/s, {cpu_ms:6.2f} ms of CPU a frame", flush=True)
                for name, values in costs.items():
                    rate, cpu_ms = (median(column) for column in zip(*values, strict=True))
                    print(f"median {name}: {rate:.1f} frames/s, {cpu_ms:.2f} ms of CPU a frame")
                async with (
                    websocket_consumer(publishing.metrics_port) as over_websocket,
                    mqtt_consumer(broker) as over_mqtt,
                ):
                    await load(publishing.metrics_port, LIGHT, 60)
                both = over_websocket.keys() & over_mqtt.keys()
                print(
                    "later than over WebSocket:",
                    percentiles([1e3 * (over_mqtt[key] - over_websocket[key]) for key in both]),
                )
                print(f"{len(over_websocket)} over WebSocket, {len(over_mqtt)} over MQTT")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args()
    asyncio.run(measure(given.rounds, given.seconds))


if __name__ == "__main__":
    main()
