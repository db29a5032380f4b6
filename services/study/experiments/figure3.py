"""Figure 3: how differences between consecutive frames are distributed (section III of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codec.layout import FloatArray
from services.errors import NotMeasurable
from services.study.dataset import PictureSet
from services.study.distribution import (
    PICTURES,
    WHOLE,
    Descriptions,
    Summary,
    compared_parts,
    draw_part,
    drawable,
    summary_of,
    summary_table,
    tensor_names,
)
from services.study.draw import panels, stamp
from services.study.record import StudyRecord
from services.study.section import Claim, Drawing, Section
from services.study.study import Experiment, Study
from services.study.subject import Subject


def _measure(study: Study) -> None:
    with study.refusing():
        clip = study.clip()
        for subject in study.subjects:
            if "map" in subject.scores and study.missing("figure3", subject, clip, [{"summary": True}]):
                _measure_clip(study, subject, clip)


def _measure_clip(study: Study, subject: Subject, clip: PictureSet) -> None:
    # The first frame has no difference, and is not drawn.
    descriptions = Descriptions(study, "figure3", subject, clip, range(1, PICTURES + 1))
    before: Mapping[str, FloatArray] = {}
    for number, sample in enumerate(study.samples(subject, clip)):
        for name, tensor in sample.tensors.items():
            parts = [(WHOLE, tensor)] + ([("time", tensor - before[name])] if before else [])
            descriptions.add(number, name, tensor, parts)
        before = sample.tensors
    if "time" not in descriptions.parts:
        raise NotMeasurable("differences in time take a clip of two frames or more")
    descriptions.write_summary()


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = drawable(records)
    figure, axes = panels(2 * len(groups), width=4.2, columns=2)
    claims = []
    for number, group in enumerate(groups):
        draw_part(axes[2 * number], group, WHOLE, "coefficient")
        draw_part(axes[2 * number + 1], group, "time", "difference from the frame before")
        tensor, summary = tensor_names(group)[0], summary_of(group)
        if f"{tensor} time" in summary:
            claims.append(_claim(group[0], tensor, summary))
    stamp(figure, records)
    return Section(
        title="Differences between frames",
        paper="Figure 3",
        method="Empirical CDFs of coefficients and of their differences from the frame before, on consecutive frames.",
        drawings=[Drawing("figure3", figure, "Coefficients (left) and temporal differences (right).")],
        tables=[summary_table("Differences in time", groups)],
        claims=claims,
    )


def _claim(record: StudyRecord, tensor: str, summary: Summary) -> Claim:
    ours, saved = compared_parts(record, tensor, summary, ("time",))
    whole, time = summary[f"{tensor} {WHOLE}"], summary[f"{tensor} time"]
    ratio = whole["range"] / time["range"] if time["range"] else float("inf")
    verdict = "agrees" if 1.5 <= ratio <= 2.5 else "does not agree"
    share = saved["time"] / whole["entropy"] if whole["entropy"] else 0.0
    bits = f"; but differences save {share:.0%} of the bits, which the range does not show."
    if share < 0.1:
        bits = f", and differences save {share:.0%} of the bits."
    return Claim(
        "In nearly static scenes the ranges of coefficients and of temporal differences differ by about two. "
        "(section III)",
        ours,
        f"The factor is {ratio:.1f}, which {verdict} (1.5 to 2.5){bits}",
    )


figure3 = Experiment("figure3", "distribution of differences in time", _measure, _present)
