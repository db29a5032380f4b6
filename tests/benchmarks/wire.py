"""What a live camera costs on the wire where nothing happens: bytes a frame above TCP, both ways.

    python -m tests.benchmarks.wire yolov5n.pt [--fps 15] [--frames 200]

Detector and camera of this process, a WebSocket over loopback, a grey picture of 640x480 that is repeated: packets and
acks with their WebSocket frames, reports, pings and pongs. The first frames are left out, and with them handshake and
keyframe. Bytes of packets are the same in every run; reports and pings come by the second, so a slow machine has more.
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.detector.service import Detector
from services.detector.settings import DetectorSettings
from tests.services.wire import WireCost, measure_wire, write_still

QUALITIES = (3, 6)


async def measure(options: Namespace, quality: int) -> WireCost:
    """The cost at one quality."""
    detector = Detector(
        DetectorSettings.load({"port": 0, "model": str(options.weights), "host": "127.0.0.1"})
    )
    serving = asyncio.ensure_future(detector.run())
    await detector.ready.wait()
    with TemporaryDirectory() as folder:
        grey = np.full((480, 640, 3), 114, np.uint8)
        still = write_still(Path(folder) / "still.avi", grey, options.fps, 20 * options.fps)
        settings = {
            "source": str(still), "detector": f"ws://127.0.0.1:{await detector.port}", "model": str(options.weights),
            "codec": f"feature:quality={quality}", "realtime": True, "loop": True, "stream": "still", "metrics_port": 0,
        }  # fmt: skip
        camera = Camera(CameraSettings.load(settings))
        playing = asyncio.ensure_future(camera.run())
        cost = await measure_wire(camera, options.frames)
        camera.stop()
        await playing
    detector.stop()
    await serving
    return cost


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.wire", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--frames", type=int, default=200, help="fewer than the keyframe interval of 250")
    options = parser.parse_args()
    table = Table(
        "quality", "frames/s", "packet", "camera to detector", "detector to camera", title="bytes a frame"
    )
    for quality in QUALITIES:
        cost = asyncio.run(measure(options, quality))
        table.add_row(
            str(quality),
            f"{cost.frames / cost.seconds:.1f}",
            f"{cost.packet_bytes / cost.packets:.1f}",
            f"{cost.sent_per_frame:.1f}",
            f"{cost.received_per_frame:.1f}",
        )
    Console(markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
