"""Step maps for cameras (`--feedback`): which blocks of a frame the detections depend on, measured now and then.

One thread for all cameras, which no frame waits for. It is the first thing to go where there is more to do: a frame is
measured only if no other waits for anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from codec.feature.profile import Profile
from codec.feature.step_map import step_map_bytes
from codec.layout import FloatArray, Layout
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from stream.session.messages import Hello
from stream.tasks.fair_workers import FairWorkers
from stream.tasks.worker import Worker

log = structlog.get_logger(__name__)

Tensors = Mapping[str, FloatArray]
Mapper = Callable[[Tensors], bytes]


class StepMaps:
    """The network that is differentiated, and the thread that does it."""

    def __init__(
        self, settings: DetectorSettings, workers: FairWorkers, statistics: DetectorStatistics
    ) -> None:
        self._settings, self._workers, self._statistics = settings, workers, statistics
        self._worker = Worker("step_maps") if settings.feedback else None
        self._mappers: Callable[[str, Layout, Profile], Mapper] | None = None
        self._measures = False  # now, perhaps for a camera that has left meanwhile

    async def load(self, device: str) -> None:
        """Load the network once more, in torch, if step maps are to be measured.

        Raises SettingsError for an exported network, WeightsError, CheckpointError, or ModuleNotFoundError where torch
        is not installed.
        """
        if self._worker:
            self._mappers = await self._worker.run(_load, self._settings, device)

    def close(self) -> None:
        """Measure no more."""
        if self._worker:
            self._worker.close()

    @property
    def is_busy(self) -> bool:
        """Whether a map is measured, or there is more to do than threads to do it. From any thread."""
        assert self._worker
        is_measuring = self._measures or self._worker.queue_length > 0
        return is_measuring or self._workers.queue_length > self._workers.threads

    def camera(self, hello: Hello, layout: Layout, profile: Profile | None) -> CameraStepMaps | None:
        """Those of a camera that takes them; None where there are none."""
        every = self._settings.feedback
        if self._mappers is None or every is None or profile is None:
            return None
        if hello.step_map_bytes != step_map_bytes(layout):
            return None
        return CameraStepMaps(self, self._mappers(hello.split, layout, profile), every)

    async def measure(self, mapper: Mapper, tensors: Tensors) -> bytes | None:
        """A frame's map; None where it has none."""
        assert self._worker
        began_ns = time.monotonic_ns()
        try:
            step_map = await self._worker.run(self._run, mapper, tensors)
        except Exception as error:  # a camera does without
            log.warning("no step map", reason=f"{type(error).__name__}: {error}")
            return None
        self._statistics.map_steps((time.monotonic_ns() - began_ns) / 1e9)
        return step_map

    def _run(self, mapper: Mapper, tensors: Tensors) -> bytes:
        """On the worker's thread."""
        self._measures = True
        try:
            return mapper(tensors)
        finally:
            self._measures = False

    def shed(self) -> None:
        """A frame that was due was not measured."""
        self._statistics.shed_map()


class CameraStepMaps:
    """Those of one camera: of every n-th frame that is detected on, unless the detector is busy just then."""

    def __init__(self, maps: StepMaps, mapper: Mapper, every: int) -> None:
        self._maps, self._mapper, self._every = maps, mapper, every
        self._detected = 0
        self._holds = False  # a frame's tensors, from `take` until they are measured: never more than one's
        self._due: _DueFrame | None = None
        self._changed = asyncio.Event()

    def take(self, *, waiting: bool) -> bool:
        """Whether to measure the frame that was detected on, which is then to be `put`. For one thread at a time.

        waiting: there is another packet of this camera.
        """
        self._detected += 1
        if (self._detected - 1) % self._every:
            return False
        if waiting or self._holds or self._maps.is_busy:
            self._maps.shed()
            return False
        self._holds = True
        return True

    def put(self, sequence: int, tensors: Tensors) -> None:
        """The frame to measure, of the packet with this number."""
        self._due = _DueFrame(sequence, tensors)
        self._changed.set()

    async def next(self) -> tuple[int, bytes]:
        """The next map, and the number of its packet."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            due, self._due = self._due, None
            assert due
            step_map = await self._maps.measure(self._mapper, due.tensors)
            self._holds = False
            if step_map is not None:
                return due.sequence, step_map


@dataclass(frozen=True, slots=True, eq=False)
class _DueFrame:
    sequence: int
    tensors: Tensors


def _load(settings: DetectorSettings, device: str) -> Callable[[str, Layout, Profile], Mapper]:
    from services.torch_loading import step_mappers

    return step_mappers(settings.model, device, settings.threads, settings.cache)
