"""Beyond the paper: what its conclusions leave in the bits, at equal accuracy.

The paper codes runs of the lowest level, with one range for a whole tensor, and stops there. Compared are runs of the
most frequent level, a range for each channel, the order-0 entropy of the levels (a bound no packet reaches), zstd on
the levels, and the feature codec.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
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
from services.errors import NotMeasurable
from services.evaluation.curves import Curve
from services.evaluation.plot import looks
from services.profiles import resolve
from services.study.accuracy import SCORES, Change, accuracies, main_score, through
from services.study.draw import label, legend, panels, stamp
from services.study.levels import BITS, QUICK_BITS, RANGE_BYTES, level_entropy, levels_of, zero_run_bytes
from services.study.record import StudyRecord, by_subject
from services.study.section import KIB, Claim, Drawing, Section, Table
from services.study.study import Experiment, Study
from services.study.subject import SplitSample, Subject, Tensors

LOSSES = (0.01, 0.03, 0.10)  # shares of the whole score
ENOUGH = (
    0.8  # of the bytes of the paper's code: what nothing may take less than, if that code is to be enough
)

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
    tensors = list(levels.values())
    head = ranges * RANGE_BYTES
    plain = b"".join(tensor.tobytes() for tensor in tensors)
    return {
        "frequent": head + sum(1 + zero_run_bytes(frequent_first(tensor), bits) for tensor in tensors),
        "zstd": head + len(zstandard.ZstdCompressor(level=3).compress(plain)),
        "entropy": head + sum(level_entropy(tensor, bits) * tensor.size / 8 for tensor in tensors),
    }


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.stills(subject)
    points: list[dict[str, Any]] = [
        {"ranges": kind, "bits": bits}
        for bits in (QUICK_BITS if study.quick else BITS)
        for kind in ("tensor", "channel")
    ]
    points += [{"feature": quality} for quality in ((3, 5) if study.quick else range(1, 11))]
    missing = study.missing("redundancy", subject, pictures, points)
    if not missing:
        return
    codec = resolve(parse_codec("feature"), subject.weights, subject.split)
    assert isinstance(codec, Feature)
    sizes_of: list[list[dict[str, float]]] = [[] for _ in missing]
    changes = {
        number: _counting(_change(point, codec), sizes_of[number], point)
        for number, point in enumerate(missing)
    }
    samples = study.samples(subject, pictures, 8 if study.quick else None)
    scores = _scores(study, subject, samples, changes)
    for number, point in enumerate(missing):
        by_picture = sizes_of[number]
        values: dict[str, Any] = {
            way: round(statistics.fmean(row[way] for row in by_picture), 1) for way in by_picture[0]
        }
        if "feature" in point:
            values["calibrated"] = codec.profile is not None
        study.write("redundancy", subject, pictures, point, values={**values, "scores": scores[number]})


def _scores(
    study: Study, subject: Subject, samples: Iterable[SplitSample], changes: Mapping[int, Change]
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


def _counting(change: Change, by_picture: list[dict[str, float]], settings: Mapping[str, Any]) -> Change:
    """The change, with the bytes of each way to code it noted down."""

    def counted(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        changed, size = change(tensors, layout)
        if "feature" in settings:
            by_picture.append({"feature": size})
        elif settings["ranges"] == "tensor":
            levels = levels_of(tensors, settings["bits"])
            by_picture.append({"rle": size, **sizes(levels, settings["bits"], len(tensors))})
        else:
            levels = {name: channel_levels(tensor, settings["bits"])[0] for name, tensor in tensors.items()}
            coded = sizes(levels, settings["bits"], sum(tensor.shape[0] for tensor in tensors.values()))
            by_picture.append({f"channel {way}": size for way, size in coded.items()})
        return changed, size

    return counted


class _WaysToCode:
    """The records of one network as curves: KiB a picture, and the score, or the bits where there is none."""

    def __init__(self, group: Sequence[StudyRecord]) -> None:
        self.name = label(group[0])
        self.score = main_score(group[0].values["scores"])
        self.calibrated = all(record.values.get("calibrated", True) for record in group)
        self.points: dict[str, list[tuple[float, float]]] = {}
        for way in WAYS:
            points = [
                (
                    record.values[way] / KIB,
                    record.values["scores"].get(self.score, record.settings.get("bits", 0)),
                )
                for record in group
                if way in record.values and (self.score or "bits" in record.settings)
            ]
            if points:
                self.points[way] = sorted(points)

    def rates_at(self, loss: float) -> dict[str, float | None]:
        """KiB a picture of each way where so much of the best score of all settings is lost."""
        best = max(score for points in self.points.values() for _, score in points)
        return {way: Curve.through(points).rate_at((1 - loss) * best) for way, points in self.points.items()}

    def rows(self) -> list[list[str]]:
        if self.score is None:
            return []
        columns = [self.rates_at(loss) for loss in LOSSES]
        return [
            [
                self.name,
                WAYS[way],
                *("" if (rate := rates[way]) is None else f"{rate:.1f}" for rates in columns),
            ]
            for way in self.points
        ]

    def claims(self) -> list[Claim]:
        for loss in LOSSES if self.score else ():
            rates = self.rates_at(loss)
            theirs = rates.get("rle")
            others = {
                way: rate for way, rate in rates.items() if rate and way != "rle" and "entropy" not in way
            }
            if theirs and others:
                best = min(others, key=others.__getitem__)
                by_rate = sorted(others.items(), key=lambda pair: pair[1])
                share = others[best] / theirs
                return [
                    Claim(
                        "Quantization and run-length coding are enough (the title).",
                        f"{self.name}, KiB at {loss:.0%} loss: {WAYS['rle']} {theirs:.1f}; "
                        f"{', '.join(f'{WAYS[way]} {rate:.1f}' for way, rate in by_rate)}.",
                        f"This {'agrees' if share > ENOUGH else 'does not agree'}: {WAYS[best]} takes {share:.2f} of "
                        "the bytes (enough: nothing takes less than .80).",
                    )
                ]
        return []


def _present(records: Sequence[StudyRecord]) -> Section:
    networks = [_WaysToCode(group) for group in by_subject(records)]
    figure, axes = panels(len(networks), width=5.0, height=4.2)
    style = looks(WAYS)
    for network, axis in zip(networks, axes, strict=True):
        for way, points in network.points.items():
            axis.plot(*zip(*points, strict=True), label=WAYS[way], **style[way])
        axis.set(title=network.name, xscale="log", xlabel="KiB a picture")
        axis.set(ylabel=SCORES[network.score] if network.score else "bits per coefficient")
        legend(axis, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    stamp(figure, records)
    heads = [f"KiB at {loss:.0%} loss" for loss in LOSSES]
    rows = [row for network in networks for row in network.rows()]
    return Section(
        title="What is left in the bits",
        paper="",
        method=(
            "The same levels in different codes, with one range a tensor as in the paper, or one a channel; entropies "
            "are bounds without any table. KiB at equal accuracy are read off the curves, whose logarithm runs "
            "straight between settings; losses are shares of the best score of all settings."
        ),
        drawings=[Drawing("redundancy", figure, "Accuracy against bytes; to the left is better.")],
        tables=[Table("KiB a picture at equal accuracy", ["network", "way", *heads], rows)] if rows else [],
        claims=[claim for network in networks for claim in network.claims()],
        notes=[
            f"{network.name}: the feature codec without calibration, for want of a profile."
            for network in networks
            if not network.calibrated
        ],
    )


redundancy = Experiment("redundancy", "what the paper's code leaves in the bits", _measure, _present)
