"""Beyond the paper: what its conclusions leave in the bits, at equal accuracy.

The paper codes runs of the lowest level, with one range for a whole tensor, and stops there. Compared are runs of the
most frequent level, a range for each channel, the order-0 entropy of the levels (a bound no packet reaches), zstd on
the levels, and the feature codec.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from codec.feature.codec import Feature
from codec.layout import FloatArray, Layout
from codec.rle.codec import Rle
from codec.rle.kernels import Levels
from codec.spec import parse_codec
from codec.value_range import ValueRange
from services.errors import NotMeasurable
from services.evaluation.curves import Curve
from services.profiles import resolve
from services.study.accuracy import Change, accuracies, through
from services.study.draw import label, legend, looks, panels, stamp
from services.study.experiment import Experiment
from services.study.experiments.differences import entropy, zero_run_bytes
from services.study.experiments.lossless import levels_of
from services.study.experiments.quantization import BITS, SCORES, main_score
from services.study.record import Record, by_subject
from services.study.section import KB, Claim, Drawing, Section, Table
from services.study.study import Study
from services.study.subject import Subject, Tensors

_RANGE_BYTES = ValueRange.WIRE.size
LOSSES = (0.01, 0.03, 0.10)  # shares of the whole score

WAYS = {
    "rle": "rle, as in the paper",
    "frequent": "runs of the most frequent level",
    "zstd": "zstd on the levels",
    "entropy": "entropy of the levels (bound)",
    "channel frequent": "range a channel, runs of the most frequent",
    "channel zstd": "range a channel, zstd",
    "channel entropy": "range a channel, entropy (bound)",
    "feature": "feature codec",
}


def channel_levels(tensor: FloatArray, bits: int) -> tuple[Levels, NDArray[np.float32]]:
    """Levels (C, H, W) of a tensor by a range for each channel, and the tensor that they stand for."""
    low, high = (
        getattr(tensor, end)(axis=(1, 2), keepdims=True).astype(np.float64) for end in ("min", "max")
    )
    step = (high - low) / (2**bits - 1)
    scale = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    levels = np.floor((tensor - low) * scale + 0.5).astype(np.uint8)
    return levels, (low + levels * step).astype(np.float32)


def frequent_first(levels: Levels) -> Levels:
    """The levels with the most frequent one and 0 exchanged, so that the paper's code finds its runs."""
    most = np.bincount(levels.reshape(-1)).argmax()
    table = np.arange(256, dtype=np.uint8)
    table[0], table[most] = most, 0
    return table[levels]


def sizes(levels: Mapping[str, Levels], bits: int, ranges: int) -> dict[str, float]:
    """Bytes of the levels of all tensors in different codes, each with so many ranges of two float32."""
    symbols = list(levels.values())
    head = ranges * _RANGE_BYTES
    return {
        "frequent": head + sum(1 + zero_run_bytes(frequent_first(one), bits) for one in symbols),
        "zstd": head
        + len(zstandard.ZstdCompressor(level=3).compress(b"".join(one.tobytes() for one in symbols))),
        "entropy": head + sum(entropy(one, bits) * one.size / 8 for one in symbols),
    }


def _measure(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            bits_asked = (3, 4) if study.quick else BITS
            qualities = (3, 5) if study.quick else range(1, 11)
            asked: list[dict[str, Any]] = [
                {"ranges": kind, "bits": b} for b in bits_asked for kind in ("tensor", "channel")
            ]
            asked += [{"feature": quality} for quality in qualities]
            missing = study.missing("redundancy", subject, source, asked)
            if not missing:
                continue
            codec = resolve(parse_codec("feature"), subject.weights, subject.split)
            assert isinstance(codec, Feature)
            found: dict[int, list[dict[str, float]]] = {number: [] for number in range(len(missing))}
            changes = {
                number: _counting(_change(one, codec), found[number], one)
                for number, one in enumerate(missing)
            }
            samples = study.samples(subject, source, 8 if study.quick else None)
            scores = _scores(study, subject, samples, changes)
            for number, one in enumerate(missing):
                values: dict[str, Any] = {
                    key: round(statistics.fmean(each[key] for each in found[number]), 1)
                    for key in found[number][0]
                }
                if "feature" in one:
                    values["calibrated"] = codec.profile != "none"
                study.write("redundancy", subject, source, one, values={**values, "scores": scores[number]})


def _scores(
    study: Study, subject: Subject, samples: Any, changes: Mapping[int, Change]
) -> Mapping[int, Mapping[str, float]]:
    """Accuracy under each change; with random weights only the sizes count, and no scores are given."""
    try:
        study.judged(subject)
    except NotMeasurable:
        for sample in samples:
            for change in changes.values():
                change(sample.tensors, sample.layout)
        return {number: {} for number in changes}
    return {number: outcome.scores for number, outcome in accuracies(subject, samples, changes).items()}


def _change(settings: Mapping[str, Any], codec: Feature) -> Change:
    if "feature" in settings:
        return through(replace(codec, quality=settings["feature"]))
    if settings["ranges"] == "tensor":
        return through(Rle(settings["bits"]))

    def by_channel(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        return {name: channel_levels(tensor, settings["bits"])[1] for name, tensor in tensors.items()}, 0

    return by_channel


def _counting(change: Change, found: list[dict[str, float]], settings: Mapping[str, Any]) -> Change:
    """The change, with the bytes of each way to code it noted down."""

    def counted(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        changed, size = change(tensors, layout)
        if "feature" in settings:
            found.append({"feature": size})
        elif settings["ranges"] == "tensor":
            bits = settings["bits"]
            levels = {name: levels_of(one.reshape(-1), bits, name)[0] for name, one in tensors.items()}
            found.append({"rle": size, **sizes(levels, bits, len(tensors))})
        else:
            levels = {name: channel_levels(one, settings["bits"])[0] for name, one in tensors.items()}
            coded = sizes(levels, settings["bits"], sum(one.shape[0] for one in tensors.values()))
            found.append({f"channel {way}": size for way, size in coded.items()})
        return changed, size

    return counted


def _present(records: Sequence[Record]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=5.0, height=4.2)
    style = looks(WAYS)
    rows, claims, notes = [], [], []
    for group, axis in zip(groups, axes, strict=True):
        score = main_score(group[0].values["scores"])
        points: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for one in group:
            at = one.values["scores"].get(score, one.settings.get("bits", 0))
            for way in WAYS:
                if way in one.values and (score or "bits" in one.settings):
                    points[way].append((one.values[way] / KB, at))
        for way, found in points.items():
            if found:
                axis.plot(*zip(*sorted(found), strict=True), label=WAYS[way], **style[way])
        axis.set(title=label(group[0]), xscale="log", xlabel="kB a picture")
        axis.set(ylabel=SCORES[score] if score else "bits per coefficient")
        legend(axis, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        if any(one.values.get("calibrated") is False for one in group):
            notes.append(f"{label(group[0])}: the feature codec without calibration, for want of a profile.")
        if score:
            needs = {way: _needs(found, points) for way, found in points.items() if found}
            rows += [[label(group[0]), WAYS[way], *told] for way, told in needs.items()]
            claims += _claim(label(group[0]), points)
    stamp(figure, records)
    heads = [f"kB at {loss:.0%} loss" for loss in LOSSES]
    return Section(
        title="What is left in the bits",
        paper="",
        method=(
            "The same levels in different codes, with one range a tensor as in the paper, or one a channel; entropies "
            "are bounds without any table. kB at equal accuracy are read off the curves, whose logarithm runs straight "
            "between settings; losses are shares of the best score of all settings."
        ),
        drawings=[Drawing("redundancy", figure, "Accuracy against bytes; to the left is better.")],
        tables=[Table("kB a picture at equal accuracy", ["network", "way", *heads], rows)] if rows else [],
        claims=claims,
        notes=notes,
    )


def _best(points: Mapping[str, Sequence[tuple[float, float]]]) -> float:
    return max(score for found in points.values() for _, score in found)


def _needs(
    found: Sequence[tuple[float, float]], points: Mapping[str, Sequence[tuple[float, float]]]
) -> list[str]:
    curve = Curve.through(found)
    rates = [curve.rate_at((1 - loss) * _best(points)) for loss in LOSSES]
    return ["" if rate is None else f"{rate:.1f}" for rate in rates]


def _claim(name: str, points: Mapping[str, Sequence[tuple[float, float]]]) -> list[Claim]:
    for loss in LOSSES:
        asked = (1 - loss) * _best(points)
        rates = {way: Curve.through(found).rate_at(asked) for way, found in points.items() if found}
        theirs = rates.get("rle")
        others = {way: rate for way, rate in rates.items() if rate and way != "rle" and "entropy" not in way}
        if theirs and others:
            best = min(others, key=others.__getitem__)
            told = ", ".join(
                f"{WAYS[way]} {rate:.1f}" for way, rate in sorted(others.items(), key=lambda pair: pair[1])
            )
            factor = theirs / others[best]
            return [
                Claim(
                    "Quantization and run-length coding are enough (the title).",
                    f"{name}, kB at {loss:.0%} loss: {WAYS['rle']} {theirs:.1f}; {told}.",
                    f"This {'agrees' if factor < 1.25 else 'does not agree'}: {WAYS[best]} takes {1 / factor:.2f} of "
                    "the bytes (enough: nothing takes less than .80).",
                )
            ]
    return []


redundancy = Experiment("redundancy", "what the paper's code leaves in the bits", _measure, _present)
