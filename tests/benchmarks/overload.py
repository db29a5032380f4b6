"""How old detections are where more cameras send than a detector can serve; run it as a module, by hand.

    python -m tests.benchmarks.overload [--tree ANOTHER_CHECKOUT] [--streams 16] [--rate 5] [--seconds 30]

Starts a detector of that checkout, and replays one keyframe over every stream, as a live camera does that keeps the
newest frame: with a new time at every tick, within the window that it was allowed. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import zlib
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

import numpy as np

from codec.packet import Stamp
from codec.spec import parse_codec
from services.loading import find_model
from stream.errors import ConnectionLost
from stream.network.cut import layout
from stream.network.names import DEMO
from stream.session.camera import tensor_shapes
from stream.session.messages import FEATURES_PROTOCOL, REJECT_REASONS, Clock, Hello
from stream.tasks.background import run_with_background
from stream.transport.websocket import Link, connect
from tests.paths import ROOT

CANVAS = (384, 640)
CODEC = "rle:bits=4"
SEQUENCE, CAPTURED, CRC_BYTES = slice(12, 16), slice(16, 24), 4  # docs/bitstream.md


class ReplayedCamera:
    """One stream: its newest frame goes as soon as the window allows it."""

    def __init__(self, hello: Hello, packet: bytes, interval_s: float) -> None:
        self._hello, self._packet, self._interval_s = hello, bytearray(packet), interval_s
        self._window = self._sequence = 0
        self._sent_ns: deque[int] = deque()
        self._newest_ns: int | None = None
        self.delays_s: list[float] = []  # capture to acknowledgement
        self.frames: Counter[str] = Counter()

    async def run(self, url: str, seconds: float) -> None:
        async with connect(f"{url}/v1/features", FEATURES_PROTOCOL) as link:
            await link.send(self._hello.text())
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await run_with_background(self._receive(link), self._capture(link))

    async def _capture(self, link: Link) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self.frames["captured"] += 1
            self.frames["superseded"] += self._newest_ns is not None
            self._newest_ns = time.monotonic_ns()
            await self._send(link)

    async def _send(self, link: Link) -> None:
        if self._newest_ns is None or len(self._sent_ns) >= self._window:
            return
        captured_ns, self._newest_ns = self._newest_ns, None
        self._sent_ns.append(captured_ns)
        packet = self._packet
        packet[SEQUENCE] = self._sequence.to_bytes(4, "big")
        packet[CAPTURED] = captured_ns.to_bytes(8, "big")
        packet[-CRC_BYTES:] = zlib.crc32(packet[:-CRC_BYTES]).to_bytes(CRC_BYTES, "big")
        self._sequence += 1
        await link.send(bytes(packet))

    async def _receive(self, link: Link) -> None:
        async for text in link:
            message = json.loads(text)
            match message["type"]:
                case "welcome" | "window":
                    self._window = message["window"]
                case "ack":
                    self.frames["detected"] += 1
                    self.delays_s.append((time.monotonic_ns() - self._sent_ns.popleft()) / 1e9)
                case "reject":
                    self.frames[message["reason"]] += 1
                    self._sent_ns.popleft()
            await self._send(link)


def make_cameras(streams: int, rate: float) -> list[ReplayedCamera]:
    model = find_model(DEMO)
    tensors = layout(model.graph, "4.m", CANVAS)
    numbers = np.random.default_rng(0)
    values = {spec.name: numbers.normal(size=spec.shape).astype(np.float32) for spec in tensors}
    packet = parse_codec(CODEC).encoder(tensors).encode(values, Stamp(0, 0, *CANVAS)).data
    hellos = [
        Hello(
            stream=f"door{number}",
            model=DEMO,
            weights=model.weights_hash,
            split="4.m",
            canvas=CANVAS,
            tensors=tensor_shapes(tensors),
            codec=CODEC,
            clock=Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
            reject_reasons=REJECT_REASONS,
            session=f"{number:032x}",
            live=True,
        )
        for number in range(streams)
    ]
    return [ReplayedCamera(hello, packet, 1 / rate) for hello in hellos]


async def start_detector(tree: Path) -> tuple[asyncio.subprocess.Process, str]:
    """A detector of that checkout that is ready, and its address."""
    command = (sys.executable, "-m", "services.cli", "detector", "--model", DEMO, "--port", "0")
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    detector = await asyncio.create_subprocess_exec(
        *command, cwd=tree, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert detector.stderr
    port = 0
    async for line in detector.stderr:
        with suppress(json.JSONDecodeError):
            record = json.loads(line)
            port = record.get("port", port)
            if record["event"] == "ready":
                break
    return detector, f"ws://127.0.0.1:{port}"


async def measure(tree: Path, streams: int, rate: float, seconds: float) -> dict[str, object]:
    cameras = make_cameras(streams, rate)
    detector, url = await start_detector(tree)
    reading = asyncio.ensure_future(detector.stderr.read())  # so that it is never held up by its log
    try:
        await asyncio.gather(*(camera.run(url, seconds) for camera in cameras))
    except ConnectionLost as lost:
        raise SystemExit(f"the detector left: {lost}") from None
    finally:
        detector.terminate()
        await detector.wait()
        await reading
    delays = sorted(delay for camera in cameras for delay in camera.delays_s[len(camera.delays_s) // 4 :])
    return {
        "streams": streams,
        "frames_per_second": rate,
        "detected_per_second": round(sum(camera.frames["detected"] for camera in cameras) / seconds, 1),
        "least_detected_of_a_stream": min(camera.frames["detected"] for camera in cameras),
        "most_detected_of_a_stream": max(camera.frames["detected"] for camera in cameras),
        "delay_s": {
            "p50": round(statistics.median(delays), 3),
            "p95": round(delays[round(len(delays) * 0.95)], 3),
        },
        "frames": dict(sum((camera.frames for camera in cameras), Counter())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.tree, options.streams, options.rate, options.seconds))))


if __name__ == "__main__":
    main()
