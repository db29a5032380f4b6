"""A camera, a detector and a consumer among faults, and what has to hold of them whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

from codec import Stamp, parse_codec
from services.camera.pipeline import FeaturePipeline
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.chaos.service import ChaosProxy, chaos_proxy
from services.chaos.settings import Address
from services.detections_address import detections_url
from services.detector.service import Detector
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, load_network
from stream.errors import ConnectionLost
from stream.frame import Frame
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import Head, Tail
from stream.session.messages import DETECTIONS_PROTOCOL
from stream.transport.websocket import connect
from tests.faults.programs import usage
from tests.faults.table import Row, add_row
from tests.services.counts import balances
from tests.services.waiting import LIVENESS_S, until

# Differences from the frame before are coded exactly, so that a frame's detections do not depend on which frames
# came before it, and a wrong reference shows.
CODEC = "rle:bits=6,temporal=true"
MODEL = "demo"
CONFIDENCE = 0.002  # so low that there is something to compare in every picture
MOVING = "demo:scene=bus,fps=10,size=192x128"
"""A source that never fails, in whose pictures there is something to detect."""
POLL_S = 0.02
SETTLED_DESCRIPTORS = 2  # that may come and go: a source that opens, a probe


# --- what each of them is told and shown ---


class Consumer:
    """Subscribes to all detections, again and again, and keeps what it is told and when."""

    def __init__(self, url: str) -> None:
        self.told: list[tuple[float, dict[str, Any]]] = []  # monotonic seconds, message
        self._url = detections_url(url)

    async def run(self) -> None:
        while True:
            with suppress(ConnectionLost):
                async with connect(self._url, DETECTIONS_PROTOCOL) as link:
                    async for text in link:
                        self.told.append((time.monotonic(), json.loads(text)))
            await asyncio.sleep(0.1)

    def detections(self) -> list[dict[str, Any]]:
        """Messages with detections, the newest last."""
        return [message for _, message in self.told if message["type"] == "detections"]

    def words(self, since_s: float) -> dict[str, float]:
        """States and reasons of gaps told since then, and when each was told first."""
        words: dict[str, float] = {}
        for at_s, message in self.told:
            if at_s >= since_s:
                for word in _words(message):
                    words.setdefault(word, at_s)
        return words


def _words(message: dict[str, Any]) -> Iterable[str]:
    match message["type"]:
        case "stream":
            return (message["state"],)
        case "gap":
            return message["reasons"]
    return ()


@cache
def network() -> LoadedModel:
    """The network of the undisturbed run."""
    return load_network(DetectorSettings.load({"model": MODEL}))


def undisturbed(
    frame: Frame, canvas: tuple[int, int], split: str, confidence: float
) -> list[tuple[float, ...]]:
    """What one process without a link detects in a frame, as a message rounds it."""
    model, codec = network().model, parse_codec(CODEC)
    letterbox = Letterbox((frame.height, frame.width), canvas)
    head = _head(split, canvas)
    packet = codec.encoder(head.layout).encode(head(letterbox.apply(frame.image)), Stamp(0, 0)).data
    tensors = codec.decoder(head.layout).decode(packet).tensors
    (logits,) = _tail(split)([tensors])
    found = detect(logits, model.levels, letterbox, conf=confidence, iou=0.45, max_det=300)
    return [
        (
            round((left + right) / 2, 2),
            round((top + bottom) / 2, 2),
            round(right - left, 2),
            round(bottom - top, 2),
            round(confidence, 4),
            class_id,
        )
        for (left, top, right, bottom), confidence, class_id in zip(
            found.boxes.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True
        )
    ]


@cache
def _head(split: str, canvas: tuple[int, int]) -> Head:
    return network().model.head(split, canvas)


@cache
def _tail(split: str) -> Tail:
    return network().model.tail(split)


# --- the rig ---


@dataclass(slots=True)
class Outcome:
    """What a fault did. The block that makes the fault may say when it ended, if that was before the block did."""

    began_s: float
    ended_s: float = 0.0
    noticed_s: float | None = None
    recovered_s: float = 0.0

    def over(self, ago_s: float = 0.0) -> None:
        """The fault is over, since so long: from there the recovery counts."""
        self.ended_s = time.monotonic() - ago_s


@dataclass
class Rig:
    """One camera behind a proxy, and a consumer."""

    camera: Camera
    proxy: ChaosProxy
    consumer: Consumer
    playing: asyncio.Task[None]
    frames: dict[int, tuple[Frame, tuple[int, int]]]  # by captured_ns, with the canvas
    confidence: float  # of the detector
    polls: int = 0

    async def until_fresh(self, since_s: float) -> float:
        """When a frame's detections came that was captured since then."""
        since_ns = round(since_s * 1e9)
        read = 0
        async with asyncio.timeout(LIVENESS_S):
            while True:
                assert not self.playing.done(), "the camera has ended"
                for at_s, message in self.consumer.told[read:]:
                    if message["type"] == "detections" and message["captured_ns"] >= since_ns:
                        return at_s
                read = len(self.consumer.told)
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def trouble(
        self, fault: str, bound_s: float, told: Iterable[str], what: str, *, streaming: bool = True
    ) -> AsyncIterator[Outcome]:
        """A block that makes a fault, in the midst of a stream unless nothing is streaming yet.

        Afterwards all has to come back by itself, and the consumer has to have been told one of the words in `told`:
        states of the stream, or reasons of a gap.
        """
        descriptors = None
        if streaming:
            await self.until_fresh(time.monotonic())
            descriptors = usage(os.getpid()).descriptors
        outcome = Outcome(time.monotonic())
        yield outcome
        if not outcome.ended_s:
            outcome.over()
        outcome.recovered_s = await self.until_fresh(outcome.ended_s) - outcome.ended_s
        told = set(told)
        if told:
            await self.until_told(outcome, told)
            words = self.consumer.words(outcome.began_s)
            outcome.noticed_s = min(words[word] for word in told & words.keys()) - outcome.began_s
        if descriptors is not None:
            await until(lambda: usage(os.getpid()).descriptors <= descriptors + SETTLED_DESCRIPTORS)
        add_row(Row(fault, what, outcome.noticed_s, outcome.recovered_s, bound_s))

    async def until_told(self, outcome: Outcome, words: Iterable[str]) -> None:
        """Keep the fault up until the consumer has been told one of the words: a shorter one need not be noticed."""
        awaited = set(words)
        await until(lambda: awaited & self.consumer.words(outcome.began_s).keys())

    async def poll(self) -> None:
        """See for ever that no frame is lost to the account."""
        while True:
            assert balances(self.camera), self.camera.statistics.frame_counts
            self.polls += 1
            await asyncio.sleep(POLL_S)

    async def finish(self) -> None:
        """Stop the camera, and see that all that was ever published is right."""
        published = len(self.consumer.detections())
        await until(lambda: len(self.consumer.detections()) >= published + 5)
        self.camera.stop()
        await asyncio.wait_for(self.playing, LIVENESS_S)
        counts = self.camera.statistics.frame_counts
        assert balances(self.camera)
        assert counts.in_flight == 0
        assert self.polls > 10
        detections = self.consumer.detections()
        assert any(message["predictions"] for message in detections)
        await asyncio.to_thread(self._compare, detections)

    def _compare(self, detections: list[dict[str, Any]]) -> None:
        for message in detections:
            frame, canvas = self.frames[message["captured_ns"]]
            published = [
                tuple(box[key] for key in ("x", "y", "width", "height", "confidence", "class_id"))
                for box in message["predictions"]
            ]
            assert message["image"] == {"width": frame.width, "height": frame.height}
            assert published == undisturbed(frame, canvas, self.camera.config.split, self.confidence)


@asynccontextmanager
async def rig(
    detector: Address, source: str, *, confidence: float = CONFIDENCE, checked: bool = True, **settings: Any
) -> AsyncIterator[Rig]:
    """A camera on `source` behind a proxy to a detector, which need not be there yet.

    It is stopped and checked at the end, unless it is to detect nothing.
    """
    frames: dict[int, tuple[Frame, tuple[int, int]]] = {}
    run_head = FeaturePipeline.run_head

    async def recorded(pipeline: FeaturePipeline, frame: Frame) -> Any:
        frames[frame.captured_ns] = frame, pipeline.head.size
        return await run_head(pipeline, frame)

    async with AsyncExitStack() as stack:
        stack.enter_context(mock.patch.object(FeaturePipeline, "run_head", recorded))
        proxy = await stack.enter_async_context(chaos_proxy(detector))
        consumer = Consumer(f"ws://{detector}")
        camera = Camera(
            CameraSettings.load(
                {
                    "source": source,
                    "detector": proxy.url,
                    "model": MODEL,
                    "codec": CODEC,
                    "size": "64x96",
                    "stream": "door",
                    "metrics_port": 0,
                    "drain_s": 5.0,
                    **settings,
                }
            )
        )
        playing = asyncio.ensure_future(camera.run())
        made = Rig(camera, proxy, consumer, playing, frames, confidence)
        companions = [asyncio.ensure_future(consumer.run()), asyncio.ensure_future(made.poll())]
        try:
            yield made
            for companion in companions:
                if companion.done():
                    companion.result()
            if checked:
                await made.finish()
        finally:
            for task in (playing, *companions):
                task.cancel()
            await asyncio.gather(playing, *companions, return_exceptions=True)


@asynccontextmanager
async def detecting(**settings: Any) -> AsyncIterator[Address]:
    """The address of a detector in this process that is ready."""
    detector = Detector(
        DetectorSettings.load(
            {"port": 0, "drain_s": 2.0, "model": MODEL, "confidence": CONFIDENCE, **settings}
        )
    )
    running = asyncio.ensure_future(detector.run())
    try:
        async with asyncio.timeout(LIVENESS_S):
            ready = asyncio.ensure_future(detector.ready.wait())
            await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            address = Address("127.0.0.1", await detector.port)
        yield address
    finally:
        detector.stop()
        async with asyncio.timeout(LIVENESS_S):
            await running
