"""What a live camera costs on the wire where nothing happens: bytes a frame above TCP, both ways.

    python -m tests.benchmarks.wire yolov5n.pt [--picture door.jpg] [--fps 15] [--frames 200]

Detector and camera of this process, a WebSocket over loopback, a picture that is repeated: packets and acks with their
WebSocket frames, reports, pings and pongs. The first frames are left out, so that the handshake and the keyframe are.
Bytes of packets are the same in every run; reports and pings are as many a second.
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
from stream.sources.files import Image, read_image
from tests.services.wire import WireCost, measure_wire, write_still

QUALITIES = (3, 6)


async def measure(options: Namespace, picture: Image, quality: int) -> WireCost:
    """The cost at one quality."""
    detector = Detector(
        DetectorSettings.load({"port": 0, "model": str(options.weights), "host": "127.0.0.1"})
    )
    serving = asyncio.ensure_future(detector.run())
    await detector.ready.wait()
    with TemporaryDirectory() as folder:
        still = write_still(Path(folder) / "still.avi", picture, options.fps, options.fps)
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
    parser.add_argument("--picture", type=Path, help="a grey picture of 640x480 where it is missing")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--frames", type=int, default=200, help="fewer than the keyframe interval of 250")
    options = parser.parse_args()
    picture = read_image(options.picture) if options.picture else np.full((480, 640, 3), 114, np.uint8)
    table = Table(
        "quality", "frames/s", "packet", "camera to detector", "detector to camera", title="bytes a frame"
    )
    for quality in QUALITIES:
        cost = asyncio.run(measure(options, picture, quality))
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
