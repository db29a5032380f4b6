"""An outage: the time in which the camera of a live source has no detector, and what it does with frames meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol, TypeAlias

import structlog

from codec.layout import FloatArray
from services.camera.pipeline import CanvasWatch, FeaturePipeline
from services.camera.preparation import Preparation
from services.camera.settings import CameraSettings
from stream.frame import Frame
from stream.frame_counts import FrameCounts
from stream.tasks.mailbox import MailboxClosed

log = structlog.get_logger(__name__)

LOOK_S = 0.1  # between two looks whether a taker is due

Outcome: TypeAlias = Literal["detected", "recorded"]


class Taker(Protocol):
    """What can be done with a frame without a detector. Where several are due, each gets every frame."""

    @property
    def stage(self) -> Literal["tail", "encode"]:
        """Where its errors happen, as drops are counted."""

    def due(self, outage_s: float) -> bool:
        """Whether it takes frames of an outage that has lasted so long; asked before each frame."""

    def begin(self, reason: str) -> None:
        """The camera has no detector, for that reason; told anew after each attempt to have one."""

    def end(self) -> None:
        """There is a detector; told before each of its frames."""

    async def take(
        self, frame: Frame, tensors: dict[str, FloatArray], pipeline: FeaturePipeline
    ) -> Outcome | None:
        """What came of the frame; None: nothing. The tensors are those of the pipeline's head."""


class Outage:
    """Gives frames to takers from `begin` to `end`, which may both be called again; `run` does it.

    While no taker is due it takes no frame. Each that it takes gets one outcome: it was detected, else recorded, else
    dropped; an error costs one frame.
    """

    def __init__(
        self,
        config: CameraSettings,
        counts: FrameCounts,
        preparation: Preparation,
        next_frame: Callable[[], Awaitable[Frame]],
        takers: Sequence[Taker],
    ) -> None:
        self._config, self._counts, self._preparation = config, counts, preparation
        self._next_frame, self._takers = next_frame, takers
        self._lasts, self._over, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._over.set()
        self._idle.set()
        self._pulling: asyncio.Future[Frame] | None = None
        self._since_s: float | None = (
            None  # that a pipeline could have sent; None: there is none, or no outage
        )
        self._canvases = CanvasWatch()

    @property
    def lasts(self) -> bool:
        """Whether frames may go to takers now."""
        return self._lasts.is_set()

    @property
    def takes(self) -> bool:
        """Whether a taker is due now."""
        return bool(self._due())

    def begin(self, reason: str) -> None:
        """The camera has no detector, for a reason that people read; if it had none, it may be a new reason."""
        self._lasts.set()
        self._over.clear()
        for taker in self._takers:
            taker.begin(reason)

    async def end(self) -> None:
        """The camera has a detector, or is about to end: no frame is taken from now on, none is in work on return.

        Cancelled, it has ended all the same.
        """
        self._lasts.clear()
        self._over.set()
        if self._pulling:
            self._pulling.cancel()  # a cancelled pull has taken nothing
        await self._idle.wait()
        for taker in self._takers:
            taker.end()

    async def run(self) -> None:
        """Take frames in every outage, until the source ends in one."""
        while True:
            await self._lasts.wait()
            self._idle.clear()
            try:
                await self._give()
            except MailboxClosed:
                return
            finally:
                self._since_s = None
                self._idle.set()

    def _due(self) -> list[Taker]:
        if self._since_s is None:
            return []
        outage_s = time.monotonic() - self._since_s
        return [taker for taker in self._takers if taker.due(outage_s)]

    async def _give(self) -> None:
        """Give frames until the outage ends. Raises MailboxClosed, and what makes no pipeline."""
        await asyncio.shield(self._preparation.pipeline)
        self._since_s, self._canvases = time.monotonic(), CanvasWatch()
        while self.lasts:
            if not self._due():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), LOOK_S)
            elif (frame := await self._pull()) is not None:
                await self._take(frame)

    async def _pull(self) -> Frame | None:
        """The next frame; None where the outage ends before. Raises MailboxClosed."""
        self._pulling = pulling = asyncio.ensure_future(self._next_frame())
        try:
            await asyncio.wait([pulling])
        finally:
            self._pulling = None
            pulling.cancel()  # nothing, but where this is cancelled
        return None if pulling.cancelled() else pulling.result()

    async def _take(self, frame: Frame) -> None:
        pipeline = await self._pipeline_for(frame)
        outcomes: set[Outcome | None] = set()
        stage = "head"
        try:
            tensors = await pipeline.run_head(frame)
            for taker in self._due():
                stage = taker.stage
                outcomes.add(await taker.take(frame, tensors, pipeline))
        except Exception as error:  # whatever it is, it costs one frame
            log.error("frame dropped", stage=stage, reason=f"{type(error).__name__}: {error}")
            if not outcomes - {None}:
                self._counts.drop(stage, "error")
                return
        if "detected" in outcomes:
            self._counts.detect_locally()
        elif "recorded" in outcomes:
            self._counts.record()
        else:
            self._counts.drop("grab", "disconnected")

    async def _pipeline_for(self, frame: Frame) -> FeaturePipeline:
        """The pipeline for pictures of this frame's size, if it has that for good."""
        pipeline = await asyncio.shield(self._preparation.pipeline)
        if self._canvases.is_misfit(pipeline.canvas(self._config, frame), pipeline.head.size):
            self._preparation.follow(frame)
            pipeline = await asyncio.shield(self._preparation.pipeline)
        return pipeline
