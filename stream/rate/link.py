"""What a link carries and how long packets wait for it, told by the answers to them. No clock, no socket."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from stream.rate.kalman import LinearModel

BASE_WINDOW_MS = 10_000.0  # over which the smallest delay bounds the base: a route may change
FASTEST = 8e-3  # ms per kB: 1 Gbit/s
SLOWEST = 8e3  # ms per kB: 1 kbit/s
RATE_DRIFT = 0.05  # of the rate from packet to packet
RATE_DRIFT_MS = 3.0  # at least, of a packet's time: on a fast link a twentieth would be nothing
BASE_DRIFT_MS = 1.0
OVERDUE_MS = 20.0  # at least


@dataclass(frozen=True, slots=True)
class SentPacket:
    """A packet on its way."""

    kilobytes: float  # with all that was sent between the packet before and this one
    captured_ms: float  # its frame
    sent_ms: float


class LinkEstimate:
    """A link as a pipe of constant rate and constant delay, fitted to the answers. Times are ms of one clock.

    A packet is answered at `sent + wait for those before it + kilobytes · ms_per_kb + base_ms + time at the
    detector`, and the detector tells the last. A packet that waited behind another one tells the rate by itself: by
    the time between the two arrivals.

    Whoever sends keeps the unanswered packets, oldest first, and shows them.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.queue_ms = 0.0  # by which the last answered packet was later than on an idle link
        self.detector_ms = 30.0  # a packet's time there, a running mean
        self._detector_deviation_ms = 10.0
        self._fit = LinearModel(
            a=4.0,  # ms per kB: 2 Mbit/s
            b=20.0,  # ms
            var_a=100.0**2,
            var_b=100.0**2,
            noise=5.0**2,
            noise_range=(1.0, 30.0**2),
            share_b=0.15,
        )
        self._arrived_ms: float | None = None  # when the last answered packet did, and the way back
        self._smallest: deque[tuple[float, float]] = (
            deque()
        )  # (time, delay), delays rising: a sliding minimum

    @property
    def ms_per_kb(self) -> float:
        return self._fit.a

    @property
    def base_ms(self) -> float:
        """Both ways, for an empty packet on an idle link."""
        return self._fit.b

    @property
    def kbps(self) -> float:
        """kbit/s that the link carries; a guess before the first answer."""
        return 8e3 / self.ms_per_kb

    def lose(self) -> None:
        """The oldest packet is answered, without telling how long the detector had it."""
        self._arrived_ms = None

    def answer(self, packet: SentPacket, detector_ms: float, now_ms: float) -> None:
        """The oldest packet is answered; the detector had it for `detector_ms`."""
        detector_ms = min(detector_ms, now_ms - packet.sent_ms)  # a detector can tell anything
        self._learn_detector(detector_ms)

        arrived_ms, size = now_ms - detector_ms, packet.kilobytes
        delay_ms = arrived_ms - packet.sent_ms
        self.queue_ms = max(0.0, delay_ms - self._fit.predict(size, 1.0))
        rate_drift = max(RATE_DRIFT * self.ms_per_kb, RATE_DRIFT_MS / size)
        self._fit.drift(rate_drift**2, BASE_DRIFT_MS**2)
        if self._arrived_ms is not None and self._arrived_ms - self.base_ms > packet.sent_ms:
            self._fit.learn(size, 0.0, arrived_ms - self._arrived_ms)
        else:
            self._fit.learn(size, 1.0, delay_ms)
        self._arrived_ms = arrived_ms
        self._fit.a = min(SLOWEST, max(FASTEST, self._fit.a))
        self._fit.b = min(self._smallest_ms(delay_ms, now_ms), max(0.0, self._fit.b))

    def busy_until_ms(self, unanswered: Iterable[SentPacket]) -> float:
        """When the link has sent all that is unanswered, if nothing changes."""
        busy_ms = self._free_ms()
        for packet in unanswered:
            busy_ms = max(busy_ms, packet.sent_ms) + packet.kilobytes * self.ms_per_kb
        return busy_ms

    def overdue(self, oldest: SentPacket, now_ms: float) -> bool:
        """Whether the oldest packet should have been answered for a while: the link or the detector slows down."""
        service_ms = oldest.kilobytes * self.ms_per_kb
        expected_ms = max(self._free_ms(), oldest.sent_ms) + service_ms + self.base_ms + self.detector_ms
        spread_ms = 2 * math.sqrt(self._fit.noise) + 2 * self._detector_deviation_ms
        return now_ms > expected_ms + OVERDUE_MS + service_ms / 4 + spread_ms

    def _free_ms(self) -> float:
        """When the link had sent the last answered packet."""
        return float("-inf") if self._arrived_ms is None else self._arrived_ms - self.base_ms

    def _learn_detector(self, detector_ms: float) -> None:
        self.answers += 1
        gain = 1 / min(self.answers, 8)
        error_ms = detector_ms - self.detector_ms
        self.detector_ms += gain * error_ms
        self._detector_deviation_ms += gain * (abs(error_ms) - self._detector_deviation_ms)

    def _smallest_ms(self, delay_ms: float, now_ms: float) -> float:
        """The smallest delay of the window that ends with this one."""
        while self._smallest and self._smallest[-1][1] >= delay_ms:
            self._smallest.pop()
        self._smallest.append((now_ms, delay_ms))
        while self._smallest[0][0] < now_ms - BASE_WINDOW_MS:
            self._smallest.popleft()
        return self._smallest[0][1]
