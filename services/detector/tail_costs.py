"""What a frame costs at the network's last layers: estimated before the first one, measured from then on."""

from __future__ import annotations

import threading
from collections import OrderedDict

MEASURED_KEPT = 256  # combinations of split and canvas
ENOUGH = 4  # frames, of which the fastest counts: a machine that does something else is no peer's fault

Kind = tuple[str, tuple[int, int]]
"""Split point and canvas (H, W) in pixels, which make what a frame costs."""


class TailCosts:
    """Milliseconds a frame, by split and canvas. For several threads at once."""

    def __init__(self) -> None:
        self._ms_per_flop = 0.0
        self._measured: OrderedDict[Kind, _Fastest] = OrderedDict()
        self._lock = threading.Lock()

    def calibrate(self, flops: float, ms: float) -> None:
        """A tail of so many floating-point operations took so long on this machine."""
        self._ms_per_flop = ms / flops

    def observe(self, kind: Kind, ms: float) -> None:
        """A frame took so long."""
        with self._lock:
            fastest = self._measured.setdefault(kind, _Fastest())
            self._measured.move_to_end(kind)
            if len(self._measured) > MEASURED_KEPT:
                self._measured.popitem(last=False)
        fastest.frames += 1
        fastest.ms = min(fastest.ms, ms)

    def measured_ms(self, kind: Kind) -> float | None:
        """What a frame takes at least; None before enough have been measured."""
        fastest = self._measured.get(kind)
        return fastest.ms if fastest and fastest.frames >= ENOUGH else None

    def expected_ms(self, kind: Kind, flops: float) -> float:
        """What a frame will take, whose tail has so many floating-point operations."""
        measured_ms = self.measured_ms(kind)
        return self._ms_per_flop * flops if measured_ms is None else measured_ms


class _Fastest:
    def __init__(self) -> None:
        self.frames, self.ms = 0, float("inf")
