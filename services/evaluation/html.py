"""Pages for people that are one HTML file and need nothing else: templates, and the tables that they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Self

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_templates(*packages: str) -> Environment:
    """The templates that lie in `templates/` of these packages, and those that all pages are made of.

    Values are escaped, but for what a template calls safe.
    """
    loaders = [PackageLoader(package) for package in dict.fromkeys((*packages, "services.evaluation"))]
    return Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@dataclass(frozen=True, slots=True)
class HtmlRow:
    """A row of a table: its name, figures, and a class of the style sheet."""

    name: str
    figures: Sequence[str]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """Rows of figures below their heads."""

    title: str
    heads: Sequence[str]  # of the rows' names, and of each column of figures
    rows: Sequence[HtmlRow]
    caption: str = ""

    @classmethod
    def of(cls, title: str, heads: Iterable[str], rows: Iterable[HtmlRow], caption: str = "") -> Self:
        """The table without the columns in which no row has a figure."""
        first, *others = heads
        rows = list(rows)
        filled = [any(row.figures[column] for row in rows) for column in range(len(others))]
        shown = [HtmlRow(row.name, tuple(compress(row.figures, filled)), row.kind) for row in rows]
        return cls(title, (first, *compress(others, filled)), shown, caption)
