"""Figure 4: which coefficients matter, by Grad-CAM at the split point (section IV of the paper).

Two definitions are measured, because the paper's words fit either:

map: as Selvaraju et al. define it, at this layer instead of the last. A channel weighs as much as its mean gradient,
    a position is as relevant as the positive part of the weighted sum of its channels, and all its coefficients share
    that relevance.
gradient: the absolute value of the coefficient's own derivative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.layout import FloatArray
from services.evaluation.plot import COLORS
from services.study.distribution import PROBABILITIES, drawable, tensor_names
from services.study.draw import label, legend, panels, stamp
from services.study.record import StudyRecord, rounded
from services.study.section import Claim, Drawing, Section, Table, percent
from services.study.study import Experiment, Study
from services.study.subject import Subject, Tensors
from stream.network.cut import halves
from stream.torch_network.graph import run

SHARE = 0.1  # of the coefficients that the paper calls relevant
NULL = 1e-3  # of the tensor's range: coefficients so near to zero count as nulls, since SiLU's are never exactly zero
DEFINITIONS = ("map", "gradient")


def gradients(subject: Subject, tensors: Tensors) -> tuple[float, dict[str, FloatArray]]:
    """How certain the network is, and its derivative with respect to each tensor that crosses, of the same shapes."""
    _, tail = halves(subject.graph, subject.split)
    output = tail[-1].name
    with torch.enable_grad():
        leaves = {
            name: torch.from_numpy(tensor)[None].to(subject.device).requires_grad_()
            for name, tensor in tensors.items()
        }
        certainty = subject.certainty(run(tail, leaves, (output,))[output])
        derivatives = torch.autograd.grad(certainty, list(leaves.values()), allow_unused=True)
    slopes: dict[str, FloatArray] = {}
    for name, slope in zip(leaves, derivatives, strict=True):
        slopes[name] = np.zeros_like(tensors[name]) if slope is None else slope[0].cpu().numpy()
    return float(certainty.detach()), slopes


def relevance(tensor: FloatArray, slope: FloatArray, definition: str) -> FloatArray:
    """How relevant each coefficient of (C, H, W) is, not negative; see the definitions above."""
    if definition == "gradient":
        return np.abs(slope)
    weights = slope.mean(axis=(1, 2), dtype=np.float64)
    position = np.maximum(np.tensordot(weights, tensor, axes=(0, 0)), 0)
    return np.broadcast_to(position, tensor.shape).astype(np.float32)


def most_relevant(relevant: FloatArray, share: float = SHARE) -> NDArray[np.bool_]:
    """Exactly that share of the coefficients, rounded: the most relevant; of equals those that come first."""
    flat = relevant.reshape(-1)
    chosen = np.zeros(flat.size, np.bool_)
    chosen[np.argsort(-flat, kind="stable")[: round(share * flat.size)]] = True
    return chosen.reshape(relevant.shape)


def describe(tensor: FloatArray, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """CDFs of the chosen and of all coefficients, and the nulls among both."""
    null = np.abs(tensor) <= NULL * float(tensor.max() - tensor.min())
    nulls = int(null.sum())
    return {
        "quantiles": _quantiles(tensor[chosen]),
        "all_quantiles": _quantiles(tensor),
        "nulls": rounded(null[chosen].mean()),
        "all_nulls": rounded(null.mean()),
        "nulls_relevant": rounded(null[chosen].sum() / nulls) if nulls else 0.0,
        "mean": rounded(tensor[chosen].mean(dtype=np.float64)),
        "all_mean": rounded(tensor.mean(dtype=np.float64)),
    }


def _quantiles(values: FloatArray) -> list[float]:
    return [rounded(quantile) for quantile in np.quantile(values, PROBABILITIES)]


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.judged(subject)
    if not study.missing("figure4", subject, pictures, [{"pictures": "counted"}]):
        return
    descriptions: dict[tuple[str, str], list[dict[str, Any]]] = {}
    certain = count = 0
    for sample in study.samples(subject, pictures):
        count += 1
        certainty, slopes = gradients(subject, sample.tensors)
        if certainty <= 0:
            continue  # nothing was found, so that nothing is relevant to it
        certain += 1
        for name, tensor in sample.tensors.items():
            for definition in DEFINITIONS:
                chosen = most_relevant(relevance(tensor, slopes[name], definition))
                descriptions.setdefault((name, definition), []).append(describe(tensor, chosen))
    for (name, definition), rows in descriptions.items():
        means = {key: np.mean([row[key] for row in rows], axis=0) for key in rows[0]}
        settings = {"tensor": name, "definition": definition, "share": SHARE}
        values = {key: _plain(mean) for key, mean in means.items()}
        study.write("figure4", subject, pictures, settings, values=values)
    counts = {"pictures": count, "certain": certain}
    study.write("figure4", subject, pictures, {"pictures": "counted"}, values=counts)


def _plain(value: Any) -> float | list[float]:
    return rounded(value) if np.ndim(value) == 0 else [rounded(number) for number in value]


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = drawable(records)
    figure, axes = panels(2 * max(len(groups), 1), width=4.2, columns=2)
    rows, claims, notes = [], [], []
    for number, group in enumerate(groups):
        name = label(group[0])
        by_part = {
            (record.settings["tensor"], record.settings["definition"]): record.values
            for record in group
            if "tensor" in record.settings
        }
        tensor = tensor_names(group)[0]
        for definition, axis in zip(DEFINITIONS, axes[2 * number : 2 * number + 2], strict=True):
            if values := by_part.get((tensor, definition)):
                axis.plot(values["all_quantiles"], PROBABILITIES, color=COLORS[0], label="all")
                axis.plot(values["quantiles"], PROBABILITIES, color=COLORS[1], label="10 % most relevant")
                claims.append(_claim(f"{name}, {tensor}", definition, values))
            axis.set(title=f"{name}, by {definition}", xlabel="coefficient", ylabel="share not greater")
            axis.set(ylim=(0, 1))
            legend(axis, loc="lower right")
        for (part, definition), values in by_part.items():
            shares = [percent(values[key]) for key in ("nulls", "all_nulls", "nulls_relevant")]
            means = [f"{values[key]:.3g}" for key in ("mean", "all_mean")]
            rows.append([f"{name}, {part}", definition, *shares, *means])
        notes += [
            f"{name}: {record.values['certain']} of {record.values['pictures']} pictures count; in the others "
            "the network is certain of nothing."
            for record in group
            if "certain" in record.values
        ]
    stamp(figure, records)
    return Section(
        title="Relevance of the coefficients, by Grad-CAM",
        paper="Figure 4",
        method=(
            "The derivative of the class's score (classifiers) or of the sum of all scores above .30 (YOLOv5) at the "
            "split. By map: channels weigh as their mean gradient, and all coefficients of a position share its "
            "relevance (Selvaraju et al.). By gradient: each coefficient's own derivative. A coefficient is null "
            f"within {NULL:.1%} of the tensor's range of zero. Curves: quantiles, averaged over pictures."
        ),
        drawings=[Drawing("figure4", figure, "CDF of all coefficients and of the 10 % most relevant ones.")],
        tables=[Table("Nulls among the relevant", _HEAD, rows)],
        claims=claims,
        notes=notes,
    )


_HEAD = (
    "network, tensor", "relevant by", "nulls among relevant", "among all", "of the nulls relevant",
    "mean of relevant", "of all",
)  # fmt: skip


def _claim(name: str, definition: str, values: Mapping[str, Any]) -> Claim:
    larger = values["mean"] > values["all_mean"]
    alike = values["nulls"] >= 0.5 * values["all_nulls"]
    return Claim(
        "Relevant coefficients tend to be larger, but some are very small; for ResNet most nulls are relevant.",
        f"{name}, by {definition}: mean {values['mean']:.3g} of the relevant, {values['all_mean']:.3g} of all; nulls "
        f"{percent(values['nulls'])} and {percent(values['all_nulls'])}; {percent(values['nulls_relevant'])} of the "
        "nulls are relevant.",
        f"That they are larger {'agrees' if larger else 'does not agree'}; nulls are "
        f"{'about as frequent among them' if alike else 'much rarer among them (less than half)'}.",
    )


figure4 = Experiment("figure4", "relevance of the coefficients, by Grad-CAM", _measure, _present)
