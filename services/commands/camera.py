"""The camera as a program: it runs until its source ends or a signal stops it."""

from __future__ import annotations

import asyncio

from services.camera.metrics import serve_metrics
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.signals import run_until_stopped


def run_camera(settings: CameraSettings) -> None:
    """Stream until the source ends. Raises what `Camera.run` does, CannotListen for /metrics."""

    async def serve() -> None:
        camera = Camera(settings)
        async with serve_metrics(camera.statistics.metrics, settings):
            await run_until_stopped(camera.run(), camera.stop)

    asyncio.run(serve())
