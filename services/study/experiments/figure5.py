"""Figure 5: what a few bits per coefficient do to the accuracy.

Section V of the paper: min-max quantization, by the codec `rle` and its real packets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codec.rle.codec import Rle
from services.evaluation.plot import looks
from services.study.accuracy import SCORES, accuracies, main_score, through, unchanged
from services.study.draw import label, legend, panels
from services.study.levels import BITS, FLOAT, ROWS, bits_label
from services.study.record import StudyRecord, by_subject
from services.study.section import Claim, Drawing, Section, Table
from services.study.study import Experiment, Study
from services.study.subject import Subject

NOTHING, SLIGHT = 0.01, 0.05  # shares of the unquantized score whose loss the paper calls none, or slight


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.judged(subject)
    missing = study.missing("figure5", subject, pictures, [{"bits": bits} for bits in (FLOAT, *BITS)])
    changes = {
        point["bits"]: unchanged if point["bits"] == FLOAT else through(Rle(point["bits"]))
        for point in missing
    }
    if changes:
        for bits, outcome in accuracies(subject, study.samples(subject, pictures), changes).items():
            study.write("figure5", subject, pictures, {"bits": bits}, values=outcome.scores)


def _present(records: Sequence[StudyRecord]) -> Section:
    groups = by_subject(records)
    names = [name for name in SCORES if any(name in record.values for record in records)]
    figure, axes = panels(len(names))
    style = looks(label(record) for record in records)
    for name, axis in zip(names, axes, strict=True):
        for group in groups:
            look = style[label(group[0])]
            scores = {
                record.settings["bits"]: record.values[name] for record in group if name in record.values
            }
            points = sorted((bits, score) for bits, score in scores.items() if bits != FLOAT)
            if points:
                axis.plot(*zip(*points, strict=True), label=label(group[0]), **look)
            if FLOAT in scores:
                axis.axhline(scores[FLOAT], color=look["color"], ls="--", lw=0.8)
        axis.set(xlabel="bits per coefficient", ylabel=SCORES[name], xticks=list(BITS))
        legend(axis, loc="lower right")
    rows, claims = [], []
    for group in groups:
        by_bits = {record.settings["bits"]: record.values for record in group}
        for bits in ROWS:
            if bits in by_bits:
                figures = [f"{by_bits[bits][name]:.3f}" if name in by_bits[bits] else "" for name in names]
                rows.append([label(group[0]), bits_label(bits), *figures])
        claims += _claims(label(group[0]), by_bits)
    return Section(
        title="Accuracy against bits",
        paper="Figure 5",
        method=(
            "Every tensor that crosses the split is quantized linearly between its least and greatest coefficient, "
            "which travel as float32, and restored before the network goes on. Dashed: not quantized."
        ),
        drawings=[Drawing("figure5", figure, "Accuracy against bits per coefficient.")],
        tables=[Table("Accuracy against bits", ["network", "bits", *(SCORES[name] for name in names)], rows)],
        claims=claims,
    )


def _claims(name: str, by_bits: Mapping[int, Mapping[str, float]]) -> list[Claim]:
    score = main_score(by_bits.get(FLOAT, {}))
    if score is None or not {3, 4} <= by_bits.keys():
        return []
    whole = by_bits[FLOAT][score]
    lost = {bits: (whole - by_bits[bits][score]) / whole if whole else 0.0 for bits in (4, 3)}
    scores = ", ".join(f"{by_bits[bits][score]:.3f} at {bits} bits ({-lost[bits]:+.1%})" for bits in (4, 3))
    four = "agrees" if lost[4] <= NOTHING else "does not agree"
    three = "agrees" if lost[3] <= SLIGHT else "does not agree"
    return [
        Claim(
            "4 bits per coefficient have no impact, but for ResNet-50; 3 bits cost a slight loss (section V).",
            f"{name}: {SCORES[score]} {whole:.3f} unquantized, {scores}.",
            f"At 4 bits this {four} (at most {NOTHING:.0%} lost), at 3 bits it {three} (at most {SLIGHT:.0%}).",
        )
    ]


figure5 = Experiment("figure5", "accuracy against bits per coefficient", _measure, _present)
