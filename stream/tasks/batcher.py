"""Calls of several threads that are worked on together, where that costs less than one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True, eq=False)
class _Call(Generic[In, Out]):
    kind: Hashable
    work: Callable[[Sequence[In]], Sequence[Out]]
    item: In
    result: BatchResult[Out] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Out]):
    """What one call gets."""

    output: Out
    size: int  # of its batch
    began_ns: int  # of the batch, by time.monotonic_ns
    share_ns: int  # of the time that the batch took


class Batcher(Generic[In, Out]):
    """Gathers calls of the same kind while the device works on a batch; the oldest call's kind is next.

    What waits anyway goes together. Beyond that a batch that is not full waits `deadline_s` at most for calls that are
    `coming`: so many threads may still call, counting those that have.
    """

    def __init__(self, largest: int, deadline_s: float, coming: Callable[[], int]) -> None:
        self.largest, self._deadline_s, self._coming = largest, deadline_s, coming
        self._waiting: list[_Call[In, Out]] = []
        self._changed = threading.Condition()
        self._busy = False

    def run(
        self, kind: Hashable, work: Callable[[Sequence[In]], Sequence[Out]], item: In
    ) -> BatchResult[Out]:
        """The output for one item, by `work` on it and others of its kind. Raises what work on the item alone does."""
        call = _Call(kind, work, item)
        if self.largest == 1:
            _work_on([call])
        else:
            self._run_together(call)
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    def _run_together(self, call: _Call[In, Out]) -> None:
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
            self._changed.wait_for(lambda: call.is_done or self._may_lead(call))
            if call.is_done:
                return
            self._busy = True
            self._changed.wait_for(lambda: self._is_full(call), self._deadline_s)
            batch = self._of_kind(call)[: self.largest]
            self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        try:
            _work_on(batch)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _may_lead(self, call: _Call[In, Out]) -> bool:
        return not self._busy and self._waiting[0] is call

    def _of_kind(self, call: _Call[In, Out]) -> list[_Call[In, Out]]:
        return [waiting for waiting in self._waiting if waiting.kind == call.kind]

    def _is_full(self, call: _Call[In, Out]) -> bool:
        return len(self._of_kind(call)) >= self.largest or len(self._waiting) >= self._coming()


def _work_on(batch: Sequence[_Call[In, Out]]) -> None:
    began_ns = time.monotonic_ns()
    try:
        outputs = batch[0].work([call.item for call in batch])
        answered = list(zip(batch, outputs, strict=True))
    except BaseException as error:
        if len(batch) == 1:
            batch[0].error = error
            return
        for call in batch:  # one camera's frame fails no other's
            _work_on([call])
        return
    share_ns = (time.monotonic_ns() - began_ns) // len(batch)
    for call, output in answered:
        call.result = BatchResult(output, len(batch), began_ns, share_ns)
