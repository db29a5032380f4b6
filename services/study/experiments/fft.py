"""Section III's experiment with frequencies, of which the paper gives no figure: only the lower ones are kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from scipy import fft

from codec.layout import FloatArray, Layout
from services.evaluation.plot import looks
from services.study.accuracy import SCORES, Change, accuracies, main_score, unchanged
from services.study.draw import label, legend, panels
from services.study.record import StudyRecord, by_subject
from services.study.section import Claim, Drawing, Section, Table
from services.study.study import Experiment, Study
from services.study.subject import Subject, Tensors

ORDERS = tuple("".join(order) for order in permutations("CHW"))
PLANE = "plane"
SHARES, QUICK_SHARES = (0.9, 0.75, 0.5, 0.25, 0.1), (0.5,)


def lower_frequencies(tensor: FloatArray, order: str, share: float) -> FloatArray:
    """The tensor (C, H, W) without the higher frequencies of the vector that it makes, float32.

    `order` tells in which order its dimensions are gone through, the last of them fastest. At least one frequency
    stays.
    """
    axes = ["CHW".index(name) for name in order]
    turned = tensor.transpose(axes)
    spectrum = fft.rfft(turned.reshape(-1).astype(np.float64))
    spectrum[max(round(share * spectrum.size), 1) :] = 0
    vector = fft.irfft(spectrum, turned.size)
    return np.ascontiguousarray(vector.reshape(turned.shape).transpose(np.argsort(axes)), np.float32)


def lower_plane_frequencies(tensor: FloatArray, share: float) -> FloatArray:
    """The tensor (C, H, W) without the higher frequencies of each channel's plane, float32.

    Of the cosine transform in two dimensions those rows and columns stay that hold the share of the coefficients.
    """
    spectrum = fft.dctn(tensor.astype(np.float64), axes=(1, 2), norm="ortho")
    _, height, width = tensor.shape
    side = share**0.5
    spectrum[:, max(round(side * height), 1) :] = 0
    spectrum[:, :, max(round(side * width), 1) :] = 0
    return np.ascontiguousarray(fft.idctn(spectrum, axes=(1, 2), norm="ortho"), np.float32)


def _change(order: str, share: float) -> Change:
    if share == 1:
        return unchanged

    def change(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        kept = {
            name: lower_plane_frequencies(tensor, share)
            if order == PLANE
            else lower_frequencies(tensor, order, share)
            for name, tensor in tensors.items()
        }
        return kept, 0

    return change


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.judged(subject)
    orders = ("CHW", "HWC", PLANE) if study.quick else (*ORDERS, PLANE)
    shares = QUICK_SHARES if study.quick else SHARES
    points = [("CHW", 1.0), *((order, share) for order in orders for share in shares)]
    settings = [{"order": order, "share": share} for order, share in points]
    changes = {
        (point["order"], point["share"]): _change(point["order"], point["share"])
        for point in study.missing("fft", subject, pictures, settings)
    }
    if changes:
        samples = study.samples(subject, pictures, None if not study.quick else 8)
        for (order, share), outcome in accuracies(subject, samples, changes).items():
            point = {"order": order, "share": share}
            study.write("fft", subject, pictures, point, values=outcome.scores)


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = by_subject(records)
    figure, axes = panels(len(groups), width=4.2)
    style = looks((*ORDERS, PLANE))
    rows, claims = [], []
    for group, axis in zip(groups, axes, strict=True):
        score = main_score(group[0].values)
        if score is None:
            continue
        name = label(group[0])
        whole = None
        curves: dict[str, dict[float, float]] = {}
        for record in group:
            if record.settings["share"] == 1:
                whole = record.values[score]
            else:
                curve = curves.setdefault(record.settings["order"], {})
                curve[record.settings["share"]] = record.values[score]
        for order, curve in curves.items():
            shares = sorted(curve)
            axis.plot(shares, [curve[share] for share in shares], label=_named(order), **style[order])
            rows += [
                [name, _named(order), f"{share:.0%}", f"{curve[share]:.3f}"] for share in reversed(shares)
            ]
        if whole is not None:
            axis.axhline(whole, color="black", ls="--", lw=0.8)
            rows.append([name, "any", "100%", f"{whole:.3f}"])
            claims += _claim(name, SCORES[score], whole, curves)
        axis.set(title=name, xlabel="share of the frequencies kept", ylabel=SCORES[score])
        legend(axis)
    return Section(
        title="Only the lower frequencies",
        paper="Section III",
        method=(
            "Each tensor is made a vector in one order of its dimensions (C channels, H rows, W columns, the last one "
            "fastest); of its Fourier transform the lower frequencies are kept, and the vector is made a tensor "
            "again. For contrast, the cosine transform of each channel's plane. Dashed: all frequencies."
        ),
        drawings=[
            Drawing("fft", figure, "Accuracy against the share of the lower frequencies that is kept.")
        ],
        tables=[Table("Accuracy against frequencies", ["network", "order", "kept", "score"], rows)],
        claims=claims,
    )


def _named(order: str) -> str:
    return "planes, cosine" if order == PLANE else " ".join(order)


def _claim(name: str, score: str, whole: float, curves: dict[str, dict[float, float]]) -> list[Claim]:
    halves = {order: points[0.5] for order, points in curves.items() if 0.5 in points and order != PLANE}
    if not halves or not whole:
        return []
    order = max(halves, key=halves.__getitem__)
    lost = 1 - halves[order] / whole
    plane = curves.get(PLANE, {}).get(0.5)
    beside = f"; of the planes' frequencies half keeps {plane:.3f}" if plane is not None else ""
    return [
        Claim(
            "Transmitting only the lower frequencies, in various orders, loses accuracy substantially (no figures).",
            f"{name}: with half of the frequencies {score} falls from {whole:.3f} to between "
            f"{min(halves.values()):.3f} and {halves[order]:.3f} (best in the order {_named(order)}){beside}.",
            f"This {'agrees' if lost > 0.1 else 'does not agree'}: the best loses {lost:.0%} (substantial: over 10 %).",
        )
    ]


fft_study = Experiment("fft", "accuracy with only the lower frequencies", _measure, _present)
