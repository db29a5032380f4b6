"""The camera as a program: it runs until its source ends or a signal stops it."""

from __future__ import annotations

import asyncio

from services.camera.metrics import serve_metrics
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.service_manager import ServiceManager
from services.signals import run_until_stopped
from stream.tasks.background import run_with_background


def run_camera(settings: CameraSettings) -> None:
    """Stream until the source ends. Raises what `Camera.run` does, CannotListen for /metrics."""

    async def serve() -> None:
        camera, manager = Camera(settings), ServiceManager()

        def stop() -> None:
            manager.tell_stop()
            camera.stop()

        async with serve_metrics(camera.statistics.metrics, settings):
            await run_until_stopped(
                run_with_background(camera.run(), manager.tell_health(camera.loaded)), stop
            )

    asyncio.run(serve())
