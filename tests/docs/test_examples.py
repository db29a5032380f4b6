"""The programs of docs/examples run as they stand."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process

import pytest

from tests.paths import DOCS
from tests.services.waiting import LIVENESS_S, until

EXAMPLES = sorted((DOCS / "examples").glob("*.py"))


async def start(name: str, *arguments: str) -> Process:
    program = str(DOCS / "examples" / name)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-u", program, *arguments, stdout=PIPE, stderr=STDOUT
    )


async def output(process: Process) -> str:
    async with asyncio.timeout(LIVENESS_S):
        text, _ = await process.communicate()
    return text.decode()


def test_the_page_names_every_example():
    page = (DOCS / "examples" / "README.md").read_text()
    assert re.findall(r"\]\((\w+\.py)\)", page) == [
        "consume_detections.py",
        "follow_streams.py",
        "code_features.py",
        "camera_in_a_program.py",
    ]
    assert {example.name for example in EXAMPLES} == set(re.findall(r"\]\((\w+\.py)\)", page))


async def test_consume_detections(start_detector, make_camera):
    pytest.importorskip("supervision")
    async with start_detector() as running:
        consumer = await start("consume_detections.py", f"{running.url}/v1/detections?types=detections")
        assert consumer.stdout
        camera = asyncio.create_task(make_camera(running.url, loop=True, realtime=True).run())
        try:
            line = await asyncio.wait_for(consumer.stdout.readline(), LIVENESS_S)
        finally:
            camera.cancel()
            consumer.kill()
            await consumer.wait()
            await asyncio.wait([camera])
    assert re.match(rb"door \d+ Detections\(xyxy=", line), line


async def test_follow_streams(start_detector, make_camera):
    async with start_detector() as running:
        follower = await start("follow_streams.py", f"{running.url}/v1/detections")
        assert follower.stdout
        await until(lambda: len(running.detector.broadcast))
        camera = asyncio.create_task(make_camera(running.url).run())
        lines: list[str] = []
        try:
            async with asyncio.timeout(LIVENESS_S):
                await camera
                while not lines or " is ended " not in lines[-1]:
                    lines.append((await follower.stdout.readline()).decode())
        finally:
            camera.cancel()
            follower.kill()
            await follower.wait()
    # Where the machine is busy the camera waits for its network, or is silent, and messages are lost.
    known = r"door is (waiting|stalled) .*|\d+ messages were lost.*"
    lines = [line for line in lines if not re.match(known, line)]
    assert lines[0].startswith("door is connected"), lines
    assert any(re.fullmatch(r"door #\d+: \d+ objects\n", line) for line in lines), lines


async def test_code_features():
    lines = (await output(await start("code_features.py"))).splitlines()
    kinds = [
        re.fullmatch(r"packet \d: (keyframe|difference) of (\d+) bytes, mean error (\d\.\d+)", line)
        for line in lines
    ]
    assert [match and match[1] for match in kinds] == ["keyframe", *["difference"] * 4], lines
    assert int(kinds[1][2]) < int(kinds[0][2]) / 2
    assert all(float(match[3]) < 0.1 for match in kinds)


async def test_camera_in_a_program(start_detector):
    async with start_detector(model="demo", confidence=0.25) as running:
        camera = await start("camera_in_a_program.py", running.url)
        text = await output(camera)
    assert camera.returncode == 0, text
    captured, detected, dropped = map(int, re.findall(r"\d+", text.splitlines()[-1]))
    assert captured == 75 == detected + dropped
    assert detected
