"""The camera as a program: it runs until its source ends or a signal stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.camera.local_detections import LocalDetections
from services.camera.metrics import serve_metrics
from services.camera.service import Camera
from services.commands.camera_settings import CameraProgramSettings
from services.commands.publishing import publishing
from services.metrics import Metrics
from services.replay.late import LateSender
from services.service_manager import ServiceManager
from services.signals import run_until_stopped
from stream.tasks.background import run_with_background


@dataclass(frozen=True, slots=True)
class _Live:
    """The camera's own stream, which comes first."""

    camera: Camera

    @property
    def connected(self) -> bool:
        return bool(self.camera.statistics.connected["detector"])

    @property
    def connections(self) -> int:
        return self.camera.statistics.welcomes

    @property
    def unanswered(self) -> int:
        return self.camera.unanswered

    @property
    def detected(self) -> int:
        return self.camera.statistics.frame_counts.detected


async def send_late(camera: Camera) -> None:
    """Send what the camera keeps of outages, where it is asked to."""
    if camera.tape is None:
        return
    await camera.loaded.wait()
    await LateSender(
        camera.config,
        camera.config.detector,
        camera.config.stream,
        live=_Live(camera),
        backlog=camera.tape.backlog,
        target_kbps=camera.config.target_kbps,
    ).run()


@asynccontextmanager
async def telling(
    local: LocalDetections | None, metrics: Metrics, settings: CameraProgramSettings
) -> AsyncIterator[None]:
    """What the camera detects by itself meanwhile is published; whoever reads it is told when it stops."""
    if local is None:
        yield
        return
    async with publishing(local.broadcast, metrics, settings):
        try:
            yield
        finally:
            local.close()


def run_camera(settings: CameraProgramSettings) -> None:
    """Stream until the source ends. Raises what `Camera.run` does, CannotListen for /metrics."""

    async def serve() -> None:
        camera, manager = Camera(settings), ServiceManager()

        def stop() -> None:
            manager.tell_stop()
            camera.stop()

        local = camera.local_tail.detections if camera.local_tail else None
        routes = local.routes() if local else ()
        async with (
            serve_metrics(camera.statistics.metrics, settings, routes),
            telling(local, camera.statistics.metrics, settings),
        ):
            await run_until_stopped(
                run_with_background(camera.run(), manager.tell_health(camera.loaded), send_late(camera)), stop
            )

    asyncio.run(serve())
