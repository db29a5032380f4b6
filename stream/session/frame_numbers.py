"""A stream's frames by number, also those of which a detector sees nothing: what it takes to tell gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stream.session.messages import LOCAL, RECORDED, Hello, RejectReason, Report

CONNECTION_LOST = "network/connection_lost"
DISCONNECTED = "grab/disconnected"
OF_OUTAGES = (CONNECTION_LOST, DISCONNECTED, LOCAL, RECORDED)  # which only a camera without a detector counts
UNKNOWN = "unknown"  # nobody told why


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames that gave no detections: from number `first` to `last`, both among them, counted by reason."""

    first: int
    last: int
    reasons: Mapping[str, int]

    @property
    def frames(self) -> int:
        return self.last - self.first + 1


class FrameNumbers:
    """Numbers of one stream's frames; they do not restart with a connection.

    A camera counts its frames in its hello and its reports: one that counts wrongly, or backwards, only harms the
    numbers of its own stream. Every number is told once: with its detections or in a gap. docs/protocol.md has the
    rules.
    """

    def __init__(self) -> None:
        self.next = 0
        self._first = 0  # frames that the camera was done with when this connection began
        self._answered = 0  # packets of this connection
        self._missed = range(0)  # lost between two connections, for reasons that the next report tells
        self._known: Counter[str] | None = (
            None  # drops by the camera's last report; None: it has not reported
        )
        self._done = 0  # frames that the camera was done with by its last report
        self._told = 0  # packets that a connection left unanswered since that report, told already
        self._unknown = 0  # frames since that report that were told without their reasons
        self._offset = 0  # of our numbers to those of a camera that was started anew
        self._welcomes: int | None = None  # that the camera process had before this connection

    def connect(self, hello: Hello, *, same_camera: bool) -> list[Gap]:
        """Begin a connection: of the camera of the one before, or of another, which counts anew.

        One that another detector has served meanwhile goes on with its numbers: what came in between was told there.
        """
        gaps = self._close()
        was_elsewhere = self._was_elsewhere(hello)
        if not same_camera or hello.frame < self._done:  # a process that was started anew counts anew
            self._offset = self.next if same_camera and hello.live else 0
            self._forget_report()
        elif was_elsewhere:
            self._forget_report()
        frame = hello.frame + self._offset
        if same_camera and not was_elsewhere and frame > self.next:
            self._missed = range(self.next, frame)
        if (
            not same_camera or frame > self.next or not hello.live
        ):  # a file's unanswered frames are sent again
            self.next = frame
        self._first, self._answered, self._welcomes = hello.frame, 0, hello.welcomes
        return gaps

    def _was_elsewhere(self, hello: Hello) -> bool:
        """Whether another detector has welcomed the camera process since the last connection here."""
        return (
            self._welcomes is not None and hello.welcomes is not None and hello.welcomes > self._welcomes + 1
        )

    def _forget_report(self) -> None:
        """What the camera tells next has another beginning than this connection's."""
        self._known, self._told, self._unknown, self._done = None, 0, 0, 0

    def packet(self) -> int:
        """Number of the frame whose packet has just come."""
        self.next += 1
        return self.next - 1

    def answer(self) -> None:
        """A packet of this connection was answered."""
        self._answered += 1

    def reject(self, number: int, reason: RejectReason) -> Gap:
        """The frame of that number was answered without detections."""
        self._answered += 1
        return Gap(number, number, {"network/stale" if reason == "stale" else f"detector/{reason}": 1})

    def lose(self, numbers: Iterable[int]) -> list[Gap]:
        """A live camera is gone before packets of these numbers, in order, were answered: it sends them no more."""
        gaps: list[Gap] = []
        for number in numbers:
            if gaps and gaps[-1].last == number - 1:
                first = gaps.pop().first
                gaps.append(Gap(first, number, {CONNECTION_LOST: number - first + 1}))
            else:
                gaps.append(Gap(number, number, {CONNECTION_LOST: 1}))
        self._told += sum(gap.frames for gap in gaps)
        return gaps

    def report(self, report: Report) -> list[Gap]:
        """What the camera dropped since its last report."""
        lost = Counter(
            {name: count for name, count in report.dropped.items() if _is_untold(name)} | report.kept
        )
        new = lost - self._known if self._known is not None else self._since_hello(report, lost)
        new = new - Counter({CONNECTION_LOST: self._told})
        if self._known is not None:
            _take(new, self._unknown)
        self._known, self._told, self._unknown = lost, 0, 0
        self._done = report.done
        gaps = self._close(new)
        dropped = {name: count for name, count in new.items() if count and not name.startswith("network/")}
        if dropped:
            first, self.next = self.next, self.next + sum(dropped.values())
            gaps.append(Gap(first, self.next - 1, dropped))
        return gaps

    def _since_hello(self, report: Report, lost: Counter[str]) -> Counter[str]:
        """Drops of a camera that reports for the first time: its sums may have begun long before this connection."""
        frames = max(0, report.done - self._first - self._answered)
        here = Counter({name: count for name, count in lost.items() if not name.startswith("network/")})
        return Counter(_take(here, frames))

    def _close(self, new: Counter[str] | None = None) -> list[Gap]:
        """Tell what was missed between two connections; its reasons are taken out of `new`."""
        missed, self._missed = self._missed, range(0)
        if not missed:
            return []
        reasons = _take(new if new is not None else Counter(), len(missed))
        unknown = len(missed) - sum(reasons.values())
        if unknown:
            reasons[UNKNOWN] = unknown
        if new is None:
            self._unknown += unknown
        return [Gap(missed[0], missed[-1], reasons)]


def _is_untold(name: str) -> bool:
    """Whether only the camera knows of such a drop: what the detector rejects it tells itself."""
    return not name.startswith("detector/") and name != "network/stale"


def _take(counts: Counter[str], frames: int) -> dict[str, int]:
    """At most so many of the counts, which lose them: first those that a lost connection is the reason of."""
    taken: dict[str, int] = {}
    order = {name: place - len(OF_OUTAGES) for place, name in enumerate(OF_OUTAGES)}
    for name, count in sorted(counts.items(), key=lambda item: (order.get(item[0], 0), -item[1])):
        if part := min(count, frames):
            taken[name] = part
            counts[name] -= part
            frames -= part
    return taken
