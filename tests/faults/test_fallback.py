"""A detector that is killed while its camera can do without."""

from __future__ import annotations

import asyncio
import json
import signal
from itertools import pairwise

import aiohttp

from tests.faults.programs import camera_program, detector_program, running, total, unaccounted
from tests.services.clips import write_video
from tests.services.waiting import LIVENESS_S

OUTAGE_S = 10.0


async def read_kept(session: aiohttp.ClientSession, camera, since: float = 0.0) -> list[dict]:
    """What the camera keeps now, of frames after `since`."""
    url = f"http://127.0.0.1:{camera.metrics_port}/v1/detections?types=detections&since={since}"
    count = round(total(await camera.metrics(session), "splitcast_camera_fallback_kept_messages"))
    async with session.ws_connect(url) as consumer:
        return [json.loads(await consumer.receive_str()) for _ in range(count)]


async def until_metric(session, program, reached) -> dict:
    async with asyncio.timeout(LIVENESS_S):
        while not reached(metrics := await program.metrics(session)):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
    return metrics


def detected(where: str):
    return lambda metrics: total(metrics, f"splitcast_camera_frames_detected{where}_total")


async def test_there_are_detections_of_every_second_without_a_detector(tmp_path):
    """And no frame has two fates: it returns to the split by itself, and the account is exact throughout."""
    video = write_video(tmp_path / "door.avi", 100, fps=10)
    detector = detector_program()
    url = f"ws://127.0.0.1:{detector.metrics_port}"
    flags = ("--realtime", "--loop", "--fallback", "local", "--fallback-after-s", "0.1")
    camera = camera_program(str(video), url, "door", *flags)
    async with running(detector, camera), aiohttp.ClientSession() as session:
        await camera.until_serving(session)
        await until_metric(session, camera, lambda metrics: detected("")(metrics) >= 10)
        detector.send(signal.SIGKILL)
        assert await detector.ended() == -signal.SIGKILL
        await until_metric(session, camera, detected("_locally"))
        first = (await read_kept(session, camera))[0]["captured_at"]
        async with asyncio.timeout(LIVENESS_S):
            while (await read_kept(session, camera))[-1]["captured_at"] < first + OUTAGE_S:
                assert not unaccounted(await camera.metrics(session))
                await asyncio.sleep(1)
        before = detected("")(await camera.metrics(session))
        await detector.start()
        await until_metric(session, camera, lambda metrics: detected("")(metrics) >= before + 10)
        metrics = await camera.metrics(session)
        messages = await read_kept(session, camera)
    assert not unaccounted(metrics)
    assert total(metrics, "splitcast_camera_fallback_active") == 0
    assert {message["path"] for message in messages} == {"local"}
    times = [message["captured_at"] for message in messages]
    assert all(earlier < later for earlier, later in pairwise(times))
    seconds = {int(at - first) for at in times}
    assert set(range(int(OUTAGE_S))) <= seconds
    numbers = [message["frame"] for message in messages]
    assert all(earlier < later for earlier, later in pairwise(numbers))
    assert len(messages) == detected("_locally")(metrics)
