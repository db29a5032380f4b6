"""Tables of figures as Markdown, which a terminal shows as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from stream.atomic_file import write_whole


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are aligned right, padded so that it can be read as it is."""
    lines = [headers, *rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(headers))]
    head, *body = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rule = [f"{'-' * (width - 1)}:" for width in widths]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def write_page(target: Path, blocks: Iterable[str]) -> None:
    """Write headings, paragraphs and tables as one page."""
    write_whole(target, "\n\n".join(blocks) + "\n")
