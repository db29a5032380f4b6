"""How sure a ratio of two codecs' rates is: a paired bootstrap over the pictures, or over the segments of a clip.

Both codecs saw the same pictures. So the pictures are drawn again with replacement, and both curves are drawn anew from
the same choice: what makes a picture hard for both does not blur their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.evaluation.comparison import AP_RANGE
from services.evaluation.curves import Curve, rate_ratio
from services.evaluation.matches import Matches
from services.evaluation.scores import Measured

CONFIDENCE = 0.90
CHOICES = (
    1000  # of pictures: an end of an interval then moves by a tenth of its width from one seed to the next
)
SEGMENT = (
    15  # frames of a clip that are chosen together: neighbors are alike, and half a second apart they differ
)
FEWEST = 8  # units to choose from: of fewer, the ends of an interval are single units
USABLE = 0.9  # share of the choices in which there has to be a ratio
SEED = 0

Quality: TypeAlias = Literal["distortion", "agreement"]
Bytes: TypeAlias = Literal["all", "differences"]
"""Of which frames: a stream that runs long has few keyframes, and one that is measured has many."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Bytes of one codec over those of another, and where the true ratio lies with a probability of CONFIDENCE."""

    ratio: float
    low: float | None  # None: too few pictures to tell
    high: float | None


@dataclass(frozen=True, slots=True)
class RatioAt:
    """A ratio at the quality of one setting of the other codec."""

    setting: str
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class RateComparison:
    """What one codec takes of another's bytes at equal quality."""

    codec: str
    against: str
    quality: Quality
    frames: Bytes
    mean: Ratio | None  # over the qualities that both reach; None if either has one setting
    at: tuple[RatioAt, ...]
    """At the other's settings, from least to most bytes, as far as the codec reaches them; at the codec's own, if it
    has one setting alone."""


@dataclass(frozen=True, slots=True, eq=False)
class SettingPoints:
    """One setting on every choice of frames: the first choice is all of them."""

    setting: str
    rate: Mapping[
        Bytes, _Floats
    ]  # (1 + CHOICES,), bytes per frame; not a number where there is no such frame
    quality: Mapping[Quality, _Floats]  # (1 + CHOICES,), more is better


def choices(sequences: Sequence[int]) -> tuple[_Floats, _Floats]:
    """How often each frame counts, (1 + CHOICES, frames), in quality and in bytes; first each of them once.

    Several sequences are drawn whole. A single one, a clip, is drawn by segments; its first frame, a keyframe of which
    there is one however long the clip, always counts once in bytes. Always the same for the same sequences; of fewer
    than FEWEST units there is no choice but the first.
    """
    numbers = np.asarray(sequences)
    frames = len(numbers)
    is_clip = len(np.unique(numbers)) == 1
    units = np.arange(frames) // SEGMENT if is_clip else np.unique(numbers, return_inverse=True)[1]
    count = int(units.max(initial=-1)) + 1
    if is_clip and frames % SEGMENT and count > 1:
        units = np.minimum(units, count - 2)  # the rest belongs to the last whole segment
        count -= 1
    weights = np.ones((1, frames))
    if count >= FEWEST:
        generator = np.random.default_rng(SEED)
        drawn = generator.multinomial(count, np.full(count, 1 / count), CHOICES)
        weights = np.vstack([weights, drawn[:, units]])
    of_bytes = weights.copy()
    if is_clip:
        of_bytes[:, :1] = 1
    return weights, of_bytes


def quality_of_distortion(distortion: _Floats) -> _Floats:
    """-log(D): against it the logarithm of a rate runs nearly straight. Infinite for a copy."""
    with np.errstate(divide="ignore"):
        quality: _Floats = -np.log(distortion)
    return quality


def rates_against(
    name: str, reference: Sequence[Measured], others: Sequence[Measured]
) -> list[RateComparison]:
    """What each codec takes of the reference's bytes, on the same frames; `name` is what the reference is called."""
    if not reference:
        return []
    drawn = choices(reference[0].scores.sequences)
    theirs = [_setting_points(measured, drawn) for measured in reference]
    ours: dict[str, list[SettingPoints]] = {}
    for measured in others:
        ours.setdefault(measured.name, []).append(_setting_points(measured, drawn))
    return [
        comparison
        for codec, points in ours.items()
        for comparison in compare_rates(codec, points, name, theirs)
    ]


def _setting_points(measured: Measured, drawn: tuple[_Floats, _Floats]) -> SettingPoints:
    (weights, of_bytes), scores = drawn, measured.scores
    frames = weights.sum(1)
    quality: dict[Quality, _Floats] = {
        "distortion": quality_of_distortion(weights @ np.array(scores.distortions) / frames)
    }
    if scores.agreement.objects:
        quality["agreement"] = Matches(scores.agreement.frames).agreement(weights)
    sizes, is_key = np.array(scores.frame_bytes, float), np.array(scores.frame_is_key)
    with np.errstate(invalid="ignore"):
        differences = weights @ (sizes * ~is_key) / (weights @ ~is_key)
    rate: dict[Bytes, _Floats] = {"all": of_bytes @ sizes / frames, "differences": differences}
    return SettingPoints(str(measured.codec), rate, quality)


def compare_rates(
    codec: str, points: Sequence[SettingPoints], against: str, others: Sequence[SettingPoints]
) -> list[RateComparison]:
    """What a codec takes of another's bytes by each quality of which there is a ratio, in all and in differences."""
    qualities: tuple[Quality, ...] = ("distortion", "agreement")
    kinds: tuple[Bytes, ...] = ("all", "differences")
    compared = (
        _compare(codec, points, against, others, quality=quality, kind=kind)
        for kind in kinds
        for quality in qualities
        if all(quality in point.quality for point in (*points, *others))
    )
    return [comparison for comparison in compared if comparison.mean or comparison.at]


def _compare(
    codec: str,
    points: Sequence[SettingPoints],
    against: str,
    others: Sequence[SettingPoints],
    *,
    quality: Quality,
    kind: Bytes,
) -> RateComparison:
    low, high = AP_RANGE if quality == "agreement" else (-math.inf, math.inf)
    at_ours = len(points) == 1
    settings = sorted(points if at_ours else others, key=lambda point: float(point.rate[kind][0]))
    means, at = [], list[list[float]]()
    for n in range(len(points[0].rate[kind])):
        ours, theirs = _curve(points, quality, kind, n), _curve(others, quality, kind, n)
        mean = rate_ratio(ours, theirs, low, high)
        means.append(mean.ratio if mean else math.nan)
        ratios = [_ratio_at(theirs if at_ours else ours, point, quality, kind, n) for point in settings]
        at.append([1 / ratio for ratio in ratios] if at_ours else ratios)
    return RateComparison(
        codec,
        against,
        quality,
        kind,
        _ratio(means),
        tuple(
            RatioAt(point.setting, ratio)
            for point, ratios in zip(settings, zip(*at, strict=True), strict=True)
            if (ratio := _ratio(ratios))
        ),
    )


def _curve(points: Sequence[SettingPoints], quality: Quality, kind: Bytes, n: int) -> Curve:
    pairs = ((float(point.rate[kind][n]), float(point.quality[quality][n])) for point in points)
    return Curve.through((rate, value) for rate, value in pairs if math.isfinite(rate + value))


def _ratio_at(curve: Curve, point: SettingPoints, quality: Quality, kind: Bytes, n: int) -> float:
    """Rate of the curve over that of the point at its quality; not a number where the curve does not reach it."""
    value = float(point.quality[quality][n])
    rate, own = curve.rate_at(value) if math.isfinite(value) else None, float(point.rate[kind][n])
    return math.nan if rate is None or not own else rate / own


def _ratio(ratios: Sequence[float]) -> Ratio | None:
    """The first of the ratios, with the interval that the others make; None if the first is not a number."""
    first, drawn = ratios[0], np.array(ratios[1:])
    if math.isnan(first):
        return None
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or len(drawn) < USABLE * (len(ratios) - 1):
        return Ratio(round(first, 4), None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Ratio(round(first, 4), round(float(low), 4), round(float(high), 4))
