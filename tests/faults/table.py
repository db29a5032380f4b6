"""What became of every fault, as a table: `make faults` has it written and every bound held."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

WRITE_TO = os.environ.get("FAULTS_TABLE")
"""Where the table goes. A machine that does other things too may be late: only here are the bounds asserted."""

_rows: dict[str, Row] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, in seconds."""

    fault: str
    what: str  # happened
    noticed_s: float | None  # until the consumer was told; None: there was nothing to tell
    recovered_s: float  # from the end of the fault to detections of a frame captured after it
    bound_s: float

    @property
    def kept(self) -> bool:
        return self.recovered_s <= self.bound_s

    def cells(self) -> tuple[str, ...]:
        noticed = "" if self.noticed_s is None else f"{self.noticed_s:.2f}"
        return (
            self.fault,
            self.what,
            noticed,
            f"{self.recovered_s:.2f}",
            f"{self.bound_s:g}",
            "yes" if self.kept else "**no**",
        )


def add_row(row: Row) -> None:
    """Add a fault to the table; of several runs of it the slowest stays. Asserts the bound if the table is written."""
    last = _rows.get(row.fault)
    if last is None or last.recovered_s < row.recovered_s:
        _rows[row.fault] = row
    assert row.kept or not WRITE_TO, (
        f"{row.fault}: back after {row.recovered_s:.2f} s, not within {row.bound_s:g} s"
    )


def write_table(file: Path) -> None:
    """Write what was added."""
    head = ("Fault", "What happens", "Told after, s", "Back after, s", "Bound, s", "Kept")
    lines = [head, ("---",) * len(head), *(row.cells() for row in _rows.values())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    file.write_text(
        "# Faults\n\n"
        "Made by `make faults`: every fault is a test in `tests/faults/`, done to a real camera, detector and\n"
        "consumer. Of each it also holds that nothing was restarted by hand, that at every poll captured = detected +\n"
        "dropped + in flight, that every published message is what one process without a link detects in that frame,\n"
        "that the consumer was told, and that no descriptors are left. *Told* counts from the start of the fault to\n"
        "the first message of it at the consumer, *back* from its end to the first detections of a frame captured\n"
        "after it.\n\n"
        "Simulated: the webcam that is gone is a device name that is not there, and clocks step by libfaketime. What\n"
        "a full disk does to whatever writes is in `tests/services/test_full_disk.py`.\n\n"
        f"{table}\n"
    )
