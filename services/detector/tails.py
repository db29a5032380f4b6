"""Where packets become detections: in this process, or wherever else somebody's `Tails` has them worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from codec.feature.profile import Profile
from codec.interface import Decoder
from codec.layout import FloatArray
from services.detector.inference import Inference, InferredFrame
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.step_maps import CameraStepMaps
from services.detector.turns import AnsweredPacket, CameraTurns, ReceivedPacket
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.engine import Tail
from stream.session.messages import Hello
from stream.tasks.fair_workers import FairWorkers


@dataclass(frozen=True, slots=True)
class AgreedCamera:
    """What the handshake with a camera has led to."""

    hello: Hello
    decoder: Decoder  # a new one
    profile: Profile | None  # calibration of its codec, where it takes one
    step_maps: CameraStepMaps | None  # where it takes them
    paced: bool  # a turn may work on one packet only, as the camera's quota counts turns


class CameraTail(Protocol):
    """The packets of one camera, decoded in order, with detections on its frames. `put` and `turn` are one task's."""

    def __len__(self) -> int:
        """Packets that wait for a turn."""

    def put(self, packet: ReceivedPacket) -> None:
        """Add the next packet."""

    async def turn(self) -> list[AnsweredPacket]:
        """Work on what waits, at least on the oldest packet; the packets that are to be answered now, oldest first.

        There has to be a packet. Each gets one answer, in this turn or a later one.
        """

    def leave(self) -> None:
        """The camera is gone: nothing of it is needed any more."""


class Tails(Protocol):
    """What works on the packets of all cameras."""

    @property
    def queue_length(self) -> int:
        """Streams with packets that wait for their turn, or that have it."""

    async def load(self) -> None:
        """Get all that is needed before the first packet, and the network of `Inference` for the handshake.

        Raises WeightsError, CheckpointError or another error that says what to do.
        """

    async def watch(self, ready: asyncio.Event) -> None:
        """Say for ever whether packets can be worked on; `ready` is set once all else is loaded."""

    async def camera(self, agreed: AgreedCamera) -> CameraTail:
        """The tail of a camera whose hello was agreed on."""

    async def close(self) -> None:
        """Let go of everything; what runs may end."""


MakeTails: TypeAlias = Callable[[DetectorSettings, Inference, FairWorkers, DetectorStatistics], Tails]


class LocalTails:
    """Decodes and infers on threads of this process."""

    def __init__(
        self,
        settings: DetectorSettings,
        inference: Inference,
        workers: FairWorkers,
        _statistics: DetectorStatistics,
    ) -> None:
        self._max_age_s = settings.max_age_s
        self._inference, self._workers = inference, workers
        self._owner = workers.owner()  # of what is made for new cameras

    @property
    def queue_length(self) -> int:
        return self._workers.queue_length

    async def load(self) -> None:
        await self._inference.load()

    async def watch(self, ready: asyncio.Event) -> None:
        """Threads do not go away."""

    async def camera(self, agreed: AgreedCamera) -> LocalCameraTail:
        tail = await self._workers.run(self._owner, self._inference.tail, agreed.hello.split)
        return LocalCameraTail(self._inference, self._workers, tail, agreed, self._max_age_s)

    async def close(self) -> None:
        """The workers are the detector's own."""


class LocalCameraTail:
    """A camera's decoder, and its turns on the threads of all cameras."""

    def __init__(
        self,
        inference: Inference,
        workers: FairWorkers,
        tail: Tail,
        agreed: AgreedCamera,
        max_age_s: float,
    ) -> None:
        self._inference, self._tail, self._step_maps = inference, tail, agreed.step_maps
        self._workers, self._owner = workers, workers.owner()
        hello = agreed.hello
        self._turns = CameraTurns(
            agreed.decoder, self._detect, hello.canvas, live=hello.live, max_age_s=max_age_s
        )

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, packet: ReceivedPacket) -> None:
        self._turns.put(packet)

    async def turn(self) -> list[AnsweredPacket]:
        return await self._workers.run(self._owner, self._turns.turn)

    def leave(self) -> None:
        """All of it goes with the last reference."""

    def _detect(
        self, tensors: Mapping[str, FloatArray], letterbox: Letterbox, clock: StageClock
    ) -> InferredFrame:
        inferred = self._inference.detect(self._tail, self._owner, tensors, letterbox, clock)
        if self._step_maps and self._step_maps.take(waiting=len(self._turns) > 0):
            return replace(inferred, tensors=tensors)
        return inferred
