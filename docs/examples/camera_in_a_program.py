"""Run a camera inside a program of your own: python camera_in_a_program.py ws://127.0.0.1:8765

It streams five seconds of the virtual camera to a detector that runs `splitcast detector --model demo`.
"""

import asyncio
import sys

from services.camera.service import Camera
from services.camera.settings import CameraSettings


async def main(detector: str) -> None:
    settings = CameraSettings.load(
        {
            "model": "demo",
            "source": "demo:scene=bus,fps=15",
            "detector": detector,
            "stream": "example",
            "frames": 75,
        }
    )
    camera = Camera(settings)
    running = asyncio.create_task(camera.run())
    while not running.done():
        await asyncio.wait([running], timeout=1)
        counts = camera.statistics.frame_counts
        print(f"{counts.captured} captured, {counts.detected} detected, {counts.dropped_total} dropped")
    await running  # raises what went wrong


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8765"))
