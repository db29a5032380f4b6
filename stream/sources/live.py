"""Cameras: a capture process of their own, replaced whenever it fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from random import Random

from stream.frame import Frame
from stream.redact import redact_url
from stream.sources.base import (
    CaptureOptions,
    FramesSkipped,
    FrameUnreadable,
    Source,
    SourceConnected,
    SourceEvent,
    SourceLost,
    SourceRetry,
)
from stream.sources.capture import (
    CaptureEnded,
    CaptureProcess,
    CaptureRequest,
    Lost,
    Opened,
    Opening,
    Picture,
    Shared,
    Undecodable,
)
from stream.tasks.backoff import Backoff, Failure
from stream.tasks.mailbox import Mailbox, MailboxClosed

_START_TIMEOUT_S = 30.0  # for a new interpreter to import OpenCV on a busy machine
_GRACE_S = 1.0  # for the child to notice its own timeout and say so, before the parent kills it


class LiveSource(Source):
    """A camera, watched by a task that replaces its capture process whenever it fails."""

    def __init__(
        self, name: str, target: str, options: CaptureOptions, on_event: Callable[[SourceEvent], None] | None
    ) -> None:
        super().__init__(name, live=True, on_event=on_event)
        self._options = options
        self._request = CaptureRequest(
            target, options.open_timeout_s, options.read_timeout_s, options.rtsp_transport
        )
        self._backoff = Backoff(Random())
        self._newest: Mailbox[Picture] = Mailbox()
        self._watch: asyncio.Task[None] | None = None

    async def __anext__(self) -> Frame:
        if self._closed:
            raise StopAsyncIteration
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_connected())
        try:
            picture = await self._newest.get()
        except MailboxClosed:
            if self._watch is not None:
                await self._watch  # which ended only by an error of ours: raise it here
            raise StopAsyncIteration from None
        try:
            return Frame(await self._run(picture.copy), picture.captured_ns)
        except BaseException:
            self._emit(FramesSkipped(1))
            raise
        finally:
            picture.release()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Forgotten as well as ended: its traceback would keep the last picture's memory alive.
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        if self._newest.take() is not None:
            self._emit(FramesSkipped(1))
        self._newest.close()
        # The thread works in order: once it has done this, the capture process has ended too.
        await self._run(self._thread.shutdown, False)

    async def _keep_connected(self) -> None:
        try:
            while True:
                reason = await self._capture()
                self._emit(SourceLost(redact_url(reason)))
                delay_s = self._backoff.next_delay_s(Failure.NOT_READY, time.monotonic())
                self._emit(SourceRetry(delay_s, self._backoff.attempt))
                await asyncio.sleep(delay_s)
        finally:
            self._newest.close()

    async def _capture(self) -> str:
        """Receive pictures from one capture process until it fails; return the reason."""
        try:
            process = CaptureProcess(self._request)
        except OSError as error:
            return f"the capture process cannot be started: {error.strerror}"
        try:
            return await self._receive(process)
        except CaptureEnded as ended:
            return str(ended)
        finally:
            # Shielded: a queued call that is cancelled would leave the child behind.
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(process.stop)))

    async def _receive(self, process: CaptureProcess) -> str:
        patience_s, waiting_for = _START_TIMEOUT_S, "the capture process to start"
        connected, count = False, 0
        while True:
            match await _next_message(process, patience_s):
                case Opening():
                    patience_s, waiting_for = self._options.open_timeout_s + _GRACE_S, "the camera to open"
                case Opened():
                    patience_s, waiting_for = self._options.read_timeout_s + _GRACE_S, "a picture"
                case Shared(width, height):
                    if not connected:
                        self._emit(SourceConnected(width, height))
                        connected = True
                case Picture() as picture:
                    self._backoff.reset()
                    displaced = self._newest.put(picture)
                    if displaced is not None:
                        displaced.release()
                    self._report_skipped(picture.count - count - 1 + (displaced is not None))
                    count = picture.count
                case Undecodable(captured):
                    self._report_skipped(captured - count - 1)
                    self._emit(FrameUnreadable(self.name, "it cannot be decoded"))
                    count = captured
                case Lost(reason, captured):
                    self._report_skipped(captured - count)
                    return reason
                case None:
                    process.kill()
                    return f"waited {patience_s:.1f} s for {waiting_for}"

    def _report_skipped(self, count: int) -> None:
        if count > 0:
            self._emit(FramesSkipped(count))


async def _next_message(
    process: CaptureProcess, timeout_s: float
) -> Opening | Opened | Shared | Picture | Undecodable | Lost | None:
    """The child's next message, or None if it stays silent for the whole timeout.

    Raises CaptureEnded when the child has ended.
    """
    if (message := process.receive()) is not None:
        return message
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(process.fileno(), readable.set)
    try:
        # Not wait_for, which before Python 3.12 may swallow a cancellation.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await readable.wait()
    finally:
        loop.remove_reader(process.fileno())
    # Also after a timeout: if it was the event loop that stood still, the message is there by now.
    return process.receive()
