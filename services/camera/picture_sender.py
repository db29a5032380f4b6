"""Pictures beside the frames: what features are compared with, and previews where they are asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from services.camera.pictures import jpeg_bytes, preview_jpeg
from services.camera.pipeline import FeaturePipeline
from services.camera.statistics import CameraStatistics
from stream.frame import Frame
from stream.session.camera import CameraSession
from stream.session.messages import Preview
from stream.session.preview import PreviewGate
from stream.tasks.worker import Worker
from stream.transport.websocket import Link

log = structlog.get_logger(__name__)

PICTURE_INTERVAL_S = 1.0


class PictureSender:
    """About once a second: what the newest frame would take as a JPEG, and a preview of it where one may go."""

    def __init__(self, session: CameraSession[Any], statistics: CameraStatistics, previews: bool) -> None:
        self.gate = PreviewGate()
        self.newest: Frame | None = None  # the last one sent, until a picture is made of it
        self._session, self._statistics, self._previews = session, statistics, previews
        self._worker = Worker("pictures")  # of its own: no frame waits for a JPEG

    def close(self) -> None:
        """Make no more; does not block."""
        self._worker.close()

    async def run(self, link: Link, pipeline: FeaturePipeline) -> None:
        """Measure and send, for ever. Raises ConnectionLost."""
        while True:
            await asyncio.sleep(PICTURE_INTERVAL_S)
            frame, self.newest = self.newest, None
            if frame is None:
                continue
            preview = None
            try:
                size = await self._worker.run(jpeg_bytes, frame, pipeline.head.size)
                self._statistics.measure_jpeg(size)
                if self._previews and self.gate.may_send(self._session.answered):
                    preview = await self._worker.run(preview_jpeg, frame)
            except Exception as error:  # whatever it is, it costs one picture and no frame
                log.warning("no picture", reason=f"{type(error).__name__}: {error}")
            if preview is not None:
                self.gate.sent(self._session.packets)
                text = Preview(jpeg=preview).text()
                pipeline.rate.send_beside(len(text))
                await link.send(text)
                self._statistics.send_preview(len(preview))
