"""The rest of the network: from the tensors that crossed the split to boxes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakValueDictionary

import numpy as np

from codec.layout import FloatArray, Layout
from services.detector.memory import tail_bytes
from services.detector.settings import DetectorSettings
from services.detector.tail_costs import TailCosts
from services.environment import resident_bytes
from services.loading import LoadedModel, load_network
from stream.canvas import canvas_for
from stream.detections import Detections
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.cut import Cut
from stream.network.engine import Tail
from stream.network.levels import Logits
from stream.network.trial import warming_up
from stream.tasks.batcher import Batcher
from stream.tasks.fair_workers import FairWorkers, Owner

WARM_UP_FRAME = (360, 640)  # (H, W) in pixels: 16:9, at the default size
WARM_UPS = 3  # the first fetches memory and kernels; the fastest of the others tells the machine's speed
BATCH_DEADLINE_S = 0.002  # that a frame waits at most for others that are being decoded


@dataclass(frozen=True, slots=True, eq=False)
class InferredFrame:
    """What was found in a frame, and what that took of the network's last layers."""

    detections: Detections
    tail_ns: int
    batch: int  # frames that went through together
    tensors: Mapping[str, FloatArray] | None = None  # where a step map is to be made of them


class Inference:
    """Network, tails and boxes for all cameras. Its methods but `load` are for several threads at once.

    Keeps nothing between frames, so any frame of any camera may be next.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        workers: FairWorkers,
        batches: Batcher[Mapping[str, FloatArray], Logits] | None = None,
    ) -> None:
        self._settings, self._workers = settings, workers
        self._network: LoadedModel | None = None
        self._tails: WeakValueDictionary[str, Tail] = WeakValueDictionary()  # of the cameras that are there
        self._default_tail: Tail | None = None
        self.tail_bytes = 0  # that one more tail takes, with its weights
        self._cut = lru_cache(maxsize=256)(self._cut_at)
        self._batches = batches or Batcher(1, BATCH_DEADLINE_S, lambda: workers.running)
        self.costs = TailCosts()

    @property
    def network(self) -> LoadedModel:
        """The network; there is one after `load`."""
        assert self._network is not None
        return self._network

    async def load(self) -> None:
        """Find, read, place and warm up the network. Raises WeightsError or CheckpointError."""
        owner = self._workers.owner()
        network = await self._read(self._settings)
        largest = self._settings.largest_batch(cuda=network.model.device.startswith("cuda"))
        self._batches.limit(largest)
        if largest > 1:  # while one batch is in the network, the next is decoded
            self._workers.grow(2 * largest)
        await self._workers.run(owner, self._warm_up, self._settings.split or network.default_split)

    async def read(self) -> None:
        """Find and read the network for what cameras are asked by it: it computes elsewhere.

        Raises WeightsError or CheckpointError.
        """
        await self._read(self._settings.model_copy(update={"engine": "auto", "device": "cpu"}))

    async def _read(self, settings: DetectorSettings) -> LoadedModel:
        self._network = await self._workers.run(self._workers.owner(), load_network, settings)
        return self._network

    def layout(self, split: str, canvas: tuple[int, int]) -> Layout:
        """The tensors that cross at a split point, for a canvas of (H, W) pixels. Raises UnknownSplitPoint."""
        return self._cut(split).layout(canvas)

    def expected_ms(self, split: str, canvas: tuple[int, int]) -> float:
        """What a frame's tail costs, as far as is known."""
        return self.costs.expected_ms((split, canvas), self._flops(split, canvas))

    def tail(self, split: str) -> Tail:
        """The tail of a split point, one for all cameras that split there: as long as somebody holds it.

        Made by one thread at a time. Raises UnknownSplitPoint.
        """
        tail = self._tails.get(split)
        if tail is None:
            self._tails[split] = tail = self.network.model.tail(split)
        return tail

    def new_tail_bytes(self, split: str) -> int:
        """What a camera that splits there makes the detector hold for its tail."""
        is_default = self._default_tail is not None and split == self._default_tail.split
        return 0 if is_default else self.tail_bytes

    def detect(
        self,
        tail: Tail,
        owner: Owner,
        tensors: Mapping[str, FloatArray],
        letterbox: Letterbox,
        clock: StageClock,
    ) -> InferredFrame:
        """The objects of one frame, in pixels of the original picture; to be called in a turn of `owner`.

        `tensors` are those that crossed at the tail's split: float32 (C, h, w) each, as `layout` has them. The time
        goes to the stages queue, tail and nms of `clock`.
        """
        asked_ns = time.monotonic_ns()
        kind = tail.split, letterbox.canvas
        batch = self._batches.run(kind, tail, tensors)
        answered_ns = time.monotonic_ns()
        clock.lap("queue", batch.began_ns)
        clock.lap("tail", answered_ns)
        owner.excuse(answered_ns - asked_ns - batch.share_ns)
        self.costs.observe(kind, batch.share_ns / 1e6)
        detections = self._boxes(batch.output, letterbox)
        clock.lap("nms", time.monotonic_ns())
        return InferredFrame(detections, batch.share_ns, batch.size)

    def frame_bytes(self) -> int:
        """What a frame of the largest canvas holds in the network's last layers."""
        stride, side = self.network.model.stride, self._settings.max_side
        canvas = (max(stride, side // stride * stride),) * 2
        splits = [self._settings.split] if self._settings.split else self.network.model.split_points
        return tail_bytes([self.layout(split, canvas) for split in splits])

    def _boxes(self, logits: Logits, letterbox: Letterbox) -> Detections:
        settings = self._settings
        return detect(
            logits,
            self.network.model.levels,
            letterbox,
            conf=settings.confidence,
            iou=settings.iou,
            max_det=settings.max_detections,
        )

    def _flops(self, split: str, canvas: tuple[int, int]) -> float:
        """Floating-point operations of the tail."""
        return self._cut(split).tail_flops * canvas[0] * canvas[1]

    def _cut_at(self, split: str) -> Cut:
        return self.network.model.cut(split)

    def _warm_up(self, split: str) -> None:
        """Run the tail, so that the first frame does not wait for memory and kernels, and measure it."""
        before_bytes = resident_bytes()
        self._default_tail = tail = self.tail(split)
        canvas = canvas_for(WARM_UP_FRAME[1], *WARM_UP_FRAME, self.network.model.stride)
        tensors = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in self.layout(split, canvas)}
        letterbox = Letterbox(WARM_UP_FRAME, canvas)
        took_ns = []
        with warming_up("the network from {} on at {}x{} pixels".format(split, *canvas)):
            for _ in range(WARM_UPS):
                began_ns = time.monotonic_ns()
                (logits,) = tail([tensors])
                took_ns.append(time.monotonic_ns() - began_ns)
            self._boxes(logits, letterbox)
        self.tail_bytes = max(0, resident_bytes() - before_bytes)
        self.costs.calibrate(self._flops(split, canvas), min(took_ns) / 1e6)
