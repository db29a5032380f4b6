"""Figures 1 to 3: how coefficients, and their differences in space and time, are distributed.

Section III of the paper. A difference is a coefficient minus the one before it in its row, its column, its channel, or
at its place in the frame before; the first one of each has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray
from services.errors import NotMeasurable
from services.study.draw import COLOURS, label, legend, panels, stamp
from services.study.experiment import Experiment
from services.study.record import Record, by_subject, rounded
from services.study.section import Claim, Drawing, Section, Table, percent
from services.study.study import Study

PICTURES = 4  # whose curves are drawn, as in the paper
PROBABILITIES = np.concatenate(([0, 0.001, 0.005], np.arange(1, 100) / 100, [0.995, 0.999, 1]))
STEPS = 16  # of the range of the coefficients, for entropies at one common step: four bits

AXES = {"channel": 0, "column": 1, "row": 2}  # along which neighbours are subtracted, of (C, H, W)


def difference(tensor: FloatArray, along: str) -> FloatArray:
    """Each coefficient of (C, H, W) minus its predecessor along a row, a column, or through the channels."""
    return np.diff(tensor, axis=AXES[along])


def entropy(values: FloatArray, step: float) -> float:
    """Order-0 entropy, in bits, of values rounded to multiples of a step."""
    if step == 0:
        return 0.0
    _, counts = np.unique(np.rint(values / step).astype(np.int64), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def describe(values: FloatArray, step: float) -> dict[str, Any]:
    """Range, spread, shares of zeros and negatives, entropy at a step, and the CDF at PROBABILITIES."""
    flat = values.reshape(-1)
    return {
        "minimum": rounded(flat.min()),
        "maximum": rounded(flat.max()),
        "deviation": rounded(flat.std(dtype=np.float64)),
        "zeros": rounded(np.mean(flat == 0)),
        "negatives": rounded(np.mean(flat < 0)),
        "entropy": rounded(entropy(flat, step)),
        "quantiles": [rounded(one) for one in np.quantile(flat, PROBABILITIES)],
    }


def _step(tensor: NDArray[np.float32]) -> float:
    return float(tensor.max() - tensor.min()) / STEPS


def _measure_each(
    study: Study, experiment: str, parts: Callable[[FloatArray], Iterable[tuple[str, FloatArray]]]
) -> None:
    """Describe parts of every tensor that crosses: of the pictures to draw, and their means over all pictures."""
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            if not study.missing(experiment, subject, source, [{"summary": True}]):
                continue
            means: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for number, sample in enumerate(study.samples(subject, source)):
                for name, tensor in sample.tensors.items():
                    for part, values in parts(tensor):
                        found = describe(values, _step(tensor))
                        means.setdefault((name, part), []).append(found)
                        settings = {"picture": number, "tensor": name, "part": part}
                        if number < PICTURES and study.missing(experiment, subject, source, [settings]):
                            study.write(experiment, subject, source, settings, values=found)
            summary = {f"{name} {part}": _mean(found) for (name, part), found in means.items()}
            study.write(experiment, subject, source, {"summary": True}, values=summary)


def _mean(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Extremes over all pictures, and means of everything else."""
    means = {
        key: rounded(np.mean([one[key] for one in found]))
        for key in ("deviation", "zeros", "negatives", "entropy")
    }
    ranges = [one["maximum"] - one["minimum"] for one in found]
    return {
        **means,
        "minimum": min(one["minimum"] for one in found),
        "maximum": max(one["maximum"] for one in found),
        "range": rounded(np.mean(ranges)),
        "pictures": len(found),
    }


WHOLE = "coefficients"


def _coefficients(tensor: FloatArray) -> Iterable[tuple[str, FloatArray]]:
    yield WHOLE, tensor


def _differences(tensor: FloatArray) -> Iterable[tuple[str, FloatArray]]:
    yield WHOLE, tensor
    for along, axis in AXES.items():
        if tensor.shape[axis] > 1:
            yield along, difference(tensor, along)


def _measure_1(study: Study) -> None:
    _measure_each(study, "figure1", _coefficients)


def _measure_2(study: Study) -> None:
    _measure_each(study, "figure2", _differences)


def _measure_3(study: Study) -> None:
    with study.refusing():
        source = study.clip()
        for subject in study.subjects:
            if "map" not in subject.scores or not study.missing(
                "figure3", subject, source, [{"summary": True}]
            ):
                continue
            means: dict[tuple[str, str], list[dict[str, Any]]] = {}
            before: Mapping[str, FloatArray] = {}
            for number, sample in enumerate(study.samples(subject, source)):
                for name, tensor in sample.tensors.items():
                    parts = [(WHOLE, tensor)] + ([("time", tensor - before[name])] if before else [])
                    for part, values in parts:
                        found = describe(values, _step(tensor))
                        means.setdefault((name, part), []).append(found)
                        settings = {"picture": number, "tensor": name, "part": part}
                        if 0 < number <= PICTURES and study.missing("figure3", subject, source, [settings]):
                            study.write("figure3", subject, source, settings, values=found)
                before = sample.tensors
            if not any(part == "time" for _, part in means):
                raise NotMeasurable("differences in time take a clip of two frames or more")
            summary = {f"{name} {part}": _mean(found) for (name, part), found in means.items()}
            study.write("figure3", subject, source, {"summary": True}, values=summary)


def _curves(group: Sequence[Record], tensor: str, part: str) -> list[Record]:
    return [one for one in group if one.settings.get("tensor") == tensor and one.settings.get("part") == part]


def _summary(group: Sequence[Record]) -> Mapping[str, Mapping[str, float]]:
    return next((one.values for one in group if one.settings.get("summary")), {})


def _draw(axis: Any, curves: Sequence[Record], title: str, what: str) -> None:
    for one, colour in zip(curves, COLOURS, strict=False):
        axis.plot(
            one.values["quantiles"],
            PROBABILITIES,
            color=colour,
            label=f"picture {one.settings['picture'] + 1}",
        )
    axis.set(title=title, xlabel=what, ylabel="share not greater", ylim=(0, 1))
    legend(axis, loc="lower right")


def _tensors(group: Sequence[Record]) -> list[str]:
    """Those of the records, the one that the split is named after first."""
    names = dict.fromkeys(one.settings["tensor"] for one in group if "tensor" in one.settings)
    return sorted(names, key=lambda name: name != group[0].split)


_HEAD = [
    "network, tensor",
    "of",
    "zeros",
    "negatives",
    "least",
    "greatest",
    "range",
    "deviation",
    "entropy, bits",
]


def _rows(group: Sequence[Record]) -> list[list[str]]:
    rows = []
    for key, values in _summary(group).items():
        tensor, part = key.split(" ")
        figures = (values[name] for name in ("minimum", "maximum", "range", "deviation", "entropy"))
        shares = [percent(values["zeros"]), percent(values["negatives"])]
        rows.append([f"{label(group[0])}, {tensor}", part, *shares, *(f"{one:.3g}" for one in figures)])
    return rows


_CAPTION = (
    f"Means over pictures; least and greatest of all. Entropy: at a step of 1/{STEPS} of each tensor's range."
)


def _present_1(records: Sequence[Record]) -> Section:
    groups = [group for group in by_subject(records) if _tensors(group)]
    figure, axes = panels(len(groups))
    rows, claims = [], []
    for group, axis in zip(groups, axes, strict=True):
        tensor = _tensors(group)[0]
        _draw(axis, _curves(group, tensor, WHOLE), f"{label(group[0])}", "coefficient")
        rows += _rows(group)
        found = _summary(group).get(f"{tensor} {WHOLE}")
        if found:
            claims.append(_zeros_claim(group[0], found))
    stamp(figure, records)
    return Section(
        title="Distribution of the coefficients",
        paper="Figures 1 and 3 (left)",
        method="Empirical CDFs of the tensor that the split is named after, for the first pictures.",
        drawings=[Drawing("figure1", figure, "Empirical CDF of the coefficients of four pictures.")],
        tables=[Table("Coefficients", _HEAD, rows, _CAPTION)],
        claims=claims,
    )


def _zeros_claim(one: Record, found: Mapping[str, float]) -> Claim:
    ours = (
        f"{label(one)}: {percent(found['zeros'])} zeros, {percent(found['negatives'])} negative, "
        f"from {found['minimum']:.3g} to {found['maximum']:.3g}."
    )
    if one.network.startswith(("vgg", "resnet")):
        top = 20 if one.network.startswith("vgg") else 2
        zeros = 0.4 <= found["zeros"] <= 0.5
        values = found["maximum"] < top
        return Claim(
            "40 to 50 % of VGG's and ResNet's coefficients are zeros, the others less than 20 (VGG) or 2 (ResNet).",
            ours,
            f"The share of zeros {'agrees' if zeros else 'does not agree'}; the range "
            f"{'agrees' if values else f'does not agree (below {top})'}.",
        )
    negative, bounded = found["negatives"] >= 0.1, found["minimum"] >= -1
    silu = -0.279 <= found["minimum"] < 0
    return Claim(
        "A significant proportion of YOLOv5's coefficients is below zero, between -1 and 0 (leaky ReLU).",
        ours,
        f"This {'agrees' if negative and bounded else 'does not agree'} (at least a tenth, none below -1)"
        + ("; none is below SiLU's least value of -0.278, so that it is no leaky ReLU." if silu else "."),
    )


def _present_2(records: Sequence[Record]) -> Section:
    groups = [group for group in by_subject(records) if _tensors(group)]
    figure, axes = panels(3 * len(groups))
    rows, claims = [], []
    for number, group in enumerate(groups):
        tensor = _tensors(group)[0]
        for along, axis in zip(("row", "column", "channel"), axes[3 * number : 3 * number + 3], strict=True):
            _draw(axis, _curves(group, tensor, along), label(group[0]), f"difference along a {along}")
        rows += _rows(group)
        summary = _summary(group)
        if f"{tensor} row" in summary:
            claims.append(_ratio_claim(group[0], tensor, summary, ("row", "column", "channel")))
    stamp(figure, records)
    return Section(
        title="Differences between neighbours",
        paper="Figure 2",
        method=(
            "Empirical CDFs of differences between neighbouring coefficients of a row, a column, or in consecutive "
            "channels. The paper judges by the range; what a coder can save is told by the entropy, here at the same "
            "step for coefficients and differences."
        ),
        drawings=[Drawing("figure2", figure, "Empirical CDF of differences in space, four pictures.")],
        tables=[Table("Differences in space", _HEAD, rows, _CAPTION)],
        claims=claims,
    )


def _ratio_claim(
    one: Record, tensor: str, summary: Mapping[str, Mapping[str, float]], parts: Sequence[str]
) -> Claim:
    whole = summary[f"{tensor} {WHOLE}"]
    found = {part: summary[f"{tensor} {part}"] for part in parts if f"{tensor} {part}" in summary}
    ranges = ", ".join(f"{part} {values['range'] / whole['range']:.2f}" for part, values in found.items())
    spreads = ", ".join(
        f"{part} {values['deviation'] / whole['deviation']:.2f}"
        for part, values in found.items()
        if whole["deviation"]
    )
    saved = {part: whole["entropy"] - values["entropy"] for part, values in found.items()}
    bits = ", ".join(f"{part} {value:+.2f}" for part, value in saved.items())
    best = max(saved.values())
    if parts == ("time",):
        paper = "In nearly static scenes the ranges of coefficients and of temporal differences differ by about two."
        ratio = whole["range"] / found["time"]["range"] if found["time"]["range"] else float("inf")
        verdict = "agrees" if 1.5 <= ratio <= 2.5 else "does not agree"
        agrees = f"The factor is {ratio:.1f}, which {verdict} (1.5 to 2.5)"
        share = best / whole["entropy"] if whole["entropy"] else 0.0
        rest = f"; but differences save {share:.0%} of the bits, which the range does not show."
        if share < 0.1:
            rest = f", and differences save {share:.0%} of the bits."
    else:
        paper = (
            "Differencing halves the range for some images, which saves a single bit per coefficient at most."
        )
        agrees = f"At most one bit is saved: this {'agrees' if best <= 1 else 'does not agree'}"
        rest = "." if best > 0 else "; differences even cost bits."
    return Claim(
        f"{paper} (section III)",
        f"{label(one)}, {tensor}: range of differences over range of coefficients: {ranges}; of deviations: {spreads}; "
        f"bits saved at one step: {bits}.",
        agrees + rest,
    )


def _present_3(records: Sequence[Record]) -> Section:
    groups = [group for group in by_subject(records) if _tensors(group)]
    figure, axes = panels(2 * len(groups), width=4.2, columns=2)
    rows, claims = [], []
    for number, group in enumerate(groups):
        tensor = _tensors(group)[0]
        for (part, what), axis in zip(
            ((WHOLE, "coefficient"), ("time", "difference from the frame before")),
            axes[2 * number : 2 * number + 2],
            strict=True,
        ):
            _draw(axis, _curves(group, tensor, part), label(group[0]), what)
        rows += _rows(group)
        if f"{tensor} time" in _summary(group):
            claims.append(_ratio_claim(group[0], tensor, _summary(group), ("time",)))
    stamp(figure, records)
    return Section(
        title="Differences between frames",
        paper="Figure 3",
        method="Empirical CDFs of coefficients and of their differences from the frame before, on consecutive frames.",
        drawings=[Drawing("figure3", figure, "Coefficients (left) and temporal differences (right).")],
        tables=[Table("Differences in time", _HEAD, rows, _CAPTION)],
        claims=claims,
    )


figure1 = Experiment("figure1", "distribution of the coefficients", _measure_1, _present_1)
figure2 = Experiment("figure2", "distribution of differences in space", _measure_2, _present_2)
figure3 = Experiment("figure3", "distribution of differences in time", _measure_3, _present_3)
