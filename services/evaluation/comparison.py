"""What the records of one source say of its codecs, in figures at equal quality and in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from services.evaluation.curves import Curve, RateRatio, rate_ratio
from services.evaluation.scores import EvaluationRecord

LEVELS = (0.86, 0.90, 0.95)  # agreement at which codecs are compared one by one
AP_RANGE = (0.70, 0.98)  # agreement over which their rates are compared in the mean
AP50_RANGE = (0.90, 0.99)
LOSS = 0.03  # of mAP: what is less is lost in the noise of some hundred images

Score: TypeAlias = Literal["agreement", "agreement50", "map"]
_RANGES: tuple[tuple[Score, tuple[float, float]], ...] = (
    ("agreement", AP_RANGE),
    ("agreement50", AP50_RANGE),
)


@dataclass(frozen=True, slots=True)
class RequiredRate:
    """What a codec needs for a quality, in kB per frame."""

    kb: float | None  # None if it does not get there
    less: bool = False  # its cheapest setting is already better: it needs no more than `kb`

    def __str__(self) -> str:
        return "no" if self.kb is None else f"{'< ' if self.less else ''}{kilobytes(self.kb)}"


@dataclass(frozen=True, slots=True)
class Ranking:
    """One codec among the others."""

    codec: str
    needs: tuple[RequiredRate, ...]  # at LEVELS
    most: float  # the best agreement of its settings
    ratio: RateRatio | None  # bytes of the reference over this codec's, at equal agreement
    ratio50: RateRatio | None  # the same by agreement at an overlap of one half


class Comparison:
    """The codecs of one source, compared by the curves of their settings."""

    def __init__(self, records: Sequence[EvaluationRecord]) -> None:
        """The records of one source, the network unsplit first."""
        self.ceiling, *self.coded = records
        self.codecs = list(dict.fromkeys(record.codec for record in self.coded))
        drawn = [codec for codec in self.codecs if len(self._of(codec)) > 1] or self.codecs
        self.reference = next((codec for codec in ("feature", "rle") if codec in drawn), (drawn or [""])[0])
        self.rankings = [self._ranking(codec) for codec in self.codecs]

    def _of(self, codec: str) -> list[EvaluationRecord]:
        return [record for record in self.coded if record.codec == codec]

    def curve(self, codec: str, score: Score = "agreement") -> Curve:
        """kB per frame against a score of a codec's settings."""
        return Curve.through(points(self._of(codec), score))

    def _ranking(self, codec: str) -> Ranking:
        curve = self.curve(codec)
        ratios = [
            rate_ratio(self.curve(self.reference, score), self.curve(codec, score), *bounds)
            for score, bounds in _RANGES
            if codec != self.reference
        ] or [None, None]
        return Ranking(
            codec, tuple(_required_rate(curve, quality) for quality in LEVELS), curve.most, *ratios
        )

    def sentences(self) -> list[str]:
        """The conclusion in words."""
        return [text for text in (self._at_a_level(), self._in_the_mean(), self._loss()) if text]

    def _at_a_level(self) -> str:
        """What the codecs need for the highest level that more than one gets to."""
        for number, quality in reversed(list(enumerate(LEVELS))):
            rates = {ranking.codec: ranking.needs[number] for ranking in self.rankings}
            reached = sorted((rate.kb, codec) for codec, rate in rates.items() if rate.kb is not None)
            if not reached or len(reached) < min(2, len(self.rankings)):
                continue
            needs = ", ".join(f"{codec} {rates[codec]} kB" for _, codec in reached)
            missed = ", ".join(
                f"{ranking.codec} ({score(ranking.most)} at best)"
                for ranking in self.rankings
                if rates[ranking.codec].kb is None
            )
            rest = f" Not reached by {missed}." if missed else ""
            return f"At an agreement of {level(quality)} a frame needs: {needs}.{rest}"
        return ""

    def _in_the_mean(self) -> str:
        compared = sorted((ranking.ratio.ratio, ranking.codec) for ranking in self.rankings if ranking.ratio)
        if not compared:
            return ""
        ratios = ", ".join(f"{codec} {factor(ratio)}" for ratio, codec in compared)
        low, high = map(level, AP_RANGE)
        return (
            f"Bytes of {self.reference} over those of the others at equal agreement, in the mean from {low} to {high}: "
            f"{ratios}."
        )

    def _loss(self) -> str:
        """From which setting on the mAP against the labels is kept."""
        whole = self.ceiling.map
        if not whole or not self.coded:
            return ""
        kept, lost = [], []
        for codec in self.codecs:
            cheapest = None
            for record in sorted(self._of(codec), key=lambda record: -(record.kb_per_frame or 0)):
                if (record.map or 0) < (1 - LOSS) * whole:
                    break
                cheapest = record
            if cheapest is None:
                lost.append(codec)
            else:
                kept.append((cheapest.kb_per_frame or 0, short_name(cheapest, self.coded)))
        settings = ", ".join(f"{name} ({kilobytes(kb)} kB)" for kb, name in sorted(kept)) or "none"
        rest = f" Not even at their finest: {', '.join(lost)}." if lost else ""
        within = f"within {LOSS:.0%} of the unsplit network's {score(whole)}"
        return f"mAP stays {within} from these settings on: {settings}.{rest}"


def points(records: Iterable[EvaluationRecord], score: Score) -> list[tuple[float, float]]:
    """kB per frame and score of the records that have both."""
    pairs = ((record.kb_per_frame, getattr(record, score)) for record in records)
    return [(kb, value) for kb, value in pairs if kb is not None and value is not None]


def _required_rate(curve: Curve, quality: float) -> RequiredRate:
    if quality > curve.most or not curve.points:
        return RequiredRate(None)
    if quality < curve.least:
        return RequiredRate(curve.points[0][0], less=True)
    return RequiredRate(curve.rate_at(quality))


def short_name(record: EvaluationRecord, records: Sequence[EvaluationRecord]) -> str:
    """The codec with those of its parameters in which its records differ."""
    settings = [set(other.setting.split(",")) for other in records if other.codec == record.codec]
    common = set.intersection(*settings) if len(settings) > 1 else set()
    parameters = (parameter for parameter in record.setting.split(",") if parameter not in common)
    return " ".join((record.codec, *parameters)).rstrip()


def kilobytes(kb: float) -> str:
    """Three digits, which is what such a figure is good for."""
    return f"{kb:.0f}" if kb >= 99.95 else f"{kb:.1f}" if kb >= 9.995 else f"{kb:.2f}"


def factor(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}".removeprefix("0")


def score(value: float) -> str:
    """A share of one as it is usual for precision: .951."""
    return f"{value:.3f}".removeprefix("0")


def level(value: float) -> str:
    """A round score: .95."""
    return f"{value:.2f}".removeprefix("0")
