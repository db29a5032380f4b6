"""Figures 5 and 6: what a few bits per coefficient do to the accuracy, and what they save.

Sections V and VI of the paper: min-max quantization and zero-run coding, by the codec `rle` and its real packets.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from codec.layout import Layout, raw_bytes
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.study.accuracy import accuracies, through, unchanged
from services.study.draw import COLOURS, label, legend, looks, panels, stamp
from services.study.experiment import Experiment
from services.study.record import Record, by_subject
from services.study.section import KB, Claim, Drawing, Section, Table, kilobytes, percent
from services.study.study import Study
from services.study.subject import Sample
from stream.network.classifier import CLASSIFIERS

BITS = range(2, 9)
FLOAT = 32  # bits of a coefficient that is sent as it is
SCORES = {
    "top1": "top-1 accuracy",
    "map50": "mAP50",
    "map": "mAP50-95",
    "agreement": "agreement with the unsplit network",
}
NOTHING, SLIGHT = 0.01, 0.05  # shares of the unquantized score whose loss the paper calls none, or slight

_BOTTLENECKS = {  # of networks that were changed and trained again, in bytes
    "classification": ("ResNet-152 with a bottleneck at layer 16 [4]", 10.6 * KB),
    "detection": ("Faster R-CNN with a bottleneck [9]", 101.8 * KB),
}


def main_score(scores: Iterable[str]) -> str | None:
    """The one of a network's scores to judge it by: the strictest one that there are labels for."""
    return next((name for name in ("top1", "map", "agreement") if name in scores), None)


def _measure_accuracy(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.judged(subject)
            asked = study.missing("figure5", subject, source, [{"bits": bits} for bits in (FLOAT, *BITS)])
            changes = {
                one["bits"]: unchanged if one["bits"] == FLOAT else through(Rle(one["bits"])) for one in asked
            }
            if changes:
                found = accuracies(subject, study.samples(subject, source), changes)
                for bits, outcome in found.items():
                    study.write("figure5", subject, source, {"bits": bits}, values=outcome.scores)


def _present_accuracy(records: Sequence[Record]) -> Section:
    rows, claims = [], []
    names = [name for name in SCORES if any(name in record.values for record in records)]
    figure, axes = panels(len(names))
    for name, axis in zip(names, axes, strict=True):
        style = looks(label(record) for record in records)
        for group in by_subject(records):
            points = sorted(
                (record.settings["bits"], record.values[name])
                for record in group
                if name in record.values and record.settings["bits"] != FLOAT
            )
            if points:
                axis.plot(*zip(*points, strict=True), label=label(group[0]), **style[label(group[0])])
            for record in group:
                if record.settings["bits"] == FLOAT and name in record.values:
                    axis.axhline(record.values[name], color=style[label(record)]["color"], ls="--", lw=0.8)
        axis.set(xlabel="bits per coefficient", ylabel=SCORES[name], xticks=list(BITS))
        legend(axis, loc="lower right")
    for group in by_subject(records):
        scores = {record.settings["bits"]: record.values for record in group}
        for bits in (FLOAT, *reversed(BITS)):
            if bits in scores:
                figures = [f"{scores[bits][name]:.3f}" if name in scores[bits] else "" for name in names]
                rows.append([label(group[0]), "none" if bits == FLOAT else str(bits), *figures])
        claims += _accuracy_claims(label(group[0]), scores)
    return Section(
        title="Accuracy against bits",
        paper="Figure 5",
        method=(
            "Every tensor that crosses the split is quantized linearly between its least and greatest coefficient, "
            "which travel as float32, and restored before the network goes on. Dashed: not quantized."
        ),
        drawings=[Drawing("figure5", figure, "Accuracy against bits per coefficient.")],
        tables=[Table("Accuracy against bits", ["network", "bits", *map(SCORES.get, names)], rows)],  # type: ignore[list-item] # all are there
        claims=claims,
    )


def _accuracy_claims(name: str, scores: Mapping[int, Mapping[str, float]]) -> list[Claim]:
    main = main_score(scores.get(FLOAT, {}))
    if main is None or not {3, 4} <= scores.keys():
        return []
    whole = scores[FLOAT][main]
    lost = {bits: (whole - scores[bits][main]) / whole if whole else 0.0 for bits in (4, 3)}
    told = ", ".join(f"{scores[bits][main]:.3f} at {bits} bits ({-lost[bits]:+.1%})" for bits in (4, 3))
    four = "agrees" if lost[4] <= NOTHING else "does not agree"
    three = "agrees" if lost[3] <= SLIGHT else "does not agree"
    return [
        Claim(
            "4 bits per coefficient have no impact, but for ResNet-50; 3 bits cost a slight loss (section V).",
            f"{name}: {SCORES[main]} {whole:.3f} unquantized, {told}.",
            f"At 4 bits this {four} (at most {NOTHING:.0%} lost), at 3 bits it {three} (at most {SLIGHT:.0%}).",
        )
    ]


def _measure_size(study: Study) -> None:
    for subject in study.subjects:
        with study.refusing():
            source = study.stills(subject)
            if study.missing("figure6", subject, source, [{"size": "jpeg"}]):
                study.write(
                    "figure6", subject, source, {"size": "jpeg"}, values={"bytes": source.jpeg_bytes()}
                )
            asked = study.missing("figure6", subject, source, [{"bits": bits} for bits in (FLOAT, *BITS)])
            sizes: dict[int, list[tuple[int, int]]] = {one["bits"]: [] for one in asked}
            for sample in study.samples(subject, source) if asked else ():
                counted = tuple(spec for spec in sample.layout if spec.name == subject.split)
                for bits, found in sizes.items():
                    found.append((_size(sample, sample.layout, bits), _size(sample, counted, bits)))
            for bits, found in sizes.items():
                whole, counted_only = map(statistics.fmean, zip(*found, strict=True))
                values = {"bytes": round(whole, 1), "split_tensor_bytes": round(counted_only, 1)}
                study.write("figure6", subject, source, {"bits": bits}, values=values)


def _size(sample: Sample, layout: Layout, bits: int) -> int:
    """Bytes of the packet that some of a picture's tensors make; of the bare floats for FLOAT."""
    if bits == FLOAT or not layout:
        return raw_bytes(layout)
    tensors = {spec.name: sample.tensors[spec.name] for spec in layout}
    return len(Rle(bits).encoder(layout).encode(tensors, Stamp(0, 0, 1, 1)).data)


def _present_size(records: Sequence[Record]) -> Section:
    shown = [task for task in _BOTTLENECKS if any(_task(record) == task for record in records)]
    figure, axes = panels(len(shown), width=4.2)
    tasks = dict(zip(shown, axes, strict=True))
    style = looks(label(record) for record in records)
    rows, claims = [], []
    for group in by_subject(records):
        sizes = {record.settings["bits"]: record.values for record in group if "bits" in record.settings}
        jpeg = next(record.values["bytes"] for record in group if record.settings.get("size") == "jpeg")
        task = _task(group[0])
        axis = tasks[task]
        bits_shown = [bits for bits in BITS if bits in sizes]
        axis.plot(
            bits_shown,
            [sizes[bits]["bytes"] / KB for bits in bits_shown],
            label=label(group[0]),
            **style[label(group[0])],
        )
        axis.axhline(jpeg / KB, color="black", ls="--", lw=0.8, label=f"JPEG files of {group[0].source}")
        for bits in (FLOAT, *reversed(BITS)):
            if bits in sizes:
                whole, counted = sizes[bits]["bytes"], sizes[bits]["split_tensor_bytes"]
                figures = [kilobytes(whole), kilobytes(counted), f"{whole / jpeg:.2f}"]
                rows.append([label(group[0]), "none" if bits == FLOAT else str(bits), *figures])
        if {3, FLOAT} <= sizes.keys():
            claims.append(_size_claim(label(group[0]), task, sizes, jpeg))
    for task, axis in tasks.items():
        name, size = _BOTTLENECKS[task]
        axis.axhline(size / KB, color=COLOURS[5], ls=":", lw=1.2, label=name)
        axis.set(
            title=task, xlabel="bits per coefficient", ylabel="kB a picture", yscale="log", xticks=list(BITS)
        )
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # each name once
        legend(axis, handles=handles.values(), labels=handles.keys())
    stamp(figure, records)
    return Section(
        title="Size against bits",
        paper="Figure 6",
        method=(
            "Quantized tensors are zero-run coded into one packet a picture; its header, of about a hundred bytes, "
            "counts. Every tensor that crosses is sent; the paper counts the one that the split is named after."
        ),
        drawings=[Drawing("figure6", figure, "Bytes a picture against bits per coefficient, logarithmic.")],
        tables=[
            Table(
                "Size against bits",
                ["network", "bits", "kB, whole cut", "kB, the paper's tensor", "times JPEG"],
                rows,
                "kB: 1024 bytes, as the paper counts.",
            )
        ],
        claims=claims,
    )


def _task(record: Record) -> str:
    return "classification" if record.network in CLASSIFIERS else "detection"


def _size_claim(name: str, task: str, sizes: Mapping[int, Mapping[str, float]], jpeg: float) -> Claim:
    network, bottleneck = _BOTTLENECKS[task]
    size = sizes[3]["bytes"]
    ratio = size / bottleneck
    verdict = "agrees" if ratio <= 2 else "does not agree"
    return Claim(
        f"Sizes lie in a similar range as those of bottlenecks: {network}, {kilobytes(bottleneck)} kB (section VI).",
        f"{name}: {kilobytes(size)} kB at 3 bits, {ratio:.1f} times the bottleneck and {size / jpeg:.2f} times JPEG; "
        f"{percent(size / sizes[FLOAT]['bytes'])} of the floats.",
        f"This {verdict} (similar: at most twice as large).",
    )


figure5 = Experiment("figure5", "accuracy against bits per coefficient", _measure_accuracy, _present_accuracy)
figure6 = Experiment("figure6", "size against bits per coefficient", _measure_size, _present_size)
