"""What an experiment is: something to measure, and a way to show the records of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.study.record import Record
from services.study.section import Section
from services.study.study import Study


@dataclass(frozen=True, slots=True)
class Experiment:
    """One of the paper's tables or figures, or one of ours."""

    name: str  # on the command line and in records
    summary: str  # for the command's help
    measure: Callable[[Study], None]
    """Writes the records that are missing. Leaves out what `Study` refuses, network by network."""
    present: Callable[[Sequence[Record]], Section]
    """Shows this experiment's records, of which there is at least one. Reads nothing else."""
