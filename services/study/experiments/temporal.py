"""Beyond the paper: what quantized levels have in common with those of the frame before."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from codec.interface import Encoder
from codec.layout import Layout
from codec.packet import Stamp
from codec.rle.codec import Rle
from codec.rle.kernels import Levels
from codec.spec import parse_codec
from services.errors import NotMeasurable
from services.evaluation.plot import looks
from services.profiles import resolve
from services.study.dataset import PictureSet
from services.study.draw import label, legend, panels
from services.study.levels import BITS, QUICK_BITS, entropy, level_entropy, levels_of
from services.study.record import Settings, StudyRecord, by_subject, rounded
from services.study.section import Claim, Drawing, Section, Table, kibibytes, percent
from services.study.study import Experiment, Study
from services.study.subject import Subject, Tensors

ENTROPIES = {
    "levels": "entropy",
    "differences": "difference_entropy",
    "given the level before": "conditional_entropy",
}
"""What is drawn, and its key in a record's values."""


def conditional_entropy(levels: Levels, before: Levels, bits: int) -> float:
    """Bits each that levels need for somebody who knows the levels at the same places before: H(X | Y)."""
    joint = np.bincount(before.reshape(-1).astype(np.int64) << bits | levels.reshape(-1), minlength=4**bits)
    return entropy(joint) - level_entropy(before, bits)


def _measure(study: Study) -> None:
    with study.refusing():
        study.clip()
    for clip in study.clips:
        for subject in study.subjects:
            if "map" in subject.scores:
                with study.refusing():
                    _measure_clip(study, subject, clip)


def _measure_clip(study: Study, subject: Subject, clip: PictureSet) -> None:
    points: list[Settings] = [{"bits": bits} for bits in (QUICK_BITS if study.quick else BITS)]
    points.append({"codec": "feature"})
    missing = study.missing("temporal", subject, clip, points)
    trackers = [
        _LevelTracker(point["bits"]) if "bits" in point else _FeatureTracker(subject.weights, subject.split)
        for point in missing
    ]
    for sample in study.samples(subject, clip) if missing else ():
        for tracker in trackers:
            tracker.add(sample.tensors, sample.layout)
    for point, tracker in zip(missing, trackers, strict=True):
        study.write("temporal", subject, clip, point, values=tracker.values())


class _Tracker(Protocol):
    """Compares each frame with the one before."""

    def add(self, tensors: Tensors, layout: Layout) -> None:
        """The next frame."""

    def values(self) -> dict[str, Any]:
        """Means over all frames but the first. Raises NotMeasurable if there are none."""


class _LevelTracker:
    """What levels have in common with those of the frame before, and what packets of the paper's code take."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._before: dict[str, Levels] = {}
        self._frames: list[dict[str, float]] = []
        self._still = Rle(bits)
        self._moving = Rle(bits, temporal=True)
        self._encoders: list[Encoder] = []
        self._sequence = 0

    def add(self, tensors: Tensors, layout: Layout) -> None:
        levels = levels_of(tensors, self._bits)
        if not self._encoders:
            self._encoders = [self._still.encoder(layout), self._moving.encoder(layout)]
        packet_stamp = Stamp(self._sequence, 0, 1, 1)
        still, moving = (len(encoder.encode(tensors, packet_stamp).data) for encoder in self._encoders)
        self._sequence += 1
        if self._before:
            common = self._compared([(now, self._before[name]) for name, now in levels.items()])
            self._frames.append({**common, "still_bytes": still, "temporal_bytes": moving})
        self._before = levels

    def _compared(self, pairs: Sequence[tuple[Levels, Levels]]) -> dict[str, float]:
        """Shares and entropies, a level, of tensors and the same ones before.

        Every frame is quantized by its own range, as the paper does it; the code in use aligns the two.
        """
        bits, mask = self._bits, np.uint8(2**self._bits - 1)
        count = sum(now.size for now, _ in pairs)
        return {
            "unchanged": sum(int((now == then).sum()) for now, then in pairs) / count,
            "entropy": sum(level_entropy(now, bits) * now.size for now, _ in pairs) / count,
            "difference_entropy": sum(
                level_entropy((now - then) & mask, bits) * now.size for now, then in pairs
            )
            / count,
            "conditional_entropy": sum(conditional_entropy(now, then, bits) * now.size for now, then in pairs)
            / count,
        }

    def values(self) -> dict[str, Any]:
        if not self._frames:
            raise NotMeasurable("correlation in time takes a clip of two frames or more")
        return {
            key: rounded(statistics.fmean(frame[key] for frame in self._frames)) for key in self._frames[0]
        }


class _FeatureTracker:
    """Bytes of the feature codec, all keyframes and as differences, on the same frames after the first."""

    def __init__(self, weights: str, split: str) -> None:
        self._codec = resolve(parse_codec("feature"), weights, split)
        self._calibrated = self._codec.profile is not None
        self._moving: Encoder | None = None
        self._sizes: list[tuple[int, int]] = []
        self._sequence = 0

    def add(self, tensors: Tensors, layout: Layout) -> None:
        self._moving = self._moving or self._codec.encoder(layout)
        moving = len(self._moving.encode(tensors, Stamp(self._sequence, 0, 1, 1)).data)
        still = len(self._codec.encoder(layout).encode(tensors, Stamp(0, 0, 1, 1)).data)
        self._sequence += 1
        self._sizes.append((still, moving))

    def values(self) -> dict[str, Any]:
        if len(self._sizes) < 2:
            raise NotMeasurable("correlation in time takes a clip of two frames or more")
        still, moving = zip(*self._sizes[1:], strict=True)
        return {
            "still_bytes": round(statistics.fmean(still), 1),
            "temporal_bytes": round(statistics.fmean(moving), 1),
            "calibrated": self._calibrated,
        }


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=4.2)
    style = looks(ENTROPIES)
    claims = []
    for group, axis in zip(groups, axes, strict=True):
        clip = group[0].source
        by_bits = {record.settings["bits"]: record.values for record in group if "bits" in record.settings}
        bits = [number for number in BITS if number in by_bits]
        for name, key in ENTROPIES.items():
            axis.plot(bits, [by_bits[number][key] for number in bits], label=name, **style[name])
        title = f"{label(group[0])}\n{clip}"
        axis.set(title=title, xlabel="bits per coefficient", ylabel="entropy, bits", ylim=(0, None))
        legend(axis)
        claims += _claim(f"{label(group[0])}, {clip}", group)
    return Section(
        title="Correlation in time, after quantization",
        paper="",
        method=(
            "On consecutive frames of a clip, levels by each frame's own range: how many do not change, the entropy of "
            "levels, of their differences modulo 2^b, and of levels for who knows the level before; then real packets, "
            "every frame by itself and with differences from the frame before, the first frame left out."
        ),
        drawings=[Drawing("temporal", figure, "Entropy per coefficient: levels, differences, conditional.")],
        tables=[
            Table(
                "Time",
                [
                    "network, clip", "codec", "unchanged", *(f"H {name}" for name in ENTROPIES), "KiB still",
                    "temporal", "ratio",
                ],
                [_row(record) for group in groups for record in group],
            )
        ],
        claims=claims,
    )  # fmt: skip


def _row(record: StudyRecord) -> list[str]:
    values = record.values
    codec = f"rle, {record.settings['bits']} bits" if "bits" in record.settings else "feature, quality 6"
    if not values.get("calibrated", True):
        codec += ", uncalibrated"
    return [
        f"{label(record)}, {record.source}",
        codec,
        percent(values["unchanged"]) if "unchanged" in values else "",
        *(f"{values[key]:.2f}" if key in values else "" for key in ENTROPIES.values()),
        kibibytes(values["still_bytes"]),
        kibibytes(values["temporal_bytes"]),
        f"{values['temporal_bytes'] / values['still_bytes']:.2f}",
    ]


def _claim(name: str, group: Sequence[StudyRecord]) -> list[Claim]:
    values: dict[Any, Mapping[str, Any]] = {
        record.settings.get("bits", "feature"): record.values for record in group
    }
    four = values.get(4)
    if not four or not four["entropy"]:
        return []
    facts = [
        f"at 4 bits {percent(four['unchanged'])} of the levels do not change, which leaves "
        f"{four['conditional_entropy']:.2f} of {four['entropy']:.2f} bits"
    ]
    if feature := values.get("feature"):
        ratio = feature["temporal_bytes"] / feature["still_bytes"]
        facts.append(f"the feature codec's differences take {percent(ratio)} of its keyframes")
    left = four["conditional_entropy"] / four["entropy"]
    return [
        Claim(
            "There is minimal or no temporal correlation between tensors (sections I and III).",
            f"{name}: {'; '.join(facts)}.",
            f"This {'agrees' if left > 0.9 else 'does not agree'} (minimal: to know the frame before saves "
            f"at most 10 % of the bits; here {1 - left:.0%}).",
        )
    ]


temporal = Experiment("temporal", "correlation in time after quantization", _measure, _present)
