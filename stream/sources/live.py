"""Cameras: a capture process of their own, replaced whenever it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random

from stream.frame import Frame
from stream.redact import redact_url
from stream.sources.base import (
    CaptureOptions,
    DecodeErrors,
    FramesRepeated,
    FramesSkipped,
    FrameUnreadable,
    Source,
    SourceConnected,
    SourceEvent,
    SourceFrozen,
    SourceLost,
    SourceMoving,
    SourceRetry,
)
from stream.sources.capture import CaptureEnded, CaptureProcess, Picture, Received
from stream.sources.capture_messages import (
    CaptureRequest,
    Damaged,
    Frozen,
    Lost,
    Moving,
    Opened,
    Opening,
    Shared,
    Undecodable,
)
from stream.tasks.backoff import Backoff, Failure
from stream.tasks.mailbox import Mailbox, MailboxClosed

_START_TIMEOUT_S = 30.0  # for a new interpreter to import what it needs on a busy machine
_GRACE_S = 1.0  # for the child to notice its own timeout and say so, before the parent kills it
_FIRST_PICTURES_S = 10.0  # the first picture waits for the camera's next keyframe
_PERIODS = 10


class Pace:
    """How long to wait for the next picture: by the rate of those that came, as far as it is known."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._times_ns: deque[int] = deque(maxlen=_PERIODS + 1)

    def picture(self, captured_ns: int) -> None:
        """A picture has come."""
        self._times_ns.append(captured_ns)

    @property
    def patience_s(self) -> float:
        """Seconds after the last picture, or the opening, at which the camera counts as lost."""
        if len(self._times_ns) < 2:
            return max(self._timeout_s, _FIRST_PICTURES_S)
        if len(self._times_ns) <= _PERIODS:
            # A server's first pictures may come at once, and say nothing of the others.
            return max(self._timeout_s, _PERIODS * max(b - a for a, b in pairwise(self._times_ns)) / 1e9)
        return max(self._timeout_s, (self._times_ns[-1] - self._times_ns[0]) / 1e9)


class LiveSource(Source):
    """A camera, watched by a task that tries again whenever it is lost, and replaces a capture process that hangs."""

    def __init__(
        self,
        name: str,
        target: str,
        options: CaptureOptions,
        on_event: Callable[[SourceEvent], None] | None,
        *,
        is_device: bool = False,
    ) -> None:
        super().__init__(name, live=True, on_event=on_event)
        self._options = options
        self._request = CaptureRequest(target, is_device, options.open_timeout_s, options.rtsp_transport)
        self._backoff = Backoff(Random())
        self._newest: Mailbox[Picture] = Mailbox()
        self._watch: asyncio.Task[None] | None = None
        self._process: CaptureProcess | None = None  # of the watching task

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
            frame = Frame(await self._run(picture.copy), picture.captured_ns)
            self._announce(frame)
            return frame
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
        failure = None
        try:
            while True:
                lost = await self._capture(knock=failure is Failure.UNREACHABLE)
                failure = Failure(lost.failure)
                self._emit(SourceLost(redact_url(lost.reason)))
                delay_s = self._backoff.next_delay_s(failure, asyncio.get_running_loop().time())
                self._emit(SourceRetry(delay_s, self._backoff.attempt))
                await asyncio.sleep(delay_s)
        finally:
            self._newest.close()
            await self._end_process()

    async def _capture(self, knock: bool) -> Lost:
        """Receive pictures until the camera is lost; returns how."""
        try:
            if self._process is None:
                self._process = CaptureProcess()
            self._process.capture(replace(self._request, knock=knock))
            return await self._receive(self._process)
        except OSError as error:
            return Lost(f"the capture process cannot be started: {error.strerror}", Failure.NOT_READY.value)
        except CaptureEnded as ended:
            await self._end_process()
            return Lost(str(ended), Failure.NOT_READY.value)
        except _Stalled as stalled:
            # A read that hangs cannot be interrupted.
            if self._process is not None:
                self._process.kill()
            await self._end_process()
            return Lost(str(stalled), Failure.UNREACHABLE.value)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Shielded: a queued call that is cancelled would leave the child behind.
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(process.stop)))

    async def _receive(self, process: CaptureProcess) -> Lost:
        """Receive pictures until the child says that the camera is lost. Raises CaptureEnded and _Stalled."""
        now_s = asyncio.get_running_loop().time
        pace = Pace(self._options.read_timeout_s)
        patience_s, since_s, waiting_for = _START_TIMEOUT_S, now_s(), "the capture process to start"
        connected, count, repeated = False, 0, 0
        while True:
            match await next_message(process, since_s + patience_s - now_s()):
                case Opening():
                    patience_s, since_s = self._options.open_timeout_s + _GRACE_S, now_s()
                    waiting_for = "the camera to open"
                case Opened():
                    patience_s, since_s, waiting_for = pace.patience_s, now_s(), "a picture"
                case Shared(width, height):
                    if not connected:
                        self._emit(SourceConnected(width, height))
                        connected = True
                case Picture() as picture:
                    pace.picture(picture.captured_ns)
                    patience_s, since_s, waiting_for = pace.patience_s, now_s(), "a picture"
                    self._backoff.reset()
                    missed = picture.count - count - 1
                    count = picture.count
                    self._report_skipped(missed + self._replace_newest(picture))
                    if picture.repeated > repeated:
                        self._emit(FramesRepeated(picture.repeated - repeated))
                        repeated = picture.repeated
                case Undecodable(captured):
                    waiting_for = "a picture that can be decoded"
                    self._report_skipped(captured - count - 1)
                    self._emit(FrameUnreadable(self.name, "it cannot be decoded"))
                    count = captured
                case Damaged(pieces):
                    waiting_for = "a picture that can be decoded"
                    self._emit(DecodeErrors(pieces))
                case Frozen() | Moving() as change:
                    self._emit(
                        SourceMoving() if isinstance(change, Moving) else SourceFrozen(change.pictures)
                    )
                case Lost(_, _, captured) as lost:
                    self._report_skipped(captured - count)
                    return lost
                case None:
                    raise _Stalled(f"waited {patience_s:.1f} s for {waiting_for}")

    def _replace_newest(self, picture: Picture) -> int:
        """Put a picture where the consumer takes it; returns how many it displaces."""
        displaced = self._newest.put(picture)
        if displaced is None:
            return 0
        displaced.release()
        return 1

    def _report_skipped(self, count: int) -> None:
        if count > 0:
            self._emit(FramesSkipped(count))


class _Stalled(Exception):
    """The child, or what it waits for, says nothing for too long; the message says what was awaited."""


async def next_message(process: CaptureProcess, timeout_s: float) -> Received | None:
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
