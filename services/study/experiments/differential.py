"""Differential coding of quantized levels in space (end of section V of the paper)."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from codec.rle.kernels import Levels
from services.evaluation.plot import looks
from services.study.distribution import AXES
from services.study.draw import label, legend, panels, stamp
from services.study.levels import BITS, QUICK_BITS, level_entropy, levels_of, zero_run_bytes
from services.study.record import StudyRecord, by_subject
from services.study.section import KIB, Claim, Drawing, Section, Table, kibibytes
from services.study.study import Experiment, Study
from services.study.subject import Subject

LEVELS = "levels"  # what is coded: the levels themselves, or their differences along one of AXES
PARTS = (LEVELS, *AXES)
CODES = ("entropy", "rle", "zlib")
LIMITED = 0.1  # of the bytes: what the paper's "limited advantages" may save at most


def level_difference(levels: Levels, along: str, bits: int) -> Levels:
    """Levels (C, H, W) minus their predecessors, modulo 2**bits, so that a difference needs no more bits than a level.

    The first ones of each row, column or channel stay.
    """
    axis = AXES[along]
    first = np.take(levels, [0], axis)
    return np.concatenate((first, np.diff(levels, axis=axis) & (2**bits - 1)), axis)


def _sizes(tensors: Iterable[Levels], part: str, bits: int) -> dict[str, float]:
    """Entropy in bytes, and the bytes of the paper's code and of zlib, of all tensors together."""
    coded = [levels if part == LEVELS else level_difference(levels, part, bits) for levels in tensors]
    return {
        "entropy": sum(level_entropy(levels, bits) * levels.size / 8 for levels in coded),
        "rle": sum(zero_run_bytes(levels, bits) for levels in coded),
        "zlib": len(zlib.compress(b"".join(levels.tobytes() for levels in coded), 6)),
    }


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.stills(subject)
    points = [{"bits": bits, "of": part} for bits in (QUICK_BITS if study.quick else BITS) for part in PARTS]
    missing = study.missing("differential", subject, pictures, points)
    sizes: dict[tuple[int, str], list[dict[str, float]]] = {
        (point["bits"], point["of"]): [] for point in missing
    }
    for sample in study.samples(subject, pictures, 4 if study.quick else 16) if missing else ():
        levels = {bits: levels_of(sample.tensors, bits).values() for bits in {bits for bits, _ in sizes}}
        for (bits, part), by_picture in sizes.items():
            by_picture.append(_sizes(levels[bits], part, bits))
    for point in missing:
        by_picture = sizes[point["bits"], point["of"]]
        means = {code: round(statistics.fmean(row[code] for row in by_picture), 3) for code in CODES}
        study.write("differential", subject, pictures, point, values=means)


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=4.2)
    style = looks(PARTS)
    rows, claims = [], []
    for group, axis in zip(groups, axes, strict=True):
        name = label(group[0])
        points = {(record.settings["bits"], record.settings["of"]): record.values for record in group}
        for part, look in style.items():
            curve = {bits: points[bits, part]["entropy"] / KIB for bits in BITS if (bits, part) in points}
            of = part if part == LEVELS else f"difference along a {part}"
            axis.plot(list(curve), list(curve.values()), label=of, **look)
        axis.set(title=name, xlabel="bits per coefficient", ylabel="entropy, KiB a picture", ylim=(0, None))
        legend(axis)
        for bits, part in sorted(points, key=lambda point: (-point[0], PARTS.index(point[1]))):
            rows.append([name, str(bits), part, *(kibibytes(points[bits, part][code]) for code in CODES)])
        claims += _claims(name, points)
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
                ["network", "bits", "of", *(f"{code}, KiB" for code in CODES)],
                rows,
            )
        ],
        claims=claims,
    )


def _claims(name: str, points: Mapping[tuple[int, str], Mapping[str, float]]) -> list[Claim]:
    claims = []
    for bits in (3, 4):
        parts = [part for part in AXES if (bits, part) in points]
        if (bits, LEVELS) not in points or not parts:
            continue
        whole = points[bits, LEVELS]
        best = min(parts, key=lambda part: points[bits, part]["entropy"])
        saved = {code: 1 - points[bits, best][code] / whole[code] for code in whole if whole[code]}
        shares = ", ".join(f"{code} {share:+.0%}" for code, share in saved.items())
        verdict = "agrees" if max(saved.values()) <= LIMITED else "does not agree"
        claims.append(
            Claim(
                "Differential coding of quantized coefficients yields limited advantages.",
                f"{name}, {bits} bits, best along a {best}: saved by {shares}.",
                f"This {verdict} (limited: at most 10 % saved).",
            )
        )
    return claims


differential = Experiment("differential", "differential coding of quantized levels", _measure, _present)
