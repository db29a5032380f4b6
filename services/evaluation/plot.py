"""Rate against quality as an SVG picture, for a page that brings the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH, HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 36, 46  # margins, wide enough for letters twice as large on a phone
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True, slots=True)
class Series:
    """The settings of one codec."""

    name: str
    kind: int  # which of the page's colours: class `c0`, `c1`, ...
    points: Sequence[tuple[float, float, str]]  # kB per frame, quality, and what the pointer is told there


def plot(
    series: Sequence[Series], quality: str, ceiling: float | None, title: str, least: float | None = None
) -> str:
    """An SVG element: kB per frame on a logarithmic axis, `quality` on a straight one.

    `ceiling` is drawn as a line across. What lies below `least` is left out. Empty without points.
    """
    series = [
        replace(one, points=[point for point in one.points if least is None or point[1] >= least])
        for one in series
    ]
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    axes = _Axes(
        [kb for one in shown for kb, _, _ in one.points],
        [value for one in shown for _, value, _ in one.points] + ([ceiling] if ceiling else []),
    )
    parts = [*axes.draw(quality)]
    if ceiling:
        y = axes.y(ceiling)
        parts.append(f'<path class="ceiling" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
    for one in shown:
        path = "L".join(f"{axes.x(kb):.1f} {axes.y(value):.1f}" for kb, value, _ in sorted(one.points))
        marks = "".join(
            f'<g transform="translate({axes.x(kb):.1f} {axes.y(value):.1f})">{mark(one.kind)}'
            f"<title>{escape(told)}</title></g>"
            for kb, value, told in one.points
        )
        parts.append(f'<g class="series c{one.kind}"><path class="line" d="M{path}"/>{marks}</g>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def mark(kind: int) -> str:
    """The sign of a codec: neighbours in colour differ in shape."""
    match _MARKS[kind % len(_MARKS)]:
        case "circle":
            return '<circle r="4"/>'
        case "square":
            return '<path d="M-3.6 -3.6H3.6V3.6H-3.6Z"/>'
        case "diamond":
            return '<path d="M0 -5L5 0L0 5L-5 0Z"/>'
        case _:
            return '<path d="M0 -4.8L4.6 3.6H-4.6Z"/>'


class _Axes:
    def __init__(self, rates: Sequence[float], qualities: Sequence[float]) -> None:
        self._low, self._high = math.log(min(rates) / 1.15), math.log(max(rates) * 1.15)
        self._bottom = math.floor(min(qualities) * 20 - 1e-9) / 20
        self._top = math.ceil(max(qualities) * 20 + 1e-9) / 20

    def x(self, rate: float) -> float:
        share = (math.log(rate) - self._low) / (self._high - self._low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, quality: float) -> float:
        share = (quality - self._bottom) / (self._top - self._bottom)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def draw(self, quality: str) -> list[str]:
        """Grid, figures and names of the axes."""
        parts = []
        foot = HEIGHT - _BOTTOM
        for rate in self._rates():
            x = self.x(rate)
            parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{foot}"/>')
            parts.append(f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle">{rate:g}</text>')
        steps = round((self._top - self._bottom) * 20)
        every = 1 if steps <= 8 else 2 if steps <= 14 else 4
        for step in range(0, steps + 1, every):
            value = self._bottom + step / 20
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        parts.append(
            f'<text class="axis" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">kB per frame</text>'
        )
        parts.append(f'<text class="axis" x="4" y="18">{escape(quality)}</text>')
        return parts

    def _rates(self) -> list[float]:
        """1, 2 and 5 times powers of ten that lie on the axis."""
        decades = range(math.floor(self._low / math.log(10)), math.ceil(self._high / math.log(10)) + 1)
        rates = (times * 10.0**decade for decade in decades for times in (1, 2, 5))
        return [rate for rate in rates if self._low <= math.log(rate) <= self._high]
