"""A small real network, a small real video, and services that run in the test's own event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import structlog

from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.chaos.settings import Address
from services.detector import inference
from services.detector.service import Detector
from services.detector.settings import DetectorSettings
from tests.services.clips import FRAMES, SIZE, write_video
from tests.services.waiting import LIVENESS_S
from tests.stream.network import legacy

CLASSES = 3
WARM_UP_FRAME = (64, 128)  # (H, W): multiples of every network's stride


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a command makes of the process's logs ends with the test."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    structlog.configure(**configured)
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A legacy checkpoint of a yolov5n with random weights."""
    return legacy.save(
        legacy.Model(legacy.description("n", CLASSES)), tmp_path_factory.mktemp("weights") / "random.pt"
    )


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with other weights."""
    return legacy.save(
        legacy.Model(legacy.description("n", CLASSES), seed=1),
        tmp_path_factory.mktemp("weights") / "other.pt",
    )


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FRAMES frames of the size of the canvas."""
    return write_video(tmp_path_factory.mktemp("video") / "square.avi", FRAMES)


@dataclass
class Running:
    detector: Detector
    port: int
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"


StartDetector = Callable[..., AbstractAsyncContextManager[Running]]
MakeCamera = Callable[..., Camera]


@pytest.fixture(scope="session")
def start_detector(weights: Path) -> StartDetector:
    """Starts a detector that is ready, and stops it.

    It warms up on a small picture: random weights find something everywhere in a usual one, and boxes of it all take
    longer than most tests.
    """

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Running]:
        own = {"port": 0, "model": str(weights), "drain_s": 2.0, "confidence": 0.001}
        settings = {**own, "max_memory": 2**20, **settings}  # the test's process holds more than a detector
        detector = Detector(DetectorSettings.load(settings))
        task = asyncio.ensure_future(detector.run())
        async with asyncio.timeout(LIVENESS_S):
            waiting = asyncio.ensure_future(detector.ready.wait())
            with mock.patch.object(inference, "WARM_UP_FRAME", WARM_UP_FRAME):
                await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        try:
            yield Running(detector, await detector.port, task)
        finally:
            detector.stop()
            async with asyncio.timeout(LIVENESS_S):
                await task

    return start


@pytest.fixture(scope="session")
def make_camera(weights: Path, video: Path) -> MakeCamera:
    """Makes a camera that plays the video to a detector; must be called on the event loop."""

    def make(url: str, **settings: Any) -> Camera:
        defaults = {
            "source": str(video),
            "detector": url,
            "model": str(weights),
            "size": f"{SIZE[0]}x{SIZE[1]}",
            "stream": "door",
            "metrics_port": 0,
            "drain_s": LIVENESS_S,
        }
        return Camera(CameraSettings.load({**defaults, **settings}))

    return make
