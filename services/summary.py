"""What an evaluation prints of one source: the records, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from services.comparison import AP50_RANGE, AP_RANGE, LEVELS, Comparison, factor, level, short_name
from services.record import Record


def print_summary(records: Sequence[Record], console: Console) -> None:
    """The records of one source as a table, the codecs at equal agreement, and the conclusion in words."""
    console.print(_records_table(records))
    comparison = Comparison(records)
    if len(comparison.codecs) > 1:
        console.print(_equal_table(comparison))
    for sentence in comparison.sentences():
        console.print(sentence, highlight=False, soft_wrap=True)


def _records_table(records: Sequence[Record]) -> Table:
    first = records[0]
    table = Table(
        title=f"{first.source}: {first.frames} frames, {first.objects} confident detections of the unsplit network",
        caption=(
            "kB: 1000 bytes. Bits: per coefficient. mAP: AP50-95 against the labels. "
            "Agreement: AP50-95 against those detections. Times: median ms."
        ),
    )
    table.add_column("codec", overflow="fold")
    for heading in ("kB/frame", "bits", "mAP", "agreement", "encode", "decode"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(
            short_name(record, records),
            cell(record.kb_per_frame, 1),
            cell(record.bits_per_coefficient, 2),
            cell(record.map, 3),
            cell(record.agreement, 3),
            cell(record.encode_ms, 2),
            cell(record.decode_ms, 2),
        )
    return table


def _equal_table(comparison: Comparison) -> Table:
    table = Table(
        title="kB/frame at equal agreement",
        caption=f"{comparison.reference} :: its bytes over the codec's, mean where both were measured: "
        f"AP50-95 {_range(AP_RANGE)}, AP50 {_range(AP50_RANGE)}.",
    )
    table.add_column("codec")
    for heading in (*map(level, LEVELS), f"{comparison.reference} ::", "AP50"):
        table.add_column(heading, justify="right")
    for standing in comparison.standings:
        ratios = (standing.ratio, standing.ratio50)
        table.add_row(
            standing.codec,
            *map(str, standing.needs),
            *("" if ratio is None else factor(ratio.ratio) for ratio in ratios),
        )
    return table


def _range(bounds: tuple[float, float]) -> str:
    return " to ".join(map(level, bounds))


def cell(value: float | None, digits: int) -> str:
    """A figure with so many digits; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"
