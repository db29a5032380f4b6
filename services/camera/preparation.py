"""The pipeline that a camera works with: made for the first picture, and anew for pictures of another size."""

from __future__ import annotations

import asyncio

import structlog

from services.camera.pipeline import FeaturePipeline
from services.camera.settings import CameraSettings
from services.loading import LoadedModel
from services.recording.recorder import Recorder
from stream.frame import Frame
from stream.tasks.worker import Worker

log = structlog.get_logger(__name__)

PREPARE_S = 1.0  # a camera that can say hello so soon does not say that it waits


class Preparation:
    """What becomes the newest pipeline; to be made on an event loop.

    `frame_size` is to be set to (H, W) of the first picture, or cancelled where none will come.
    """

    def __init__(self, config: CameraSettings, worker: Worker) -> None:
        self.frame_size: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        # Before its warm-up, during which rate control learns how often frames come.
        self.newest: FeaturePipeline | None = None
        self.pipeline: asyncio.Future[FeaturePipeline]  # warmed up; from `begin` on
        self._config, self._worker = config, worker

    def begin(self, network: LoadedModel, recorder: Recorder | None) -> None:
        """Prepare for the first picture, as soon as there is one."""
        self.pipeline = asyncio.ensure_future(self._prepare(network, recorder))

    def follow(self, frame: Frame) -> None:
        """Prepare for pictures of this frame's size, which the pipeline cannot take."""
        self.pipeline = asyncio.ensure_future(self._prepare_for(self.pipeline.result(), frame))

    async def wait_a_little(self) -> None:
        """Until the pipeline is there, or takes too long to say nothing until then."""
        await asyncio.wait([self.pipeline], timeout=PREPARE_S)

    def cancel(self) -> None:
        """Prepare no more."""
        self.pipeline.cancel()

    async def _prepare(self, network: LoadedModel, recorder: Recorder | None) -> FeaturePipeline:
        pipeline = await FeaturePipeline.build(
            self._config, network, await self.frame_size, self._worker, recorder
        )
        del network  # the head keeps only its own layers
        return await self._warm_up(pipeline)

    async def _prepare_for(self, pipeline: FeaturePipeline, frame: Frame) -> FeaturePipeline:
        canvas = pipeline.canvas(self._config, frame)
        if canvas == pipeline.head.size:
            return pipeline  # it has followed meanwhile
        log.info("canvas changed", height=canvas[0], width=canvas[1])
        return await self._warm_up(await pipeline.resized(self._config, canvas))

    async def _warm_up(self, pipeline: FeaturePipeline) -> FeaturePipeline:
        self.newest = pipeline
        await pipeline.warm_up()
        return pipeline
