"""What packets that come late cost the live stream: latency beside them, and for as long after them.

    python -m tests.benchmarks.late [--outage 7] [--rounds 2]

Detector and camera (`--record-when disconnected`, the demo's network at 384x640, 10 frames/s) are programs of their
own. The detector is killed and started again; what was kept is sent while live frames go on.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace

import aiohttp
import numpy as np

from stream.late_name import late_name
from tests.faults.harness import Consumer
from tests.faults.programs import Program, camera_program, detector_program, running, total

STREAM = f"late-{os.getpid()}"  # another camera of that name would keep it from coming back at once
SOURCE = "demo:scene=bus,fps=10,size=640x384"
SETTLE_S = 3.0  # from the last late packet on
PERCENTILES = 50, 95, 99
LIMIT_S = 600.0  # for each round


async def until_sent(camera: Program, session: aiohttp.ClientSession) -> None:
    while total(await camera.metrics(session), "splitcast_camera_late_waiting_packets"):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.1)


async def measure(options: Namespace) -> None:
    detector = detector_program()
    url = f"ws://127.0.0.1:{detector.metrics_port}"
    consumer = Consumer(url)

    def detected(stream: str) -> list[dict]:
        return [message for message in consumer.detections() if message["stream"] == stream]

    async def until_live(count: int) -> None:
        while len(detected(STREAM)) < count:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)

    spans = []
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            "--record",
            folder,
            "--record-when",
            "disconnected",
            "--size",
            "384x640",
            "--metrics",
            "full",
        )
        camera = camera_program(SOURCE, url, STREAM, *flags)
        async with running(detector, camera), aiohttp.ClientSession() as session:
            consuming = asyncio.ensure_future(consumer.run())
            await until_live(50)
            for _ in range(options.rounds):
                await detector.kill()
                await asyncio.sleep(options.outage)
                sent = len(detected(late_name(STREAM)))
                await detector.start()
                await until_live(len(detected(STREAM)) + 1)
                await until_sent(camera, session)
                times = [message["published_at"] for message in detected(late_name(STREAM))[sent:]]
                assert times, "nothing came late"
                spans.append((times[0], times[-1], len(times)))
                await asyncio.sleep(SETTLE_S + times[-1] - times[0])
            consuming.cancel()
    beside, after = [], []
    for message in detected(STREAM):
        at, ms = message["published_at"], 1e3 * (message["published_at"] - message["captured_at"])
        for first, last, _ in spans:
            if first <= at <= last:
                beside.append(ms)
            elif last + SETTLE_S <= at <= 2 * last + SETTLE_S - first:
                after.append(ms)
    late, lasted_s = sum(count for *_, count in spans), sum(last - first for first, last, _ in spans)
    print(f"{late} late packets, {late / lasted_s:.1f}/s, beside {len(beside) / lasted_s:.1f} live frames/s")
    for name, values in (("beside them", beside), ("after them", after)):
        figures = ", ".join(
            f"p{share} {value:.0f}"
            for share, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)
        )
        print(f"live latency {name}, ms: {figures} ({len(values)} frames)")


def main() -> None:
    parser = ArgumentParser(
        prog="python -m tests.benchmarks.late",
        description=__doc__,
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--outage", type=float, default=7.0, help="seconds that the detector is away, each time"
    )
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    asyncio.run(asyncio.wait_for(measure(options), LIMIT_S * options.rounds))


if __name__ == "__main__":
    main()
