"""What a detector is told of the camera about once a second: all of it at first, then what is new."""

from __future__ import annotations

from services.camera.statistics import CameraStatistics
from stream.session.messages import Clock, Report

# Of a calm stream, whose packets are nothing but a few bytes, reports would be most of what is sent.
CALM_BYTES = 2_000  # of packets, up to which a report may wait
CALM_S = 1.8  # for so long, and a bit less than two looks
DETAIL_BYTES = 20_000  # of packets, after which durations, link and picture are told anew,
DETAIL_S = 20.0  # or after so long
DETAILS = ("latency", "stages", "rate", "jpeg_bytes", "frames_repeated")
CLOCK_NS = 1_000_000  # by which the two clocks differ otherwise than before, for it to be told


class Reports:
    """One connection's reports. Times are ns of any steady clock."""

    def __init__(self, statistics: CameraStatistics) -> None:
        self._statistics = statistics
        self._told: Report | None = None
        self._told_ns = self._told_bytes = 0  # when it was, and packets until then
        self._detailed_ns = self._detailed_bytes = 0  # the same of its details

    def due(self, source: str, now_ns: int) -> str | None:
        """The text to send, if it is time for one; `source` is a name without credentials."""
        told, sent_bytes = self._told, self._statistics.totals.encoded_bytes
        if (
            told is not None
            and told.source_state == self._statistics.source_state
            and now_ns - self._told_ns < CALM_S * 1e9
            and sent_bytes - self._told_bytes < CALM_BYTES
        ):
            return None
        in_detail = (
            now_ns - self._detailed_ns >= DETAIL_S * 1e9 or sent_bytes - self._detailed_bytes >= DETAIL_BYTES
        )
        return self.text(source, now_ns, in_detail=in_detail or told is None)

    def text(self, source: str, now_ns: int, *, in_detail: bool = True) -> str:
        """The text that tells all that is new, of the details too if it is to be `in_detail`."""
        report, told = self._statistics.report(source), self._told
        self._told_ns, self._told_bytes = now_ns, self._statistics.totals.encoded_bytes
        if in_detail:
            self._detailed_ns, self._detailed_bytes = self._told_ns, self._told_bytes
        elif told is not None:
            report = report.model_copy(update={name: getattr(told, name) for name in DETAILS})
        if told is not None and _is_same(report.clock, told.clock):
            report = report.model_copy(update={"clock": told.clock})
        self._told = report
        return report.text() if told is None else report.text_after(told)


def _is_same(clock: Clock | None, told: Clock | None) -> bool:
    """Whether the two clocks go on as they were told."""
    if clock is None or told is None:
        return False
    offset_ns, told_ns = clock.unix_ns - clock.monotonic_ns, told.unix_ns - told.monotonic_ns
    return abs(offset_ns - told_ns) < CLOCK_NS
