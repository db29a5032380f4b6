"""What two codecs cost at equal quality, read off the curves that their settings draw."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Curve:
    """Least rate for a quality: log(rate) runs straight between neighboring settings.

    Both grow along the curve: a setting that a cheaper one equals or exceeds in quality is left out, because so near
    to each other settings differ by chance.
    """

    points: tuple[tuple[float, float], ...]  # (rate, quality), rates above zero

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> Self:
        """The curve of settings, each a rate and a quality, in any order."""
        kept: list[tuple[float, float]] = []
        for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
            if rate > 0 and (not kept or quality > kept[-1][1]):
                kept.append((rate, quality))
        return cls(tuple(kept))

    @property
    def least(self) -> float:
        """Quality of the cheapest setting; infinite without settings."""
        return self.points[0][1] if self.points else math.inf

    @property
    def most(self) -> float:
        """Quality that no setting exceeds; minus infinite without settings."""
        return self.points[-1][1] if self.points else -math.inf

    def rate_at(self, quality: float) -> float | None:
        """Rate for a quality; None outside of what was measured."""
        if not self.least <= quality <= self.most:
            return None
        return math.exp(float(np.interp(quality, *self.logarithmic())))

    def logarithmic(self) -> tuple[list[float], list[float]]:
        """Qualities in rising order, and the logarithms of their rates."""
        return [quality for _, quality in self.points], [math.log(rate) for rate, _ in self.points]


@dataclass(frozen=True, slots=True)
class RateRatio:
    """How many times the bytes of another codec one needs, as a mean over equal qualities."""

    ratio: float
    low: float  # of the qualities that were compared
    high: float


def rate_ratio(curve: Curve, other: Curve, low: float, high: float) -> RateRatio | None:
    """Rate of `curve` over that of `other`: exp of the mean difference of log(rate) from `low` to `high`.

    Only where both were measured; None if that is nowhere. It is Bjontegaard's delta rate, with straight lines for
    his polynomials.
    """
    low, high = max(low, curve.least, other.least), min(high, curve.most, other.most)
    if not low < high:
        return None
    ours, theirs = curve.logarithmic(), other.logarithmic()
    bends = (quality for quality in (*ours[0], *theirs[0]) if low < quality < high)
    qualities = np.array(sorted({low, high, *bends}))
    difference = np.interp(qualities, *ours) - np.interp(qualities, *theirs)
    mean = float(np.trapezoid(difference, qualities)) / (high - low)  # exact: straight between the bends
    return RateRatio(math.exp(mean), low, high)
