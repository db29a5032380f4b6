"""The rest of the network: from the tensors that crossed the split to boxes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache

import numpy as np

from codec.layout import FloatArray, Layout
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel, load_network
from stream.canvas import canvas_for
from stream.detections import Detections
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.cut import Cut
from stream.network.engine import Tail
from stream.network.trial import warming_up
from stream.tasks.worker import Worker

# One frame is worked on and one waits at the thread, so that it never idles; the others wait for their turn, and of
# each live camera the newest one comes when it is.
TURNS = 2
WARM_UP_FRAME = (360, 640)  # (H, W) in pixels: 16:9, at the default size


class Inference:
    """Network, tails and boxes for all cameras: one frame at a time, on a thread of its own.

    Keeps nothing between frames, so any frame of any camera may be next.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self._worker = Worker("tail")
        self._turns = asyncio.Semaphore(TURNS)  # handed out in the order in which they were asked for
        self._queue_length = 0
        self._network: LoadedModel | None = None
        self._tails: dict[str, Tail] = {}
        self._cut = lru_cache(maxsize=256)(self._cut_at)

    @property
    def network(self) -> LoadedModel:
        """The network; there is one after `load`."""
        assert self._network is not None
        return self._network

    @property
    def queue_length(self) -> int:
        """Frames that wait for their turn or are worked on."""
        return self._queue_length

    async def load(self) -> None:
        """Find, read, place and warm up the network. Raises WeightsError or CheckpointError."""
        self._network = await self._worker.run(load_network, self._settings)
        await self._worker.run(self._warm_up, self._settings.split or self._network.default_split)

    def layout(self, split: str, canvas: tuple[int, int]) -> Layout:
        """The tensors that cross at a split point, for a canvas of (H, W) pixels. Raises UnknownSplitPoint."""
        return self._cut(split).layout(canvas)

    def prepare(self, split: str) -> None:
        """Make the tail of a split point, once for all cameras that split there. Raises UnknownSplitPoint."""
        if split not in self._tails:
            self._tails[split] = self.network.model.tail(split)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is this caller's turn to `detect` on one frame: the others go first that asked before.

        A camera that asks once for one frame at a time gets its fair share beside any others.
        """
        self._queue_length += 1
        try:
            async with self._turns:
                yield
        finally:
            self._queue_length -= 1

    async def detect(
        self, split: str, tensors: Mapping[str, FloatArray], letterbox: Letterbox, clock: StageClock
    ) -> Detections:
        """The objects of one frame, in pixels of the original picture.

        `tensors` are those that crossed at `split`, which has to be prepared: float32 (C, h, w) each, as `layout` has
        them. The time goes to the stages queue, tail and nms of `clock`.
        """
        return await self._worker.run(self._detect, self._tails[split], tensors, letterbox, clock)

    def close(self) -> None:
        """Let a running frame end and forget those that wait; does not block."""
        self._worker.close()

    def _detect(
        self, tail: Tail, tensors: Mapping[str, FloatArray], letterbox: Letterbox, clock: StageClock
    ) -> Detections:
        clock.lap("queue", time.monotonic_ns())
        (logits,) = tail([tensors])
        clock.lap("tail", time.monotonic_ns())
        detections = detect(
            logits,
            self.network.model.levels,
            letterbox,
            conf=self._settings.confidence,
            iou=self._settings.iou,
            max_det=self._settings.max_detections,
        )
        clock.lap("nms", time.monotonic_ns())
        return detections

    def _cut_at(self, split: str) -> Cut:
        return self.network.model.cut(split)

    def _warm_up(self, split: str) -> None:
        """Run the tail once, so that the first frame does not wait for memory and kernels."""
        self.prepare(split)
        canvas = canvas_for(WARM_UP_FRAME[1], *WARM_UP_FRAME, self.network.model.stride)
        tensors = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in self.layout(split, canvas)}
        letterbox = Letterbox(WARM_UP_FRAME, canvas)
        with warming_up("the network from {} on at {}x{} pixels".format(split, *canvas)):
            self._detect(self._tails[split], tensors, letterbox, StageClock(time.monotonic_ns()))
