"""What became of every fault, as a table: `make faults` has it written and every bound held."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stream.atomic_file import write_whole

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


def write_table(file: Path, rows: Iterable[Row]) -> None:
    """Write what these rows say now; what else the file says of other faults stays, as a part of them may be run."""
    head = ("Fault", "What happens", "Told after, s", "Back after, s", "Bound, s", "Kept")
    told = {cells[0]: cells for cells in _read(file)} | {row.fault: row.cells() for row in rows}
    lines = [head, ("---",) * len(head), *told.values()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_whole(
        file,
        "# Faults\n\n"
        "Made by `make faults`: every fault is a test in `tests/faults/`, done to a real camera, detector and\n"
        "consumer. Of each it also holds that nothing was restarted by hand, that at every poll captured = detected +\n"
        "dropped + in flight, that every published message is what one process without a link detects in that frame,\n"
        "that the consumer was told, and that no descriptors are left. *Told* counts from the start of the fault to\n"
        "the first message of it at the consumer, *back* from its end to the first detections of a frame captured\n"
        "after it.\n\n"
        "Simulated: the webcam that is gone is a device name that is not there, and clocks step by libfaketime. What\n"
        "a full disk does to whatever writes is in `tests/services/test_full_disk.py`.\n\n"
        f"{table}\n",
    )


def rows() -> Iterable[Row]:
    """What was added."""
    return _rows.values()


def _read(file: Path) -> list[tuple[str, ...]]:
    """The rows of a table that was written before."""
    lines = [line for line in file.read_text().splitlines() if line.startswith("|")] if file.exists() else []
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
