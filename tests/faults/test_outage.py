"""A camera that keeps what an outage would lose: its detector is killed, then it is, and nothing is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from services.recording.backlog import count_late_packets
from services.recording.folder import segment_files
from tests.faults.harness import MOVING, Consumer
from tests.faults.programs import (
    Metrics,
    Program,
    camera_program,
    detector_program,
    running,
    total,
    unaccounted,
)
from tests.services.waiting import LIVENESS_S, until

KEPT = 20  # frames of an outage, at least
LATE_S = 2 * LIVENESS_S  # for what waits: it has half of the time at most


def late(consumer: Consumer) -> list[dict]:
    return [message for message in consumer.detections() if message["stream"] == "door.late"]


def live(consumer: Consumer) -> list[dict]:
    return [message for message in consumer.detections() if message["stream"] == "door"]


def balances(metrics: Metrics) -> bool:
    """Whether each packet that was kept is sent late, lost or waiting."""
    kept, settled, waiting = (
        total(metrics, f"splitcast_camera_late_{name}")
        for name in ("kept_packets_total", "packets_total", "waiting_packets")
    )
    return kept == settled + waiting


class Scene:
    """A detector, a camera that keeps, and a consumer."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder, self._session = folder, session
        self.detector = detector_program()
        url = f"ws://127.0.0.1:{self.detector.metrics_port}"
        flags = ["--record", str(folder), "--record-when", "disconnected", "--metrics", "full"]
        self.camera = camera_program(MOVING, url, "door", *flags)
        self.consumer = Consumer(url)

    async def start_detector(self) -> None:
        """And wait until it has the camera's frames."""
        before = len(live(self.consumer))
        await self.detector.start()
        await until(lambda: len(live(self.consumer)) > before)

    async def kill_detector(self) -> tuple[float, float]:
        """Until the camera has kept KEPT frames. When that was, as Unix time."""
        before, began = total(await self.metrics(), "splitcast_camera_recorded_packets_total"), time.time()
        await self.detector.kill()
        await self.until(lambda seen: total(seen, "splitcast_camera_recorded_packets_total") >= before + KEPT)
        return began, time.time()

    async def metrics(self) -> Metrics:
        seen = await self.camera.metrics(self._session)
        assert unaccounted(seen) == 0
        assert balances(seen)
        return seen

    async def until(self, ready) -> Metrics:
        """The camera's metrics, once they are as they should be."""
        async with asyncio.timeout(LATE_S):
            while not ready(seen := await self.metrics()):  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.05)
            return seen

    async def until_nothing_waits(self) -> Metrics:
        """Nor a file is there."""

        def is_empty(seen: Metrics) -> bool:
            waits = total(seen, "splitcast_camera_late_waiting_packets")
            return not (waits or (self.folder.exists() and segment_files(self.folder)))

        return await self.until(is_empty)

    async def until_sent(self) -> float:
        """How many packets were kept, once all of them were detected."""
        seen = await self.until_nothing_waits()
        kept = total(seen, "splitcast_camera_late_kept_packets_total")
        assert total(seen, "splitcast_camera_late_packets_total", outcome="detected") == kept
        return kept


@pytest.fixture
async def scene(tmp_path):
    async with aiohttp.ClientSession() as session:
        made = Scene(tmp_path / "kept", session)
        watching = asyncio.ensure_future(made.consumer.run())
        programs: Iterable[Program] = (made.detector, made.camera)
        try:
            async with running(*programs):
                await made.camera.until_serving(session)
                await until(lambda: live(made.consumer))
                await made.until_nothing_waits()  # of the moments before the first connection
                yield made
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def test_what_two_outages_showed_is_detected_afterwards(scene):
    """Each frame that was kept exactly once, in order, with its own time, marked; what is live goes on meanwhile."""
    outages = []
    for _ in range(2):
        outages.append(await scene.kill_detector())
        await scene.start_detector()
        kept = await scene.until_sent()
        await until(lambda kept=kept: len(late(scene.consumer)) >= kept)
    messages = late(scene.consumer)
    assert len(messages) == kept >= 2 * KEPT
    assert all(message["late"] and message["late_of"] == "door" for message in messages)
    captured = [message["captured_at"] for message in messages]
    assert captured == sorted(set(captured))
    for start, end in outages:
        assert sum(start < at < end for at in captured) >= KEPT - 5
    # A frame is live or late, unless its answer was lost with the detector.
    both = set(captured) & {message["captured_at"] for message in live(scene.consumer)}
    assert len(both) <= 2 * 3
    first, last = messages[0]["published_at"], [m for m in messages if m["captured_at"] < outages[0][1]][-1]
    assert any(first < message["published_at"] < last["published_at"] for message in live(scene.consumer))


async def test_a_camera_that_is_killed_in_an_outage_sends_what_it_kept(scene):
    """Up to where its file was cut."""
    await scene.kill_detector()
    await scene.camera.kill()
    (file,) = segment_files(scene.folder)
    left, before = count_late_packets(file.path), len(late(scene.consumer))
    assert left >= KEPT
    await scene.camera.start()
    await scene.start_detector()
    await until(lambda: len(late(scene.consumer)) >= before + left)
    assert await scene.until_sent() >= left  # and what the camera has kept since its start
    captured = [message["captured_at"] for message in late(scene.consumer)]
    assert captured == sorted(set(captured))
