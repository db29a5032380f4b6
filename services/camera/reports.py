"""What a detector is told of the camera about once a second: all of it at first, then what is new."""

from __future__ import annotations

from services.camera.statistics import CameraStatistics
from stream.session.messages import Clock, Report

# Beside packets that are nothing but a few bytes a report would be most of what is sent.
DETAIL_BYTES = 20_000  # of packets, after which durations, link and picture are told anew,
DETAIL_S = 10.0  # or after so long
CLOCK_NS = 1_000_000  # by which the two clocks differ otherwise than before, for it to be told


class Reports:
    """One connection's reports."""

    def __init__(self, statistics: CameraStatistics) -> None:
        self._statistics = statistics
        self._told: Report | None = None
        self._detailed_ns = self._detailed_bytes = 0  # when durations were told last, and packets until then

    def text(self, source: str, now_ns: int, *, whole: bool = False) -> str:
        """The next report, with all that is new of the details too if it is to be `whole`.

        `source` is a name without credentials, `now_ns` of any steady clock.
        """
        report, told = self._statistics.report(source), self._told
        sent_bytes = self._statistics.totals.encoded_bytes
        if (
            whole
            or told is None
            or sent_bytes - self._detailed_bytes >= DETAIL_BYTES
            or now_ns - self._detailed_ns >= DETAIL_S * 1e9
        ):
            self._detailed_ns, self._detailed_bytes = now_ns, sent_bytes
        else:
            details = {name: getattr(told, name) for name in ("latency", "stages", "rate", "jpeg_bytes")}
            report = report.model_copy(update=details)
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
