"""The detector as a program: it runs until a signal stops it."""

from __future__ import annotations

import asyncio

from services.detector.service import Detector
from services.detector.settings import DetectorSettings
from services.signals import run_until_stopped


def run_detector(settings: DetectorSettings) -> None:
    """Serve for ever. Raises what `Detector.run` does."""

    async def serve() -> None:
        detector = Detector(settings)
        await run_until_stopped(detector.run(), detector.stop)

    asyncio.run(serve())
