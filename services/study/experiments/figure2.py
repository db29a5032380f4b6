"""Figure 2: how differences between neighboring coefficients are distributed (section III of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

from codec.layout import FloatArray
from services.study.distribution import (
    AXES,
    WHOLE,
    Parts,
    Summary,
    compared_parts,
    difference,
    draw_part,
    drawable,
    measure_stills,
    summary_of,
    summary_table,
    tensor_names,
)
from services.study.draw import panels, stamp
from services.study.record import StudyRecord
from services.study.section import Claim, Drawing, Section
from services.study.study import Experiment, Study

DIRECTIONS = ("row", "column", "channel")  # in the order of the paper's panels


def _differences(tensor: FloatArray) -> Parts:
    yield WHOLE, tensor
    for along, axis in AXES.items():
        if tensor.shape[axis] > 1:
            yield along, difference(tensor, along)


def _measure(study: Study) -> None:
    measure_stills(study, "figure2", _differences)


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = drawable(records)
    figure, axes = panels(3 * len(groups))
    claims = []
    for number, group in enumerate(groups):
        for along, axis in zip(DIRECTIONS, axes[3 * number : 3 * number + 3], strict=True):
            draw_part(axis, group, along, f"difference along a {along}")
        tensor, summary = tensor_names(group)[0], summary_of(group)
        if f"{tensor} row" in summary:
            claims.append(_claim(group[0], tensor, summary))
    stamp(figure, records)
    return Section(
        title="Differences between neighbors",
        paper="Figure 2",
        method=(
            "Empirical CDFs of differences between neighboring coefficients of a row, a column, or in consecutive "
            "channels. The paper judges by the range; what a coder can save is told by the entropy, here at the same "
            "step for coefficients and differences."
        ),
        drawings=[Drawing("figure2", figure, "Empirical CDF of differences in space, four pictures.")],
        tables=[summary_table("Differences in space", groups)],
        claims=claims,
    )


def _claim(record: StudyRecord, tensor: str, summary: Summary) -> Claim:
    ours, saved = compared_parts(record, tensor, summary, DIRECTIONS)
    best = max(saved.values())
    return Claim(
        "Differencing halves the range for some images, which saves a single bit per coefficient at most. "
        "(section III)",
        ours,
        f"At most one bit is saved: this {'agrees' if best <= 1 else 'does not agree'}"
        f"{'.' if best > 0 else '; differences even cost bits.'}",
    )


figure2 = Experiment("figure2", "distribution of differences in space", _measure, _present)
