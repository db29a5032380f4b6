"""The page that an evaluation writes: one HTML file that needs nothing else, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
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
from services.evaluation.html import html_table, page
from services.evaluation.pixel_codecs import FORMATS
from services.evaluation.plot import Series, mark, plot
from services.evaluation.scores import EvaluationRecord
from services.evaluation.summary import cell, few_objects, plural

# One colour for each codec, the same on every plot and whichever others there are.
_COLOURS = {name: number for number, name in enumerate(("feature", "rle", "raw", *FORMATS))}

_LEAST_SHOWN = 0.6  # agreement: nobody wants less, and what matters is at the top

_NOTES = {
    "feature": "Splitcast's feature codec",
    "rle": "quantized and run-length coded tensors, the paper's codec",
    "raw": "the tensors as float32",
}

_STYLE = """
:root { --c0: #0a66c2; --c1: #7a5195; --c2: #6b7683; --c3: #b03a2e; --c4: #c46a00; --c5: #8a7400;
  --c6: #00796b; --c7: #3d8b37; --c8: #c2337e; --c9: #4655c4; }
@media (prefers-color-scheme: dark) { :root { --c0: #5ab2f7; --c1: #c39be0; --c2: #9aa6b2; --c3: #f08377;
  --c4: #f0a050; --c5: #d8c04a; --c6: #4cc7b6; --c7: #86cf7e; --c8: #f284bb; --c9: #98a4ff; } }
tbody tr.first > * { border-top: 1px solid var(--line); }
.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; width: 100%; }
.settings th { text-align: left; vertical-align: top; }
tr.reference { font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .25rem 0 0; padding: 0; list-style: none;
  max-width: none; font-size: .9rem; }
.legend svg { width: 22px; height: 12px; margin-right: .35rem; vertical-align: -1px; }
.legend svg { display: inline-block; }
svg text { fill: var(--quiet); font-size: 12px; }
svg text.axis { fill: var(--ink); }
.grid { stroke: var(--line); fill: none; }
.ceiling { stroke: var(--quiet); stroke-dasharray: 5 4; fill: none; }
.series { stroke: var(--colour); fill: var(--colour); }
.line { fill: none; stroke-width: 1.6; }
.c0 .line { stroke-width: 3; }
@media (max-width: 40rem) {
  figure > svg text { font-size: 21px; }
  figure > svg .line { stroke-width: 2.6; }
  figure > svg .c0 .line { stroke-width: 4.8; }
  figure > svg .series g > * { transform: scale(1.6); }
}
""" + "".join(f".c{number} {{ --colour: var(--c{number}); }}\n" for number in _COLOURS.values())


def report(settings: Mapping[str, Any], records: Sequence[EvaluationRecord]) -> str:
    """The page for the records of one or more sources, each source's network unsplit first.

    `settings` are told at the end, by their names.
    """
    sources = list(dict.fromkeys(record.source for record in records))
    title = (
        f"What detection costs on the link: {settings.get('model', '')}, split at {settings.get('split', '')}"
    )
    body = "".join(_section([record for record in records if record.source == source]) for source in sources)
    return page(title, f"{_introduction()}{body}{_method(records)}{_settings(settings)}", _STYLE)


def _introduction() -> str:
    return (
        "<p>A camera can send the features of a network's first layers, or a picture. Both were coded at several "
        "settings, the network finished on what came out, and its detections were compared: with the labels where "
        "there are some (<b>mAP</b>), and with those that the same network finds in the original picture "
        "(<b>agreement</b>).</p>\n"
    )


def _section(records: Sequence[EvaluationRecord]) -> str:
    ceiling = records[0]
    comparison = Comparison(records)
    images, frames = plural(ceiling.frames, "image"), plural(ceiling.frames, "frame")
    what = (
        f"{images}, each coded by itself"
        if ceiling.data
        else f"{frames} of a clip, keyframes included in the bytes"
    )
    told = [*few_objects(ceiling), *comparison.sentences()]
    sentences = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in told)
    plots = _figure(comparison, "agreement", f"{ceiling.source}: kB per frame against agreement")
    if ceiling.map is not None:
        plots += _figure(comparison, "map", f"{ceiling.source}: kB per frame against mAP50-95")
    return (
        f"<h2>{escape(ceiling.source)}</h2>\n"
        f'<p class="quiet">{what}; '
        f"{plural(ceiling.objects, 'confident detection')} of the unsplit network.</p>\n"
        f"<ul>\n{sentences}</ul>\n{plots}{_equal(comparison)}{_table(records)}"
    )


def _figure(comparison: Comparison, quality: Score, title: str) -> str:
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
        series.append(Series(codec, _COLOURS.get(codec, 2), points))
    name, least = ("agreement", _LEAST_SHOWN) if quality == "agreement" else ("mAP50-95", None)
    drawing = plot(series, name, getattr(comparison.ceiling, quality), title, least)
    if not drawing:
        return ""
    legend = "".join(
        f'<li><svg viewBox="-11 -6 22 12" aria-hidden="true" class="series c{one.kind}">'
        f'<path class="line" d="M-11 0H11"/>{mark(one.kind)}</svg>{escape(one.name)}</li>'
        for one in series
        if one.points
    )
    caption = "Up and to the left is better. Dashed: the unsplit network on the original pictures."
    if least is not None and any(value < least for one in series for _, value, _ in one.points):
        caption += f" Settings below {level(least)} are in the table alone."
    return f'<figure>{drawing}<ul class="legend">{legend}</ul><figcaption>{caption}</figcaption></figure>\n'


def _equal(comparison: Comparison) -> str:
    if len(comparison.codecs) < 2:
        return ""
    reference = comparison.reference
    rows = []
    for ranking in comparison.rankings:
        ratios = (ranking.ratio, ranking.ratio50)
        figures = [*map(str, ranking.needs), *("" if one is None else factor(one.ratio) for one in ratios)]
        rows.append((ranking.codec, figures, "reference" if ranking.codec == reference else ""))
    low, high = (f"{level(bounds[0])} to {level(bounds[1])}" for bounds in (AP_RANGE, AP50_RANGE))
    heads = [*(f"kB at {level(asked)}" for asked in LEVELS), "ratio by AP50-95", "ratio by AP50"]
    caption = (
        f"kB per frame at equal agreement. Ratio: bytes of {reference} over those of the codec, so that below 1 "
        f"{reference} takes fewer; the mean over agreement {low} (AP50-95) and {high} (AP50), as far as both codecs "
        "were measured there. "
        "<: the cheapest setting is better than that. no: not reached."
    )
    return "<h3>At equal agreement</h3>\n" + html_table(("codec", *heads), rows, caption)


def _table(records: Sequence[EvaluationRecord]) -> str:
    whole = records[0].map
    rows = []
    last = ""
    for record in records:
        lost = f"{1 - record.map / whole:+.1%}" if whole and record.map is not None else ""
        figures = [
            cell(record.kb_per_frame, 2),
            *(
                "" if value is None else score(value)
                for value in (record.agreement, record.agreement50, record.map, record.map50)
            ),
            lost if record.codec != "none" else "",
            cell(record.bits_per_coefficient, 2),
            *(cell(value, 2) for value in (record.encode_ms, record.decode_ms)),
        ]
        name = "unsplit" if record.codec == "none" else short_name(record, records)
        rows.append((name, figures, "first" if record.codec != last else ""))
        last = record.codec
    heads = ("kB", "agreement", "at .50", "mAP50-95", "mAP50", "mAP lost", "bits", "encode", "decode")
    first = next((record for record in records if record.head_ms is not None), None)
    compute = f"The whole network takes {cell(records[0].unsplit_ms, 1)} ms a frame unsplit"
    if first:
        compute += f", {cell(first.head_ms, 1)} ms up to the split and {cell(first.tail_ms, 1)} ms after it"
    caption = f"kB per frame; bits per coefficient; encode and decode in ms, medians a frame. {compute}."
    return "<h3>All settings</h3>\n" + html_table(("codec", *heads), rows, caption)


def _method(records: Sequence[EvaluationRecord]) -> str:
    codecs = list(dict.fromkeys(record.codec for record in records if record.codec != "none"))
    notes = {**_NOTES, **{name: form.note for name, form in FORMATS.items()}}
    driven = "".join(
        f"<li><b>{escape(name)}</b>: {escape(notes[name])}</li>\n" for name in codecs if name in notes
    )
    return (
        "<h2>How it was measured</h2>\n<ul>\n"
        "<li>A kB is 1000 bytes of what is sent: packets with their headers, files, or an encoder's packets with its "
        "parameter sets, without a container.</li>\n"
        "<li>Codecs of pixels code the very picture that the network's first layer sees, scaled and padded; the "
        "unsplit network then finds what it can in the decoded one. In a clip, video codecs make one intra frame "
        "and differences from there on.</li>\n"
        "<li>mAP is AP50-95, every class alike. Agreement is AP50-95 against the unsplit network's own detections "
        "above .30, every object alike; an exact copy scores 1.000.</li>\n"
        "<li>Between settings the logarithm of the rate is taken to run straight over agreement; a setting that a "
        "cheaper one equals is left out there. With some hundred objects, neighbouring settings differ by about "
        ".01 in agreement by chance, and ratios by some ten percent.</li>\n"
        f"{driven}</ul>\n"
    )


def _settings(settings: Mapping[str, Any]) -> str:
    rows = []
    for name, value in settings.items():
        text = (
            ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else value
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(text))}</td></tr>\n')
    return (
        '<h2>Settings</h2>\n<div class="box"><table class="settings"><tbody>\n'
        + "".join(rows)
        + "</tbody></table></div>\n"
    )
