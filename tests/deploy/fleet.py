"""Cameras that send recorded packets: sessions, reconnects and account are a camera's own, head and encoder are not."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codec.interface import EncodedFrame
from codec.packet import is_difference
from services.bench.recording import RecordedPackets, Replay, record_packets
from services.bench.settings import BenchLoadSettings
from services.camera.reconnection import Reconnection
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.camera.uplink import Feed, Uplink
from services.detections_address import detections_url
from services.loading import LoadedModel, choose_engine, find_network
from stream.errors import ConnectionLost
from stream.frame import Frame
from stream.rate.control import RateControl
from stream.session.messages import DETECTIONS_PROTOCOL, Hello
from stream.tasks.background import run_with_background
from stream.tasks.mailbox import Mailbox
from stream.tasks.worker import Worker
from stream.transport.websocket import connect


def record(size: str = "64x96", frames: int = 10) -> RecordedPackets:
    """Packets of the demo's network and picture."""
    settings = BenchLoadSettings.load({"size": size, "frames": frames})
    engine, device = choose_engine(settings.engine, settings.device)
    return record_packets(settings, LoadedModel("demo", find_network("demo", engine, device, 1)))


class _Head:
    """What an uplink asks of a head."""

    def __init__(self, recorded: RecordedPackets) -> None:
        self.size, self.layout = recorded.canvas, recorded.layout


class ReplayPipeline:
    """Stands where a camera has its FeaturePipeline."""

    steps = None

    def __init__(self, recorded: RecordedPackets, worker: Worker) -> None:
        self.codec, self.head, self.worker = recorded.codec, _Head(recorded), worker
        self.rate = RateControl(None)
        self._recorded = recorded
        self._replay = Replay(recorded.packets, recorded.codec.packet_format(recorded.layout))

    def canvas(self, _config: CameraSettings, _frame: Frame) -> tuple[int, int]:
        return self.head.size

    def hello(
        self, config: CameraSettings, statistics: CameraStatistics, *, session: str, live: bool
    ) -> Hello:
        counted = {"frame": statistics.frame_counts.done, "welcomes": statistics.welcomes}
        return self._recorded.hello(config.stream, session).model_copy(update={"live": live, **counted})

    async def prepare_recording(self) -> bool:
        return False

    async def run_head(self, _frame: Frame) -> dict[str, Any]:
        return {}

    async def encode(self, _tensors: Any, stamp: Any, *_: Any) -> EncodedFrame:
        packet = self._replay.take(stamp.sequence, stamp.captured_ns)
        return EncodedFrame(packet, not is_difference(packet), None)

    async def force_keyframe(self) -> None:
        self._replay.force_keyframe()


class ReplayedCamera:
    """A live camera of `fps` frames a second at the detector, or what stands before several, of `url`."""

    def __init__(
        self, recorded: RecordedPackets, url: str, stream: str, *, fps: float, worker: Worker, **settings: Any
    ) -> None:
        self.statistics = CameraStatistics()
        self.losses: list[ConnectionLost] = []
        flags = {"detector": url, "stream": stream, "source": "demo", **settings}
        self._config = CameraSettings.load(flags)
        self._pipeline: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pipeline.set_result(ReplayPipeline(recorded, worker))
        self._picture = np.zeros((*recorded.frame_size, 3), np.uint8)
        self._secret, self._interval_s = f"{random.getrandbits(128):032x}", 1 / fps
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._stopping = asyncio.Event()

    @property
    def stream(self) -> str:
        return self._config.stream

    @property
    def is_accounted_for(self) -> bool:
        counts = self.statistics.frame_counts
        return counts.captured == counts.detected + counts.dropped_total + counts.in_flight

    def stop(self) -> None:
        """Capture no more, let what is in flight be answered, close."""
        self._stopping.set()

    async def run(self) -> None:
        """As a camera does it, until `stop`."""
        await run_with_background(self._keep_connected(), self._capture())
        counts = self.statistics.frame_counts
        counts.drop("grab", "shutdown", counts.in_flight)

    async def _capture(self) -> None:
        self.statistics.connect("source")
        await asyncio.sleep(random.uniform(0, self._interval_s))
        while not self._stopping.is_set():
            now_ns = time.monotonic_ns()
            self.statistics.capture(now_ns)
            if self._mailbox.put(Frame(self._picture, now_ns)) is not None:
                there = self.statistics.connected["detector"]
                self.statistics.frame_counts.drop("grab", "superseded" if there else "disconnected")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._stopping.wait()
        self._mailbox.close()

    async def _keep_connected(self) -> None:
        reconnection = Reconnection(random.Random())
        feed = Feed("recorded packets", True, self._mailbox.get, self._stopping)
        while True:
            uplink = Uplink(self._config, self.statistics, feed, self._pipeline, self._secret)
            try:
                await uplink.run()
                return
            except ConnectionLost as lost:
                self.losses.append(lost)
                self.statistics.frame_counts.drop("network", "connection_lost", len(uplink.drain()))
                delay_s = reconnection.next_delay_s(
                    lost, time.monotonic(), accepted=uplink.accepted, after_s=uplink.retry_after_s
                )
                await asyncio.sleep(delay_s)


@dataclass(slots=True)
class Told:
    """What consumers were told, each with the address that told it and when, in seconds of the monotonic clock."""

    messages: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def detections(self) -> list[tuple[float, str, str, int]]:
        """(second, address, stream, frame) of each frame that was published."""
        return [
            (at_s, address, message["stream"], message["frame"])
            for at_s, address, message in self.messages
            if message["type"] == "detections"
        ]

    def told_again(self) -> list[tuple[str, int]]:
        """Streams and numbers of frames that were told more than once, with their detections or in a gap."""
        seen, again = set[tuple[str, int]](), []
        for _, _, message in self.messages:
            if message["type"] == "stream":
                continue
            first, last = (
                message.get("first", message.get("frame")),
                message.get("last", message.get("frame")),
            )
            for frame in range(first, last + 1):
                known = (message["stream"], frame)
                if known in seen:
                    again.append(known)
                seen.add(known)
        return again

    def places(self, since_s: float = 0.0) -> Mapping[str, str]:
        """By stream, who told detections of it last, of those told since then."""
        return {stream: address for at_s, address, stream, _ in self.detections() if at_s > since_s}


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these meanwhile, and cancel them then."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def listening(
    told: Told, addresses: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Subscribe to each address, by its name, and again for ever where it is away."""

    async def listen(name: str, url: str) -> None:
        while True:
            with suppress(ConnectionLost):
                async with connect(detections_url(url), DETECTIONS_PROTOCOL, headers=headers) as link:
                    async for text in link:
                        told.messages.append((time.monotonic(), name, json.loads(text)))
            await asyncio.sleep(0.05)

    async with background(*(listen(name, url) for name, url in addresses.items())):
        yield
