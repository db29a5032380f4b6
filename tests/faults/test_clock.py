"""The time of day steps by an hour: on a camera without a clock that NTP sets late, or on the detector."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from tests.faults.harness import CONFIDENCE, MOVING, Consumer
from tests.faults.programs import camera_program, detector_program, total, unaccounted
from tests.faults.table import Row, add_row
from tests.services.waiting import LIVENESS_S, until

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
HOUR_S = 3600.0

pytestmark = [
    pytest.mark.patient,
    pytest.mark.skipif(not LIBRARY.is_file(), reason="no libfaketime to set a process's clock"),
]


class ShiftedClock:
    """The time of day of one process, as a file says; its monotonic clock is left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    def shift(self, seconds: float) -> None:
        self._file.write_text(f"{seconds:+g}s\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.mark.parametrize("stepped", ["camera", "detector"])
@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
async def test_a_step_is_followed_and_costs_nothing(stepped, by_s, tmp_path):
    clock = ShiftedClock(tmp_path / "clock")
    detector = detector_program("--confidence", str(CONFIDENCE))
    url = f"ws://127.0.0.1:{detector.metrics_port}"
    camera = camera_program(MOVING, url, "door")
    consumer = Consumer(url)
    consuming = asyncio.ensure_future(consumer.run())
    field = {"camera": "captured_at", "detector": "published_at"}
    other = {"camera": "published_at", "detector": "captured_at"}

    def offset_s(name: str) -> float:
        return consumer.detections()[-1][name] - time.time()

    try:
        await detector.start(**(clock.environment if stepped == "detector" else {}))
        await detector.until_logged("ready")
        await camera.start(**(clock.environment if stepped == "camera" else {}))
        await until(lambda: len(consumer.detections()) >= 10)
        clock.shift(by_s)
        stepped_s = time.monotonic()
        await until(lambda: abs(offset_s(field[stepped]) - by_s) < LIVENESS_S)
        followed_s = time.monotonic() - stepped_s
        add_row(
            Row(f"{stepped}'s clock {by_s / HOUR_S:+g} h", "times of messages follow", None, followed_s, 3.0)
        )
        assert abs(offset_s(other[stepped])) < LIVENESS_S
        more = len(consumer.detections()) + 20
        await until(lambda: len(consumer.detections()) >= more)
        async with aiohttp.ClientSession() as session:
            metrics = await camera.metrics(session)
            assert unaccounted(metrics) == 0
            assert total(metrics, "splitcast_camera_reconnects_total") == 0
            connections = await detector.metrics(session)
            assert total(connections, "splitcast_detector_stream_connections_total") == 1
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        await camera.kill()
        await detector.kill()
