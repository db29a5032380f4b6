"""Figure 1, and the left of figure 3: how the coefficients are distributed (section III of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codec.layout import FloatArray
from services.study.distribution import (
    WHOLE,
    Parts,
    draw_part,
    drawable,
    measure_stills,
    summary_of,
    summary_table,
    tensor_names,
)
from services.study.draw import label, panels, stamp
from services.study.record import StudyRecord
from services.study.section import Claim, Drawing, Section, percent
from services.study.study import Experiment, Study


def _coefficients(tensor: FloatArray) -> Parts:
    yield WHOLE, tensor


def _measure(study: Study) -> None:
    measure_stills(study, "figure1", _coefficients)


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = drawable(records)
    figure, axes = panels(len(groups))
    claims = []
    for group, axis in zip(groups, axes, strict=True):
        draw_part(axis, group, WHOLE, "coefficient")
        whole = summary_of(group).get(f"{tensor_names(group)[0]} {WHOLE}")
        if whole:
            claims.append(_claim(group[0], whole))
    stamp(figure, records)
    return Section(
        title="Distribution of the coefficients",
        paper="Figures 1 and 3 (left)",
        method="Empirical CDFs of the tensor that the split is named after, for the first pictures.",
        drawings=[Drawing("figure1", figure, "Empirical CDF of the coefficients of four pictures.")],
        tables=[summary_table("Coefficients", groups)],
        claims=claims,
    )


def _claim(record: StudyRecord, whole: Mapping[str, float]) -> Claim:
    ours = (
        f"{label(record)}: {percent(whole['zeros'])} zeros, {percent(whole['negatives'])} negative, "
        f"from {whole['minimum']:.3g} to {whole['maximum']:.3g}."
    )
    if record.network.startswith(("vgg", "resnet")):
        top = 20 if record.network.startswith("vgg") else 2
        zeros = 0.4 <= whole["zeros"] <= 0.5
        values = whole["maximum"] < top
        return Claim(
            "40 to 50 % of VGG's and ResNet's coefficients are zeros, the others less than 20 (VGG) or 2 (ResNet).",
            ours,
            f"The share of zeros {'agrees' if zeros else 'does not agree'}; the range "
            f"{'agrees' if values else f'does not agree (below {top})'}.",
        )
    negative, bounded = whole["negatives"] >= 0.1, whole["minimum"] >= -1
    silu = -0.279 <= whole["minimum"] < 0
    return Claim(
        "A significant proportion of YOLOv5's coefficients is below zero, between -1 and 0 (leaky ReLU).",
        ours,
        f"This {'agrees' if negative and bounded else 'does not agree'} (at least a tenth, none below -1)"
        + ("; none is below SiLU's least value of -0.278, so that it is no leaky ReLU." if silu else "."),
    )


figure1 = Experiment("figure1", "distribution of the coefficients", _measure, _present)
