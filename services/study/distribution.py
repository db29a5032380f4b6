"""How the coefficients of a tensor, and differences of them, are distributed: what figures 1 to 3 draw and tell.

A difference is a coefficient minus the one before it in its row, its column, its channel, or at its place in the frame
before; the first one of each has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes

from codec.layout import FloatArray
from services.evaluation.plot import COLORS
from services.study.dataset import PictureSet
from services.study.draw import label, legend
from services.study.levels import entropy
from services.study.record import StudyRecord, by_subject, rounded
from services.study.section import Table, percent
from services.study.study import Study
from services.study.subject import Subject

PICTURES = 4  # whose curves are drawn, as in the paper
PROBABILITIES = np.concatenate(([0, 0.001, 0.005], np.arange(1, 100) / 100, [0.995, 0.999, 1]))
STEPS = 16  # of the range of the coefficients, for entropies at one common step: four bits

AXES = {"channel": 0, "column": 1, "row": 2}  # along which neighbors are subtracted, of (C, H, W)
WHOLE = "coefficients"
"""The part of a tensor that is all of it."""

Parts: TypeAlias = Iterable[tuple[str, FloatArray]]
"""Names and values of what is described of one tensor."""
Summary: TypeAlias = Mapping[str, Mapping[str, float]]
"""Means over pictures, by "TENSOR PART"."""


def difference(tensor: FloatArray, along: str) -> FloatArray:
    """Each coefficient of (C, H, W) minus its predecessor along a row, a column, or through the channels."""
    return np.diff(tensor, axis=AXES[along])


def stepped_entropy(values: FloatArray, step: float) -> float:
    """Order-0 entropy, in bits, of values rounded to multiples of a step."""
    if step == 0:
        return 0.0
    return entropy(np.unique(np.rint(values / step).astype(np.int64), return_counts=True)[1])


def describe(values: FloatArray, step: float) -> dict[str, Any]:
    """Range, spread, shares of zeros and negatives, entropy at a step, and the CDF at PROBABILITIES."""
    flat = values.reshape(-1)
    return {
        "minimum": rounded(flat.min()),
        "maximum": rounded(flat.max()),
        "deviation": rounded(flat.std(dtype=np.float64)),
        "zeros": rounded(np.mean(flat == 0)),
        "negatives": rounded(np.mean(flat < 0)),
        "entropy": rounded(stepped_entropy(flat, step)),
        "quantiles": [rounded(quantile) for quantile in np.quantile(flat, PROBABILITIES)],
    }


class Descriptions:
    """Describes parts of the tensors of one network, picture by picture, and writes records of them."""

    def __init__(
        self, study: Study, experiment: str, subject: Subject, pictures: PictureSet, drawn: range
    ) -> None:
        """Pictures whose numbers are in `drawn` get records of their own."""
        self._study, self._experiment, self._subject = study, experiment, subject
        self._pictures, self._drawn = pictures, drawn
        self._by_part: dict[tuple[str, str], list[dict[str, Any]]] = {}

    @property
    def parts(self) -> set[str]:
        """The names of the parts that occurred."""
        return {part for _, part in self._by_part}

    def add(self, number: int, name: str, tensor: FloatArray, parts: Parts) -> None:
        """Describe parts of a tensor of one picture."""
        step = float(tensor.max() - tensor.min()) / STEPS
        for part, values in parts:
            description = describe(values, step)
            self._by_part.setdefault((name, part), []).append(description)
            settings = {"picture": number, "tensor": name, "part": part}
            point = self._experiment, self._subject, self._pictures
            if number in self._drawn and self._study.missing(*point, [settings]):
                self._study.write(*point, settings, values=description)

    def write_summary(self) -> None:
        """Write the means over all pictures."""
        summary = {f"{name} {part}": _mean(pictures) for (name, part), pictures in self._by_part.items()}
        self._study.write(self._experiment, self._subject, self._pictures, {"summary": True}, values=summary)


def _mean(descriptions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Extremes over all pictures, and means of everything else."""
    means = {
        key: rounded(np.mean([description[key] for description in descriptions]))
        for key in ("deviation", "zeros", "negatives", "entropy")
    }
    ranges = [description["maximum"] - description["minimum"] for description in descriptions]
    return {
        **means,
        "minimum": min(description["minimum"] for description in descriptions),
        "maximum": max(description["maximum"] for description in descriptions),
        "range": rounded(np.mean(ranges)),
        "pictures": len(descriptions),
    }


def measure_stills(study: Study, experiment: str, parts: Callable[[FloatArray], Parts]) -> None:
    """Describe parts of every tensor that crosses, by each network, of pictures that stand by themselves."""

    def measure(study: Study, subject: Subject) -> None:
        pictures = study.stills(subject)
        if not study.missing(experiment, subject, pictures, [{"summary": True}]):
            return
        descriptions = Descriptions(study, experiment, subject, pictures, range(PICTURES))
        for number, sample in enumerate(study.samples(subject, pictures)):
            for name, tensor in sample.tensors.items():
                descriptions.add(number, name, tensor, parts(tensor))
        descriptions.write_summary()

    study.for_each_subject(measure)


def drawable(records: Sequence[StudyRecord]) -> list[list[StudyRecord]]:
    """The records by subject, of those subjects that have curves."""
    return [group for group in by_subject(records) if tensor_names(group)]


def tensor_names(group: Sequence[StudyRecord]) -> list[str]:
    """Those of the records, the one that the split is named after first."""
    names = dict.fromkeys(record.settings["tensor"] for record in group if "tensor" in record.settings)
    return sorted(names, key=lambda name: name != group[0].split)


def summary_of(group: Sequence[StudyRecord]) -> Summary:
    """The means over pictures of one subject; empty where they were not written yet."""
    return next((record.values for record in group if record.settings.get("summary")), {})


def draw_part(axis: Axes, group: Sequence[StudyRecord], part: str, quantity: str) -> None:
    """Curves of a part of the tensor that the split is named after, picture by picture."""
    tensor = tensor_names(group)[0]
    curves = [
        record
        for record in group
        if record.settings.get("tensor") == tensor and record.settings.get("part") == part
    ]
    for record, color in zip(curves, COLORS, strict=False):
        axis.plot(
            record.values["quantiles"],
            PROBABILITIES,
            color=color,
            label=f"picture {record.settings['picture'] + 1}",
        )
    axis.set(title=label(group[0]), xlabel=quantity, ylabel="share not greater", ylim=(0, 1))
    legend(axis, loc="lower right")


def summary_table(title: str, groups: Iterable[Sequence[StudyRecord]]) -> Table:
    """The means over pictures of every tensor and part."""
    rows = []
    for group in groups:
        for key, values in summary_of(group).items():
            tensor, part = key.split(" ")
            shares = [percent(values["zeros"]), percent(values["negatives"])]
            keys = ("minimum", "maximum", "range", "deviation", "entropy")
            rows.append(
                [f"{label(group[0])}, {tensor}", part, *shares, *(f"{values[key]:.3g}" for key in keys)]
            )
    return Table(
        title,
        [
            "network, tensor", "of", "zeros", "negatives", "least", "greatest", "range", "deviation",
            "entropy, bits",
        ],
        rows,
        f"Means over pictures; least and greatest of all. Entropy: at a step of 1/{STEPS} of each tensor's range.",
    )  # fmt: skip


def compared_parts(
    record: StudyRecord, tensor: str, summary: Summary, parts: Sequence[str]
) -> tuple[str, dict[str, float]]:
    """Ranges and deviations of differences beside those of coefficients in words, and the bits saved by part."""
    whole = summary[f"{tensor} {WHOLE}"]
    described = {part: summary[f"{tensor} {part}"] for part in parts if f"{tensor} {part}" in summary}
    ranges = ", ".join(f"{part} {values['range'] / whole['range']:.2f}" for part, values in described.items())
    deviations = ", ".join(
        f"{part} {values['deviation'] / whole['deviation']:.2f}"
        for part, values in described.items()
        if whole["deviation"]
    )
    saved = {part: whole["entropy"] - values["entropy"] for part, values in described.items()}
    bits = ", ".join(f"{part} {value:+.2f}" for part, value in saved.items())
    text = (
        f"{label(record)}, {tensor}: range of differences over range of coefficients: {ranges}; "
        f"of deviations: {deviations}; bits saved at one step: {bits}."
    )
    return text, saved
