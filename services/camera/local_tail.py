"""The rest of the network on the camera, for the time without a detector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import structlog

from codec.layout import FloatArray
from services.camera.local_detections import LocalDetections
from services.camera.outage import Outcome
from services.camera.pipeline import FeaturePipeline
from services.camera.settings import CameraSettings, LocalFallback
from services.camera.statistics import CameraStatistics
from services.clock import clock_now
from services.detections_json import DetectionMessage
from services.errors import SettingsError
from services.loading import LoadedModel
from stream.canvas import canvas_for, parse_size
from stream.detections import Detections
from stream.frame import Frame
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import Tail
from stream.network.levels import Levels
from stream.network.trial import warming_up
from stream.session.camera_clock import CameraClock
from stream.sources.base import Source
from stream.tasks.worker import Worker

log = structlog.get_logger(__name__)

WARM_UP_FRAME = (360, 640)  # (H, W) in pixels


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTail:
    """The layers after the split, and what their logits mean."""

    tail: Tail
    levels: Levels
    names: tuple[str, ...]

    def detect(
        self, tensors: Mapping[str, FloatArray], letterbox: Letterbox, fallback: LocalFallback
    ) -> Detections:
        """The objects of a frame, found as a detector finds them."""
        (logits,) = self.tail([tensors])
        return detect(
            logits,
            self.levels,
            letterbox,
            conf=fallback.confidence,
            iou=fallback.iou,
            max_det=fallback.max_detections,
        )


class LocalTail:
    """A taker that finishes the network, of outages that last long enough."""

    def __init__(
        self,
        config: CameraSettings,
        fallback: LocalFallback,
        statistics: CameraStatistics,
        worker: Worker,
        detections: LocalDetections,
    ) -> None:
        self._config, self._fallback, self._statistics = config, fallback, statistics
        self.detections = detections
        self._worker = worker
        self._loaded: LoadedTail | None = None
        self._frames = 0
        self._clock = CameraClock(clock_now())

    @property
    def stage(self) -> Literal["tail", "encode"]:
        return "tail"

    async def load(self, network: LoadedModel) -> None:
        """Keep the layers after the split, and have them ready."""
        self._loaded = await self._worker.run(_load, network, self._config, self._fallback)

    def due(self, outage_s: float) -> bool:
        return self._loaded is not None and outage_s >= self._fallback.after_s

    def begin(self, reason: str) -> None:
        self.detections.wait(reason, self._fallback.after_s)

    def end(self) -> None:
        self.detections.rest()

    async def take(
        self, frame: Frame, tensors: dict[str, FloatArray], pipeline: FeaturePipeline
    ) -> Outcome | None:
        assert self._loaded
        letterbox = Letterbox((frame.height, frame.width), pipeline.head.size)
        began_ns = time.monotonic_ns()
        found = await self._worker.run(self._loaded.detect, tensors, letterbox, self._fallback)
        now = clock_now()
        stepped_s = self._clock.follow(now)
        self.detections.publish(
            DetectionMessage(
                stream=self._config.stream,
                connection=self._statistics.welcomes,
                frame=self._statistics.frame_counts.done,
                sequence=self._frames % 2**32,
                keyframe=True,
                captured_ns=frame.captured_ns,
                frame_size=(frame.height, frame.width),
                detections=found,
                class_names=self._loaded.names,
                captured_unix_ns=self._clock.unix_ns(frame.captured_ns),
                stages_ns={"tail": now.monotonic_ns - began_ns},
                published_unix_ns=now.unix_ns,
                clock_stepped_s=stepped_s if self._frames else None,
                path="local",
            )
        )
        self._frames += 1
        return "detected"


def make_local_tail(
    config: CameraSettings, statistics: CameraStatistics, worker: Worker, source: Source
) -> LocalTail | None:
    """The tail of a camera that has been told to fall back on it.

    Raises SettingsError for a file, which waits for its detector.
    """
    fallback = config.local_fallback
    if fallback is None:
        return None
    if not source.live:
        raise SettingsError(
            f"--fallback: {source.name} is a file, which waits for its detector and loses nothing; "
            "say --realtime to play it as a camera would"
        )
    detections = LocalDetections(config.stream, fallback, statistics)
    return LocalTail(config, fallback, statistics, worker, detections)


def _load(network: LoadedModel, config: CameraSettings, fallback: LocalFallback) -> LoadedTail:
    model = network.model
    loaded = LoadedTail(model.tail(config.split), model.levels, model.names)
    canvas = canvas_for(parse_size(config.size), *WARM_UP_FRAME, model.stride)
    tensors = {
        tensor.name: np.zeros(tensor.shape, np.float32) for tensor in model.cut(config.split).layout(canvas)
    }
    with warming_up("the network from {} on at {}x{} pixels".format(config.split, *canvas)):
        loaded.detect(tensors, Letterbox(WARM_UP_FRAME, canvas), fallback)
    return loaded
