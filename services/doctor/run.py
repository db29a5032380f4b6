"""The doctor as a program: looks at one thing after another, and says what to change."""

from __future__ import annotations

import asyncio
from typing import Literal

from services.doctor.camera import CameraDoctor
from services.doctor.detector import DetectorDoctor
from services.doctor.examination import Result, examine
from services.doctor.report import as_json, line, summary, verdict
from services.doctor.settings import DoctorCameraSettings, DoctorDetectorSettings
from services.errors import Exit
from services.signals import run_until_stopped


def run_doctor_camera(settings: DoctorCameraSettings) -> Exit:
    """Look at this machine as a camera: OK where no error was found, and nobody stopped it."""
    return asyncio.run(_examine("camera", CameraDoctor(settings), json=settings.as_json))


def run_doctor_detector(settings: DoctorDetectorSettings) -> Exit:
    """Look at this machine as a detector: OK where no error was found, and nobody stopped it."""
    return asyncio.run(_examine("detector", DetectorDoctor(settings), json=settings.as_json))


async def _examine(
    service: Literal["camera", "detector"], doctor: CameraDoctor | DetectorDoctor, *, json: bool
) -> Exit:
    checks, stopping = doctor.checks, asyncio.Event()
    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        if not json:
            print(line(result), flush=True)

    async def look() -> None:
        await examine(checks, tell, stopping)

    try:
        await run_until_stopped(look(), stopping.set)
    finally:
        doctor.close()
    print(as_json(service, results, len(checks)) if json else summary(results, len(checks)), flush=True)
    return verdict(results, len(checks))
