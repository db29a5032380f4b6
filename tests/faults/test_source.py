"""Faults of what a camera service looks at."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.cameras import DamagedCamera, PictureCamera
from tests.faults.harness import Rig, detecting, rig
from tests.services.waiting import until
from tests.stream.sources.rtsp import RtspServer, require_gstreamer
from tests.stream.sources.watching import write_resized_video

AWAY = ("waiting",)


@asynccontextmanager
async def watching(source: str) -> AsyncIterator[Rig]:
    async with detecting() as detector, rig(detector, source) as one:
        yield one


def metric(one: Rig, name: str, **labels: str) -> float:
    return one.camera.statistics.metrics.registry.get_sample_value(f"splitcast_camera_{name}", labels)


@pytest.fixture
async def pictures():
    camera = PictureCamera()
    await camera.start()
    yield camera
    await camera.stop()


@pytest.fixture
async def rtsp():
    require_gstreamer()
    server = RtspServer()
    yield server
    await server.kill()


# --- cameras that are not there ---


async def test_absent_at_start(pictures):
    await pictures.stop()
    async with watching(pictures.url) as one:
        await until(lambda: "waiting" in one.consumer.words(0.0))
        async with one.trouble("camera absent at start", 2.0, (), "awaited", streaming=False) as outcome:
            await pictures.start()
            outcome.over()


async def test_dies_mid_stream(pictures):
    async with (
        watching(pictures.url) as one,
        one.trouble("camera dies for 3 s", 2.0, AWAY, "its port is closed") as outcome,
    ):
        await pictures.stop()
        await asyncio.sleep(3)
        await one.until_told(outcome, AWAY)
        await pictures.start()
        outcome.over()


@pytest.mark.parametrize(
    ("source", "reason"),
    [("rtsp://nowhere.invalid/stream", "resolve"), ("/dev/video-gone", "")],
    ids=["a name that does not resolve", "a webcam that is gone"],
)
async def test_what_cannot_come_is_awaited_and_told(source, reason):
    """Simulated, for the webcam: there is no device of that name. It and the name never come."""
    async with detecting() as detector, rig(detector, source, checked=False) as one:
        await until(lambda: "waiting" in one.consumer.words(0.0))
        await until(
            lambda: any(
                message["type"] == "stream" and message["state"] == "waiting" and reason in message["reason"]
                for _, message in one.consumer.told
            )
        )
        assert not one.playing.done()
        one.camera.stop()
        await one.playing


# --- an RTSP server ---


@pytest.mark.parametrize("outage_s", [2.5, pytest.param(30.0, marks=pytest.mark.patient)])
async def test_killed(outage_s, rtsp):
    await rtsp.start("--fps", "10")
    async with (
        watching(rtsp.url()) as one,
        one.trouble(f"RTSP server killed, back after {outage_s:g} s", 2.0, AWAY, "started again") as outcome,
    ):
        await rtsp.kill()
        await asyncio.sleep(outage_s)
        await one.until_told(outcome, AWAY)
        await rtsp.start("--fps", "10")
        outcome.over()


async def test_frozen(rtsp):
    await rtsp.start("--fps", "10")
    async with watching(rtsp.url()) as one:
        await until(lambda: one.camera.statistics.frame_counts.detected >= 30)  # its rate is known
        async with one.trouble("RTSP server frozen for 6 s", 2.0, AWAY, "SIGSTOP") as outcome:
            rtsp.send(signal.SIGSTOP)
            await asyncio.sleep(6)
            await one.until_told(outcome, AWAY)
            rtsp.send(signal.SIGCONT)
            outcome.over()


async def test_back_with_another_size(rtsp):
    await rtsp.start("--fps", "10")
    async with watching(rtsp.url()) as one:
        async with one.trouble(
            "RTSP server back with another size", 2.0, AWAY, "320x240, then 240x320"
        ) as outcome:
            await rtsp.kill()
            await one.until_told(outcome, AWAY)
            await rtsp.start("--fps", "10", "--size", "240x320")
            outcome.over()
        sizes = [
            (message["image"]["width"], message["image"]["height"]) for message in one.consumer.detections()
        ]
        assert list(dict.fromkeys(sizes)) == [(320, 240), (240, 320)]


async def test_wrong_password(rtsp):
    """Tried rarely, as cameras lock accounts; nobody is told the password."""
    await rtsp.start("--fps", "10", "--auth", "door:right-one")
    async with watching(rtsp.url("door:wrong-one@")) as one:
        await until(lambda: "waiting" in one.consumer.words(0.0))
        async with one.trouble(
            "wrong password, then mended", 6.0, (), "tried after 4 s, then 8", streaming=False
        ) as outcome:
            await rtsp.kill()
            await rtsp.start("--fps", "10", "--auth", "door:wrong-one")
            outcome.over()
        assert "wrong-one" not in str(one.consumer.told)


# --- what they show ---


async def test_frame_rate_changes(pictures):
    async with watching(pictures.url) as one:
        async with one.trouble("frame rate 10, 1, 25", 1.0, (), "goes on") as outcome:
            pictures.fps = 1.0
            await asyncio.sleep(4)
            pictures.fps = 25.0
            outcome.over()
        assert not one.camera.statistics.reconnects["source"]


async def test_a_frozen_picture(pictures):
    pictures.fps = 20.0
    async with watching(pictures.url) as one:
        async with one.trouble("frozen picture", 1.0, ("frozen",), "detected, and told") as outcome:
            pictures.still = True
            await until(lambda: "frozen" in one.consumer.words(outcome.began_s))
            pictures.still = False
            moving_s = one.consumer.told[-1][0]
            outcome.over()
        await until(lambda: "connected" in one.consumer.words(moving_s))
        assert not one.camera.statistics.reconnects["source"]


async def test_corrupt_h264(tmp_path):
    clip = write_resized_video(tmp_path / "clip.ts", [(320, 240, 600)])
    camera = DamagedCamera(clip.read_bytes(), 24.0)
    await camera.start()
    try:
        async with watching(camera.url) as one:
            async with one.trouble(
                "corrupt H.264", 2.0, (), "errors are counted, the connection stays"
            ) as outcome:
                camera.damaged = True
                await asyncio.sleep(3)
                camera.damaged = False
                outcome.over()
            assert metric(one, "decode_errors_total") > 0
    finally:
        await camera.stop()
