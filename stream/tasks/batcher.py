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
class BatchCall(Generic[In, Out]):
    """An item that waits for its batch, and then what came of it."""

    kind: Hashable
    work: Callable[[Sequence[In]], Sequence[Out]]
    item: In
    result: BatchResult[Out] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None

    def answer(self) -> BatchResult[Out]:
        """What came of it, once it is done. Raises what work on the item alone did."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


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
        self._waiting: list[BatchCall[In, Out]] = []
        self._changed = threading.Condition()
        self._busy = False

    def limit(self, largest: int) -> None:
        """Let at most so many go together from now on."""
        self.largest = largest

    def run(
        self, kind: Hashable, work: Callable[[Sequence[In]], Sequence[Out]], item: In
    ) -> BatchResult[Out]:
        """The output for one item, by `work` on it and others of its kind. Raises what work on the item alone does."""
        call = BatchCall(kind, work, item)
        if self.largest == 1:
            work_on([call])
        else:
            self._run_together(call)
        return call.answer()

    def _run_together(self, call: BatchCall[In, Out]) -> None:
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
            work_on(batch)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _may_lead(self, call: BatchCall[In, Out]) -> bool:
        return not self._busy and self._waiting[0] is call

    def _of_kind(self, call: BatchCall[In, Out]) -> list[BatchCall[In, Out]]:
        return [waiting for waiting in self._waiting if waiting.kind == call.kind]

    def _is_full(self, call: BatchCall[In, Out]) -> bool:
        return len(self._of_kind(call)) >= self.largest or len(self._waiting) >= self._coming()


def work_on(batch: Sequence[BatchCall[In, Out]]) -> None:
    """Work on calls of one kind; each has its result then, or its error. One that fails is tried alone."""
    began_ns = time.monotonic_ns()
    try:
        outputs = batch[0].work([call.item for call in batch])
        answered = list(zip(batch, outputs, strict=True))
    except BaseException as error:
        if len(batch) == 1:
            batch[0].error = error
            return
        for call in batch:  # one camera's frame fails no other's
            work_on([call])
        return
    share_ns = (time.monotonic_ns() - began_ns) // len(batch)
    for call, output in answered:
        call.result = BatchResult(output, len(batch), began_ns, share_ns)
