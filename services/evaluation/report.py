"""The page that an evaluation writes: one HTML file that needs nothing else, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.evaluation.comparison import (
    AP50_RANGE,
    AP_RANGE,
    LEVELS,
    Comparison,
    Score,
    factor,
    level,
    score,
    short_name,
)
from services.evaluation.html import HtmlRow, HtmlTable, page_templates
from services.evaluation.intervals import CONFIDENCE, RateComparison
from services.evaluation.pixel_codecs import FORMATS
from services.evaluation.plot import Series, plot
from services.evaluation.scores import EvaluationRecord
from services.evaluation.summary import cell, few_objects, plural, rate_rows

# One color for each codec, the same on every plot and whichever others there are.
_COLORS = {name: number for number, name in enumerate(("feature", "rle", "raw", *FORMATS))}

_LEAST_SHOWN = 0.6  # agreement: nobody wants less, and what matters is at the top

_NOTES = {
    "feature": "Splitcast's feature codec",
    "rle": "quantized and run-length coded tensors, the paper's codec",
    "raw": "the tensors as float32",
}


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What the page says of one source."""

    name: str
    contents: str
    objects: str  # how many the unsplit network is sure of
    sentences: Sequence[str]
    figures: Sequence[RateFigure]
    tables: Sequence[HtmlTable]


@dataclass(frozen=True, slots=True)
class RateFigure:
    """Rate against quality, and what stands below."""

    svg: str  # an element of HTML
    caption: str


def report(
    settings: Mapping[str, Any],
    records: Sequence[EvaluationRecord],
    rates: Mapping[str, Sequence[RateComparison]] | None = None,
) -> str:
    """The page for the records of one or more sources, each source's network unsplit first.

    `settings` are told at the end, by their names; `rates` belong to the sources.
    """
    sources = list(dict.fromkeys(record.source for record in records))
    codecs = dict.fromkeys(record.codec for record in records if record.codec != "none")
    notes = {**_NOTES, **{name: form.note for name, form in FORMATS.items()}}
    return (
        page_templates()
        .get_template("evaluation.html")
        .render(
            title=f"What detection costs on the link: {settings.get('model', '')}, "
            f"split at {settings.get('split', '')}",
            sources=[
                _source_report(
                    [record for record in records if record.source == source], (rates or {}).get(source, ())
                )
                for source in sources
            ],
            codecs={name: notes[name] for name in codecs if name in notes},
            settings={name: [_text(value)] for name, value in settings.items()},
        )
    )


def _text(value: Any) -> str:
    """A setting as the page has it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {content}" for key, content in value.items())
    return str(value)


def _source_report(records: Sequence[EvaluationRecord], rates: Sequence[RateComparison]) -> SourceReport:
    ceiling = records[0]
    comparison = Comparison(records)
    contents = (
        f"{plural(ceiling.frames, 'image')}, each coded by itself"
        if ceiling.data
        else f"{plural(ceiling.frames, 'frame')} of a clip, keyframes included in the bytes"
    )
    qualities: list[Score] = ["agreement", *(["map"] if ceiling.map is not None else [])]  # type: ignore[list-item] # a literal
    figures = [_figure(comparison, quality) for quality in qualities]
    return SourceReport(
        ceiling.source,
        contents,
        plural(ceiling.objects, "confident detection"),
        [*few_objects(ceiling), *comparison.sentences()],
        [figure for figure in figures if figure],
        [*_equal(comparison), *_rates(rates), _all_settings(records)],
    )


def _figure(comparison: Comparison, quality: Score) -> RateFigure | None:
    name, least = ("agreement", _LEAST_SHOWN) if quality == "agreement" else ("mAP50-95", None)
    series = []
    for codec in comparison.codecs:
        if codec == "raw":
            continue  # one point, so far to the right that nothing else would have room
        points = [
            (
                record.kb_per_frame,
                value,
                f"{short_name(record, comparison.coded)}: {record.kb_per_frame:.1f} kB, {quality} {score(value)}",
            )
            for record in comparison.coded
            if record.codec == codec
            and record.kb_per_frame
            and (value := getattr(record, quality)) is not None
        ]
        series.append(Series(codec, _COLORS.get(codec, 2), points))
    title = f"{comparison.ceiling.source}: kB per frame against {name}"
    drawing = plot(series, name, getattr(comparison.ceiling, quality), title, least)
    if drawing is None:
        return None
    caption = "Up and to the left is better. Dashed: the unsplit network on the original pictures."
    if least is not None and any(value < least for codec in series for _, value, _ in codec.points):
        caption += f" Settings below {level(least)} are in the table alone."
    return RateFigure(drawing, caption)


def _equal(comparison: Comparison) -> list[HtmlTable]:
    """What the codecs take at equal agreement, where there is more than one."""
    if len(comparison.codecs) < 2:
        return []
    reference = comparison.reference
    rows = []
    for ranking in comparison.rankings:
        ratios = (ranking.ratio, ranking.ratio50)
        figures = [
            *map(str, ranking.needs),
            *("" if ratio is None else factor(ratio.ratio) for ratio in ratios),
        ]
        rows.append(HtmlRow(ranking.codec, figures, "reference" if ranking.codec == reference else ""))
    low, high = (f"{level(bounds[0])} to {level(bounds[1])}" for bounds in (AP_RANGE, AP50_RANGE))
    heads = [*(f"kB at {level(agreement)}" for agreement in LEVELS), "ratio by AP50-95", "ratio by AP50"]
    caption = (
        f"kB per frame at equal agreement. Ratio: bytes of {reference} over those of the codec, so that below 1 "
        f"{reference} takes fewer; the mean over agreement {low} (AP50-95) and {high} (AP50), as far as both codecs "
        "were measured there. "
        "<: the cheapest setting is better than that. no: not reached."
    )
    return [HtmlTable.of("At equal agreement", ("codec", *heads), rows, caption)]


def _rates(rates: Sequence[RateComparison]) -> list[HtmlTable]:
    """Ratios with their intervals, where a codec to compare with was asked for."""
    if not rates:
        return []
    rows = [HtmlRow(f"{codec}, by {by}, {at}", (ratio,)) for codec, by, at, ratio in rate_rows(rates)]
    caption = (
        f"In brackets where the ratio lies with a probability of {CONFIDENCE:.0%}: a paired bootstrap over the "
        "pictures, or over segments of a clip. Mean: over the qualities that both reach."
    )
    heads = ("codec, quality, setting", f"bytes over those of {rates[0].against}")
    return [HtmlTable.of(f"Against {rates[0].against}", heads, rows, caption)]


def _all_settings(records: Sequence[EvaluationRecord]) -> HtmlTable:
    whole = records[0].map
    mixed = any(record.difference_kb is not None for record in records)
    rows = []
    last = ""
    for record in records:
        lost = f"{1 - record.map / whole:+.1%}" if whole and record.map is not None else ""
        figures = [
            cell(record.kb_per_frame, 2),
            *(cell(kb, 2) if mixed else "" for kb in (record.keyframe_kb, record.difference_kb)),
            *(
                "" if value is None else score(value)
                for value in (record.agreement, record.agreement50, record.map, record.map50)
            ),
            lost if record.codec != "none" else "",
            cell(record.distortion, 4),
            cell(record.bits_per_coefficient, 2),
            *(cell(value, 2) for value in (record.encode_ms, record.decode_ms)),
        ]
        name = "unsplit" if record.codec == "none" else short_name(record, records)
        rows.append(HtmlRow(name, figures, "first" if record.codec != last else ""))
        last = record.codec
    heads = (
        "kB",
        "key",
        "other",
        "agreement",
        "at .50",
        "mAP50-95",
        "mAP50",
        "mAP lost",
        "D",
        "bits",
        "encode",
        "decode",
    )
    first = next((record for record in records if record.head_ms is not None), None)
    compute = f"The whole network takes {cell(records[0].unsplit_ms, 1)} ms a frame unsplit"
    if first:
        compute += f", {cell(first.head_ms, 1)} ms up to the split and {cell(first.tail_ms, 1)} ms after it"
    caption = (
        "kB per frame, of keyframes and of all others; D: distortion; "
        f"bits per coefficient; encode and decode in ms, medians a frame. {compute}."
    )
    return HtmlTable.of("All settings", ("codec", *heads), rows, caption)
