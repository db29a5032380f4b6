"""The detector as a program: it runs until a signal stops it."""

from __future__ import annotations

import asyncio
import sys

from services.commands.detector_settings import DetectorProgramSettings
from services.commands.publishing import publishing
from services.detector.service import Detector
from services.detector.tails import LocalTails, MakeTails
from services.service_manager import ServiceManager
from services.signals import run_until_stopped
from stream.tasks.background import run_with_background


def run_detector(settings: DetectorProgramSettings) -> None:
    """Serve for ever. Raises what `Detector.run` does."""

    async def serve() -> None:
        detector, manager = Detector(settings, chosen_tails(settings)), ServiceManager()

        def stop() -> None:
            manager.tell_stop()
            detector.stop()

        # The end of a terminal ends what it started, unless there is something to reload.
        reloads = settings.tokens or settings.tls_cert or not sys.stderr.isatty()
        async with publishing(detector.broadcast, detector.statistics.metrics, settings):
            await run_until_stopped(
                run_with_background(detector.run(), manager.tell_health(detector.ready)),
                stop,
                detector.reload if reloads else None,
            )

    asyncio.run(serve())


def chosen_tails(settings: DetectorProgramSettings) -> MakeTails:
    """Where the settings have packets worked on."""
    if settings.tail == "local":
        return LocalTails
    from services.ray_tail.tails import ray_tails

    return ray_tails(settings)
