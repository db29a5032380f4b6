"""What an outage left goes out, and the camera is killed, the detector, or the folder: what is lost is told."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from services.recording.folder import segment_files
from services.recording.player import Player
from tests.faults.harness import MOVING
from tests.faults.programs import camera_program, running, total
from tests.faults.test_outage import KEPT, Scene, late, scene  # noqa: F401 - a fixture
from tests.services.waiting import LIVENESS_S, until

pytestmark = pytest.mark.patient

SENT = 3  # late packets that are out when something happens


def kept(folder: Path) -> set[float]:
    """When what lies there was captured."""
    times = set()
    for file in segment_files(folder):
        player = Player([file.path])
        while packet := player.next():
            times.add(packet.captured_ns / 1e9)
    return times


async def begin_to_send(scene: Scene) -> set[float]:  # noqa: F811
    """An outage, and the first of what it left. When all of that was captured."""
    before = len(late(scene.consumer))
    await scene.kill_detector()
    await scene.start_detector()
    left = kept(scene.folder)
    assert len(left) >= KEPT
    await until(lambda: len(late(scene.consumer)) >= before + SENT)
    return left


def detected(scene: Scene) -> Counter[float]:  # noqa: F811
    """How often each late frame was."""
    return Counter(message["captured_at"] for message in late(scene.consumer))


async def test_a_camera_that_is_killed_sends_its_file_once_more(scene):  # noqa: F811
    left = await begin_to_send(scene)
    await scene.camera.kill()
    waits = kept(scene.folder)
    assert waits
    assert waits <= left
    await scene.camera.start()
    async with aiohttp.ClientSession() as session:
        await scene.camera.until_serving(session)
    assert await scene.until_sent() >= len(waits)
    await until(lambda: left <= set(detected(scene)))
    assert max(detected(scene).values()) <= 2
    assert not segment_files(scene.folder)


async def test_a_detector_that_is_killed_gets_what_it_has_not_answered(scene):  # noqa: F811
    left = await begin_to_send(scene)
    left |= kept(scene.folder)
    await scene.kill_detector()
    await scene.start_detector()
    left |= kept(scene.folder)
    await scene.until_sent()
    await until(lambda: left <= set(detected(scene)))
    assert max(detected(scene).values()) <= 2


async def test_a_folder_that_is_removed_costs_what_was_in_it_and_nothing_that_comes(scene):  # noqa: F811
    """Not the next outage's file, which has another name than the one that is being sent."""
    await begin_to_send(scene)
    shutil.rmtree(scene.folder)
    await scene.detector.kill()
    await until(lambda: scene.folder.exists() and segment_files(scene.folder))
    await scene.until(lambda seen: total(seen, "splitcast_camera_late_waiting_packets") >= 2 * KEPT)
    await scene.start_detector()
    left = kept(scene.folder)
    seen = await scene.until_nothing_waits()
    await until(lambda: left <= set(detected(scene)))
    assert not total(seen, "splitcast_camera_late_packets_total", outcome="unreadable")


async def test_a_second_camera_of_the_name_takes_nothing_of_the_first(scene):  # noqa: F811
    """Nor does it leave anything: what it would record is counted as lost."""
    await scene.detector.kill()
    await until(lambda: scene.folder.exists() and segment_files(scene.folder))
    url = f"ws://127.0.0.1:{scene.detector.metrics_port}"
    flags = ["--record", str(scene.folder), "--record-when", "disconnected", "--metrics", "full"]
    second = camera_program(MOVING, url, "door", *flags)
    lost = "splitcast_camera_recording_lost_packets_total"
    async with running(second), aiohttp.ClientSession() as session, asyncio.timeout(2 * LIVENESS_S):
        await second.until_serving(session)
        while total(await second.metrics(session), lost, reason="unwritable") < KEPT:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        told = await second.metrics(session)
    left = kept(scene.folder)
    assert len(left) >= KEPT
    await scene.start_detector()
    seen = await scene.until_nothing_waits()
    await until(lambda: left <= set(detected(scene)))
    assert set(detected(scene).values()) == {1}
    assert total(seen, "splitcast_camera_late_packets_total", outcome="deleted") == 0
    assert total(told, "splitcast_camera_late_kept_packets_total") == 0
