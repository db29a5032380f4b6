"""What an evaluation prints of one source: the records, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from services.evaluation.comparison import AP50_RANGE, AP_RANGE, LEVELS, Comparison, factor, level, short_name
from services.evaluation.intervals import CONFIDENCE, RateComparison, Ratio
from services.evaluation.scores import EvaluationRecord

FEW = 100  # confident detections: with less, neighboring settings differ by more than their quality does


def print_summary(
    records: Sequence[EvaluationRecord], rates: Sequence[RateComparison], console: Console
) -> None:
    """The records of one source as a table, the codecs at equal quality, and the conclusion in words."""
    console.print(_records_table(records))
    comparison = Comparison(records)
    if len(comparison.codecs) > 1:
        console.print(_equal_table(comparison))
    if rates:
        console.print(_rates_table(rates))
    for sentence in (*few_objects(records[0]), *comparison.sentences()):
        console.print(sentence, highlight=False, soft_wrap=True)


def _records_table(records: Sequence[EvaluationRecord]) -> Table:
    first = records[0]
    mixed = any(record.difference_kb is not None for record in records)
    table = Table(
        title=f"{first.source}: {plural(first.frames, 'frame')}, "
        f"{plural(first.objects, 'confident detection')} of the unsplit network",
        caption=(
            "kB: 1000 bytes; key: of a keyframe, other: of any other frame. Bits: per coefficient. "
            "mAP: AP50-95 against the labels. "
            "Agreement: AP50-95 against those detections. D: distortion, see docs/evaluate.md. Times: median ms."
        ),
    )
    table.add_column("codec", overflow="fold")
    parts = ("key", "other") if mixed else ()
    for heading in ("kB/frame", *parts, "bits", "mAP", "agreement", "D", "encode", "decode"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(
            short_name(record, records),
            cell(record.kb_per_frame, 1),
            *((cell(record.keyframe_kb, 1), cell(record.difference_kb, 2)) if mixed else ()),
            cell(record.bits_per_coefficient, 2),
            cell(record.map, 3),
            cell(record.agreement, 3),
            cell(record.distortion, 4),
            cell(record.encode_ms, 2),
            cell(record.decode_ms, 2),
        )
    return table


def _equal_table(comparison: Comparison) -> Table:
    table = Table(
        title="kB/frame at equal agreement",
        caption=f"Ratio: bytes of {comparison.reference} over those of the codec, mean where both were measured: "
        f"by AP50-95 {_range(AP_RANGE)}, by AP50 {_range(AP50_RANGE)}.",
    )
    table.add_column("codec")
    for heading in (*map(level, LEVELS), "ratio", "by AP50"):
        table.add_column(heading, justify="right")
    for ranking in comparison.rankings:
        ratios = (ranking.ratio, ranking.ratio50)
        table.add_row(
            ranking.codec,
            *map(str, ranking.needs),
            *("" if ratio is None else factor(ratio.ratio) for ratio in ratios),
        )
    return table


def _rates_table(rates: Sequence[RateComparison]) -> Table:
    table = Table(
        title=f"bytes over those of {rates[0].against} at equal quality",
        caption=f"In brackets where the ratio lies with a probability of {CONFIDENCE:.0%}: a paired bootstrap over the "
        "pictures, or over segments of a clip.",
    )
    for heading in ("codec", "by", "at"):
        table.add_column(heading, overflow="fold")
    table.add_column("ratio", justify="right")
    for row in rate_rows(rates):
        table.add_row(*row)
    return table


def rate_rows(rates: Sequence[RateComparison]) -> list[tuple[str, str, str, str]]:
    """Codec, quality, where the two are compared, and the ratio with its interval."""
    rows = list[tuple[str, str, str, str]]()
    for comparison in rates:
        name, of_differences = comparison.codec, comparison.frames == "differences"
        by = comparison.quality + (", differences" if of_differences else "")
        if comparison.mean:
            rows.append((name, by, "mean", interval(comparison.mean)))
        # What a setting is named by comes first; the rest is in its record.
        rows += [(name, by, each.setting.partition(",")[0], interval(each.ratio)) for each in comparison.at]
    return rows


def interval(ratio: Ratio) -> str:
    """.91 (.88 to .94)"""
    if ratio.low is None or ratio.high is None:
        return f"{factor(ratio.ratio)} (no interval)"
    return f"{factor(ratio.ratio)} ({factor(ratio.low)} to {factor(ratio.high)})"


def _range(bounds: tuple[float, float]) -> str:
    return " to ".join(map(level, bounds))


def few_objects(ceiling: EvaluationRecord) -> list[str]:
    """A warning, where a source holds too little to conclude much from."""
    if ceiling.objects >= FEW:
        return []
    return [
        f"With {plural(ceiling.objects, 'confident detection')} differences may be chance: take more images or frames."
    ]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def cell(value: float | None, digits: int) -> str:
    """A figure with so many digits; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"
