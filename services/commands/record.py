"""`splitcast record`: a camera that sends nothing, and keeps what it would send."""

from __future__ import annotations

import asyncio

from services.camera.service import Camera
from services.commands.record_settings import RecordSettings
from services.errors import Exit
from services.signals import run_until_stopped
from stream.tasks.background import run_with_background


def run_record(settings: RecordSettings) -> Exit:
    """Record until the source ends, a signal comes or the time is over, and print how much.

    Raises what `Camera.run` does. FAILURE where packets could not be written.
    """

    async def record() -> Camera:
        camera = Camera(settings.camera, has_detector=False)
        await run_until_stopped(
            run_with_background(camera.run(), _stop_after(camera, settings.seconds)), camera.stop
        )
        return camera

    camera = asyncio.run(record())
    written, lost = camera.recorded
    print(f"{written} packets recorded in {settings.out}, {lost} lost")
    return Exit.FAILURE if lost or not written else Exit.OK


async def _stop_after(camera: Camera, seconds: float | None) -> None:
    if seconds is not None:
        await camera.loaded.wait()
        await asyncio.sleep(seconds)
        camera.stop()
