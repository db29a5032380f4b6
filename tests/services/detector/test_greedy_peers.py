"""Sixteen cameras that send as much as they can do not keep one from being served: counted, as no time is a promise."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
import pytest

from codec.packet import Stamp
from codec.spec import parse_codec
from stream.errors import ConnectionLost
from stream.network.cut import layout
from stream.session.camera import tensor_shapes
from stream.session.messages import REJECT_REASONS
from stream.tasks.background import run_with_background
from tests.services.detector.peers import answer, linked, said
from tests.services.waiting import LIVENESS_S, until

GREEDY, FRAMES = 16, 12
CANVAS, SPLIT, CODEC = (320, 320), "0", "rle:bits=2"  # of a greedy one: 17 times an honest frame's pixels


@pytest.fixture(scope="session")
def noise(model):
    """What a greedy camera announces, and its one packet: noise, of which a network makes thousands of candidates."""
    tensors = layout(model.graph, SPLIT, CANVAS)
    numbers = np.random.default_rng(0)
    values = {spec.name: 9 * numbers.normal(size=spec.shape).astype(np.float32) for spec in tensors}
    packet = parse_codec(CODEC).encoder(tensors).encode(values, Stamp(0, 0, *CANVAS)).data
    return {"split": SPLIT, "canvas": CANVAS, "tensors": tensor_shapes(tensors), "codec": CODEC}, packet


class GreedyCamera:
    """Keeps its window full, and counts what is answered."""

    def __init__(self, hello: str, packet: bytes) -> None:
        self._hello, self._packet = hello, packet
        self.answers = 0

    async def run(self, url: str) -> None:
        with suppress(ConnectionLost):
            async with linked(url) as link:
                await link.send(self._hello)
                window = (await answer(link))["window"]
                for _ in range(window):
                    await link.send(self._packet)
                async for data in link:
                    message = said(data)
                    if message["type"] in ("ack", "reject"):
                        self.answers += 1
                        await link.send(self._packet)


async def test_an_honest_camera_keeps_its_frames_beside_sixteen_greedy_ones(
    start_detector, make_hello, encode, noise
):
    """Each of its frames is detected, and for each every other camera has had a frame or two, not its whole window."""
    announced, packet = noise
    greedy = [
        GreedyCamera(make_hello(stream=f"greedy{number}", **announced).text(), packet)
        for number in range(GREEDY)
    ]
    between: list[list[int]] = []

    async def honest(url: str) -> None:
        await until(lambda: all(camera.answers for camera in greedy))
        async with linked(url) as link:
            await link.send(make_hello(live=True, reject_reasons=REJECT_REASONS).text())
            await answer(link)
            for sequence in range(FRAMES):
                before = [camera.answers for camera in greedy]
                await link.send(encode(sequence))
                while (message := await answer(link))["type"] == "window":
                    pass
                assert message["type"] == "ack", message
                between.append([camera.answers - count for camera, count in zip(greedy, before, strict=True)])

    async with start_detector(tails=1) as running, asyncio.timeout(LIVENESS_S):
        await run_with_background(honest(running.url), *(camera.run(running.url) for camera in greedy))
        sample = running.detector.statistics.metrics.registry.get_sample_value
        used = {
            name: sample("splitcast_detector_stream_tail_seconds_total", {"stream": name})
            for name in ("door", "greedy0")
        }
    assert 0 < used["door"] < used["greedy0"]
    # A frame waits for the one that is worked on; what was answered meanwhile may have been on its way.
    assert sorted(sum(counts) for counts in between)[FRAMES // 2] <= 4
