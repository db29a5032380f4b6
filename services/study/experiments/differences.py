"""Differential coding of quantized levels (end of section V), in space and, beyond the paper, in time.

A difference is taken modulo 2**b, so that it needs no more bits than a level.
"""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codec.interface import Encoder
from codec.packet import Stamp
from codec.rle import kernels
from codec.rle.codec import Rle
from codec.rle.kernels import Levels
from codec.rle.runlength import scratch_bytes
from codec.spec import parse_codec
from services.errors import NotMeasurable
from services.profiles import resolve
from services.study.draw import label, legend, looks, panels, stamp
from services.study.experiment import Experiment
from services.study.experiments.distribution import AXES
from services.study.experiments.lossless import levels_of
from services.study.experiments.quantization import BITS
from services.study.record import Record, Settings, by_subject
from services.study.section import KB, Claim, Drawing, Section, Table, percent
from services.study.study import Study
from services.study.subject import Tensors

LEVELS = "levels"
QUICK_BITS = (3, 4)


def entropy(symbols: Levels, bits: int) -> float:
    """Order-0 entropy of levels or differences, in bits each."""
    counts = np.bincount(symbols.reshape(-1), minlength=2**bits)
    shares = counts[counts > 0] / symbols.size
    return float(-(shares * np.log2(shares)).sum())


def conditional_entropy(levels: Levels, before: Levels, bits: int) -> float:
    """Bits each that levels need for somebody who knows the levels at the same places before: H(X | Y)."""
    joint = np.bincount(before.reshape(-1).astype(np.int64) << bits | levels.reshape(-1), minlength=4**bits)
    shares = joint[joint > 0] / levels.size
    return float(-(shares * np.log2(shares)).sum()) - entropy(before, bits)


def level_difference(levels: Levels, along: str, bits: int) -> Levels:
    """Levels (C, H, W) minus their predecessors, modulo 2**bits; the first ones of each stay."""
    axis = AXES[along]
    first = np.take(levels, [0], axis)
    return np.concatenate((first, np.diff(levels, axis=axis) & (2**bits - 1)), axis)


def _levels(tensors: Tensors, bits: int) -> dict[str, Levels]:
    return {
        name: levels_of(tensor.reshape(-1), bits, name)[0].reshape(tensor.shape)
        for name, tensor in tensors.items()
    }


def _cost(symbols: Sequence[Levels], bits: int) -> dict[str, float]:
    """Entropy in bytes, and the bytes of the paper's code and of zlib, of all tensors together."""
    return {
        "entropy": sum(entropy(one, bits) * one.size / 8 for one in symbols),
        "rle": sum(zero_run_bytes(one, bits) for one in symbols),
        "zlib": len(zlib.compress(b"".join(one.tobytes() for one in symbols), 6)),
    }


def zero_run_bytes(symbols: Levels, bits: int) -> int:
    """Bytes of the paper's zero-run code of symbols below 2**bits, without any header."""
    room = np.empty(scratch_bytes(symbols.size, bits), np.uint8)
    return int(
        kernels.encode_levels(np.ascontiguousarray(symbols.reshape(-1)), bits, room, kernels.room()[1])
    )


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(statistics.fmean(one[key] for one in found), 3) for key in found[0]}


def _measure_space(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            parts = (LEVELS, *AXES)
            asked = [{"bits": b, "of": part} for b in (QUICK_BITS if study.quick else BITS) for part in parts]
            missing = study.missing("differential", subject, source, asked)
            found: dict[tuple[int, str], list[dict[str, float]]] = {
                (one["bits"], one["of"]): [] for one in missing
            }
            for sample in study.samples(subject, source, 4 if study.quick else 16) if missing else ():
                for bits in sorted({bits for bits, _ in found}):
                    levels = _levels(sample.tensors, bits).values()
                    for part in parts:
                        if (bits, part) in found:
                            symbols = [
                                one if part == LEVELS else level_difference(one, part, bits) for one in levels
                            ]
                            found[bits, part].append(_cost(symbols, bits))
            for one in missing:
                study.write("differential", subject, source, one, values=_mean(found[one["bits"], one["of"]]))


def _present_space(records: Sequence[Record]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=4.2)
    style = looks((LEVELS, *AXES))
    rows, claims = [], []
    for group, axis in zip(groups, axes, strict=True):
        found = {(one.settings["bits"], one.settings["of"]): one.values for one in group}
        for part in style:
            bits = [b for b in BITS if (b, part) in found]
            name = part if part == LEVELS else f"difference along a {part}"
            axis.plot(bits, [found[b, part]["entropy"] / KB for b in bits], label=name, **style[part])
        axis.set(
            title=label(group[0]),
            xlabel="bits per coefficient",
            ylabel="entropy, kB a picture",
            ylim=(0, None),
        )
        legend(axis)
        for b, part in sorted(found, key=lambda point: (-point[0], list(style).index(point[1]))):
            sizes = [f"{found[b, part][key] / KB:.1f}" for key in ("entropy", "rle", "zlib")]
            rows.append([label(group[0]), str(b), part, *sizes])
        claims += _space_claim(label(group[0]), found)
    stamp(figure, records)
    return Section(
        title="Differential coding of quantized levels",
        paper="Section V, end",
        method=(
            "Levels minus those before them in the row, the column or the channels, modulo 2^b: their order-0 entropy, "
            "and what the paper's zero-run code and zlib make of them. At most 16 pictures."
        ),
        drawings=[Drawing("differential", figure, "Order-0 entropy of levels and of their differences.")],
        tables=[
            Table(
                "Levels and differences",
                ["network", "bits", "of", "entropy, kB", "rle, kB", "zlib, kB"],
                rows,
            )
        ],
        claims=claims,
    )


def _space_claim(name: str, found: Mapping[tuple[int, str], Mapping[str, float]]) -> list[Claim]:
    claims = []
    for bits in (3, 4):
        parts = [part for part in AXES if (bits, part) in found]
        if (bits, LEVELS) not in found or not parts:
            continue
        whole = found[bits, LEVELS]
        best = min(parts, key=lambda part: found[bits, part]["entropy"])
        saved = {key: 1 - found[bits, best][key] / whole[key] for key in whole if whole[key]}
        told = ", ".join(f"{key} {share:+.0%}" for key, share in saved.items())
        limited = max(saved.values()) <= 0.1
        claims.append(
            Claim(
                "Differential coding of quantized coefficients yields limited advantages.",
                f"{name}, {bits} bits, best along a {best}: saved by {told}.",
                f"This {'agrees' if limited else 'does not agree'} (limited: at most 10 % saved).",
            )
        )
    return claims


def _measure_time(study: Study) -> None:
    if not study.clips:
        with study.refusing():
            study.clip()
    for source in study.clips:
        for subject in study.subjects:
            if "map" not in subject.scores:
                continue
            bits_asked = QUICK_BITS if study.quick else BITS
            asked: list[dict[str, Any]] = [{"bits": bits} for bits in bits_asked] + [{"codec": "feature"}]
            missing = study.missing("temporal", subject, source, asked)
            trackers: list[tuple[Settings, _Tracker | _FeatureTracker]] = [
                (
                    one,
                    _Tracker(one["bits"])
                    if "bits" in one
                    else _FeatureTracker(subject.weights, subject.split),
                )
                for one in missing
            ]
            for sample in study.samples(subject, source) if missing else ():
                for _, tracker in trackers:
                    tracker.add(sample.tensors, sample.layout)
            with study.refusing():
                for one, tracker in trackers:
                    study.write("temporal", subject, source, one, values=tracker.values())


class _Tracker:
    """What levels have in common with those of the frame before."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._before: dict[str, Levels] = {}
        self._found: list[dict[str, float]] = []
        self._still = Rle(bits)
        self._moving = Rle(bits, temporal=True)
        self._encoders: list[Encoder] = []
        self._sequence = 0

    def add(self, tensors: Tensors, layout: Any) -> None:
        levels = _levels(tensors, self._bits)
        if not self._encoders:
            self._encoders = [self._still.encoder(layout), self._moving.encoder(layout)]
        stamp_of = Stamp(self._sequence, 0, 1, 1)
        sizes = [len(encoder.encode(tensors, stamp_of).data) for encoder in self._encoders]
        self._sequence += 1
        if self._before:
            # Every frame is quantized by its own range, as the paper does it; the code in use aligns the two.
            count = sum(one.size for one in levels.values())
            pairs = [(one, self._before[name]) for name, one in levels.items()]
            bits = self._bits
            self._found.append(
                {
                    "unchanged": sum(int((now == then).sum()) for now, then in pairs) / count,
                    "entropy": sum(entropy(now, bits) * now.size for now, _ in pairs) / count,
                    "difference_entropy": sum(
                        entropy((now - then) & np.uint8(2**bits - 1), bits) * now.size for now, then in pairs
                    )
                    / count,
                    "conditional_entropy": sum(
                        conditional_entropy(now, then, bits) * now.size for now, then in pairs
                    )
                    / count,
                    "still_bytes": sizes[0],
                    "temporal_bytes": sizes[1],
                }
            )
        self._before = levels

    def values(self) -> dict[str, float]:
        """Means over all frames but the first. Raises NotMeasurable if there are none."""
        if not self._found:
            raise NotMeasurable("correlation in time takes a clip of two frames or more")
        return {
            key: float(f"{statistics.fmean(one[key] for one in self._found):.6g}") for key in self._found[0]
        }


class _FeatureTracker:
    """Bytes of the feature codec, all keyframes and as differences, on the same frames after the first."""

    def __init__(self, weights: str, split: str) -> None:
        codec = resolve(parse_codec("feature"), weights, split)
        self._codec = codec
        self._calibrated = codec.profile is not None
        self._moving: Encoder | None = None
        self._sizes: list[tuple[int, int]] = []
        self._sequence = 0

    def add(self, tensors: Tensors, layout: Any) -> None:
        self._moving = self._moving or self._codec.encoder(layout)
        moving = len(self._moving.encode(tensors, Stamp(self._sequence, 0, 1, 1)).data)
        still = len(self._codec.encoder(layout).encode(tensors, Stamp(0, 0, 1, 1)).data)
        self._sequence += 1
        self._sizes.append((still, moving))

    def values(self) -> dict[str, float]:
        if len(self._sizes) < 2:
            raise NotMeasurable("correlation in time takes a clip of two frames or more")
        still, moving = zip(*self._sizes[1:], strict=True)
        return {
            "still_bytes": round(statistics.fmean(still), 1),
            "temporal_bytes": round(statistics.fmean(moving), 1),
            "calibrated": self._calibrated,
        }


def _present_time(records: Sequence[Record]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=4.2)
    style = looks(("levels", "differences", "given the level before"))
    keys = dict(zip(style, ("entropy", "difference_entropy", "conditional_entropy"), strict=True))
    rows, claims = [], []
    for group, axis in zip(groups, axes, strict=True):
        clip = group[0].source
        found = {one.settings["bits"]: one.values for one in group if "bits" in one.settings}
        bits = [b for b in BITS if b in found]
        for name, key in keys.items():
            axis.plot(bits, [found[b][key] for b in bits], label=name, **style[name])
        axis.set(
            title=f"{label(group[0])}\n{clip}",
            xlabel="bits per coefficient",
            ylabel="entropy, bits",
            ylim=(0, None),
        )
        legend(axis)
        for one in group:
            values = one.values
            name = f"rle, {one.settings['bits']} bits" if "bits" in one.settings else "feature, quality 6"
            if not values.get("calibrated", True):
                name += ", uncalibrated"
            told = [f"{values[key]:.2f}" if key in values else "" for key in keys.values()]
            sizes = [f"{values[key] / KB:.1f}" for key in ("still_bytes", "temporal_bytes")]
            ratio = f"{values['temporal_bytes'] / values['still_bytes']:.2f}"
            unchanged = percent(values["unchanged"]) if "unchanged" in values else ""
            rows.append([f"{label(one)}, {clip}", name, unchanged, *told, *sizes, ratio])
        claims += _time_claim(f"{label(group[0])}, {clip}", group)
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
                    "network, clip",
                    "codec",
                    "unchanged",
                    *(f"H {name}" for name in keys),
                    "kB still",
                    "temporal",
                    "ratio",
                ],
                rows,
            )
        ],
        claims=claims,
    )


def _time_claim(name: str, group: Sequence[Record]) -> list[Claim]:
    values = {one.settings.get("bits", "feature"): one.values for one in group}
    told = []
    if 4 in values:
        four = values[4]
        told.append(
            f"at 4 bits {percent(four['unchanged'])} of the levels do not change, which leaves "
            f"{four['conditional_entropy']:.2f} of {four['entropy']:.2f} bits"
        )
    if "feature" in values:
        ratio = values["feature"]["temporal_bytes"] / values["feature"]["still_bytes"]
        told.append(f"the feature codec's differences take {percent(ratio)} of its keyframes")
    shares = (
        [values[4]["conditional_entropy"] / values[4]["entropy"]]
        if 4 in values and values[4]["entropy"]
        else []
    )
    if not told or not shares:
        return []
    return [
        Claim(
            "There is minimal or no temporal correlation between tensors (sections I and III).",
            f"{name}: {'; '.join(told)}.",
            f"This {'agrees' if shares[0] > 0.9 else 'does not agree'} (minimal: to know the frame before saves "
            f"at most 10 % of the bits; here {1 - shares[0]:.0%}).",
        )
    ]


differential = Experiment(
    "differential", "differential coding of quantized levels", _measure_space, _present_space
)
temporal = Experiment("temporal", "correlation in time after quantization", _measure_time, _present_time)
