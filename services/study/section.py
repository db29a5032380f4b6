"""What an experiment shows: drawings, tables, and what the paper states beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

KIB = 1024
"""Bytes of the paper's kB, which this study's tables and figures write as KiB."""


@dataclass(frozen=True, slots=True)
class Table:
    """Texts in rows; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure and what stands below it."""

    name: str  # of its files, without suffix
    figure: Figure
    caption: str
    photographic: bool = False  # holds photographs, so that it is a JPEG instead of SVG and PNG


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the paper states, and what these records say of it."""

    paper: str  # the statement with its numbers; empty for what the paper does not treat
    ours: str  # our numbers
    verdict: str  # one sentence: what agrees and what does not


@dataclass(frozen=True, slots=True)
class Section:
    """One experiment's part of the report."""

    title: str
    paper: str  # "Figure 5", "Section III"; empty for what goes beyond the paper
    method: str  # how it was measured, for somebody who wants to do it again
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = field(default=())

    @property
    def heading(self) -> str:
        """The title, with the place in the paper."""
        return f"{self.paper or 'Beyond the paper'}. {self.title}"


def kibibytes(size: float) -> str:
    """Bytes in KiB, with as many digits as the paper's tables have."""
    return f"{size / KIB:.1f}"


def percent(share: float) -> str:
    """A share of one with a tenth of a percent, where it is not the whole."""
    return f"{share:.1%}" if abs(share) < 0.9995 else f"{share:.0%}"
