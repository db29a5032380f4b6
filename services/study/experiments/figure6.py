"""Figure 6: what a few bits per coefficient save.

Sections V and VI of the paper: min-max quantization and zero-run coding, by the codec `rle` and its real packets.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codec.layout import Layout, raw_bytes
from codec.packet import Stamp
from codec.rle.codec import Rle
from services.evaluation.plot import COLORS, looks
from services.study.draw import label, legend, panels, stamp
from services.study.levels import BITS, FLOAT, ROWS, bits_label
from services.study.record import StudyRecord, by_subject
from services.study.section import KIB, Claim, Drawing, Section, Table, kibibytes, percent
from services.study.study import Experiment, Study
from services.study.subject import SplitSample, Subject
from stream.torch_network.classifier import CLASSIFIERS

_BOTTLENECKS = {  # of networks that were changed and trained again, in bytes
    "classification": ("ResNet-152 with a bottleneck at layer 16 [4]", 10.6 * KIB),
    "detection": ("Faster R-CNN with a bottleneck [9]", 101.8 * KIB),
}


def _measure(study: Study) -> None:
    study.for_each_subject(_measure_subject)


def _measure_subject(study: Study, subject: Subject) -> None:
    pictures = study.stills(subject)
    if study.missing("figure6", subject, pictures, [{"size": "jpeg"}]):
        jpeg = {"bytes": pictures.jpeg_bytes()}
        study.write("figure6", subject, pictures, {"size": "jpeg"}, values=jpeg)
    missing = study.missing("figure6", subject, pictures, [{"bits": bits} for bits in (FLOAT, *BITS)])
    sizes: dict[int, list[tuple[int, int]]] = {point["bits"]: [] for point in missing}
    for sample in study.samples(subject, pictures) if missing else ():
        counted = tuple(spec for spec in sample.layout if spec.name == subject.split)
        for bits, by_picture in sizes.items():
            by_picture.append((_size(sample, sample.layout, bits), _size(sample, counted, bits)))
    for bits, by_picture in sizes.items():
        whole, counted_only = map(statistics.fmean, zip(*by_picture, strict=True))
        values = {"bytes": round(whole, 1), "split_tensor_bytes": round(counted_only, 1)}
        study.write("figure6", subject, pictures, {"bits": bits}, values=values)


def _size(sample: SplitSample, layout: Layout, bits: int) -> int:
    """Bytes of the packet that some of a picture's tensors make; of the bare floats for FLOAT."""
    if bits == FLOAT or not layout:
        return raw_bytes(layout)
    tensors = {spec.name: sample.tensors[spec.name] for spec in layout}
    return len(Rle(bits).encoder(layout).encode(tensors, Stamp(0, 0, 1, 1)).data)


@dataclass(frozen=True, slots=True)
class _CodedSizes:
    """The records of one network."""

    name: str
    task: str  # of _BOTTLENECKS
    source: str
    by_bits: Mapping[int, Mapping[str, float]]
    jpeg: float  # bytes

    @classmethod
    def of(cls, group: Sequence[StudyRecord]) -> _CodedSizes:
        return cls(
            label(group[0]),
            "classification" if group[0].network in CLASSIFIERS else "detection",
            group[0].source,
            {record.settings["bits"]: record.values for record in group if "bits" in record.settings},
            next(record.values["bytes"] for record in group if record.settings.get("size") == "jpeg"),
        )

    def rows(self) -> list[list[str]]:
        rows = []
        for bits in ROWS:
            if values := self.by_bits.get(bits):
                whole = values["bytes"]
                figures = [
                    kibibytes(whole),
                    kibibytes(values["split_tensor_bytes"]),
                    f"{whole / self.jpeg:.2f}",
                ]
                rows.append([self.name, bits_label(bits), *figures])
        return rows

    def claims(self) -> list[Claim]:
        if not {3, FLOAT} <= self.by_bits.keys():
            return []
        network, bottleneck = _BOTTLENECKS[self.task]
        size = self.by_bits[3]["bytes"]
        ratio = size / bottleneck
        verdict = "agrees" if ratio <= 2 else "does not agree"
        return [
            Claim(
                f"Sizes lie in a similar range as those of bottlenecks: {network}, {kibibytes(bottleneck)} KiB "
                "(section VI).",
                f"{self.name}: {kibibytes(size)} KiB at 3 bits, {ratio:.1f} times the bottleneck and "
                f"{size / self.jpeg:.2f} times JPEG; {percent(size / self.by_bits[FLOAT]['bytes'])} of the floats.",
                f"This {verdict} (similar: at most twice as large).",
            )
        ]


def _present(records: Sequence[StudyRecord]) -> Section:
    networks = [_CodedSizes.of(group) for group in by_subject(records)]
    tasks = [task for task in _BOTTLENECKS if any(network.task == task for network in networks)]
    figure, axes = panels(len(tasks), width=4.2)
    style = looks(network.name for network in networks)
    for task, axis in zip(tasks, axes, strict=True):
        for network in (network for network in networks if network.task == task):
            bits = [bits for bits in BITS if bits in network.by_bits]
            sizes = [network.by_bits[number]["bytes"] / KIB for number in bits]
            axis.plot(bits, sizes, label=network.name, **style[network.name])
            files = f"JPEG files of {network.source}"
            axis.axhline(network.jpeg / KIB, color="black", ls="--", lw=0.8, label=files)
        name, size = _BOTTLENECKS[task]
        axis.axhline(size / KIB, color=COLORS[5], ls=":", lw=1.2, label=name)
        axis.set(title=task, xlabel="bits per coefficient", ylabel="KiB a picture")
        axis.set(yscale="log", xticks=list(BITS))
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
                ["network", "bits", "KiB, whole cut", "KiB, the paper's tensor", "times JPEG"],
                [row for network in networks for row in network.rows()],
                "KiB: 1024 bytes, which the paper calls kB.",
            )
        ],
        claims=[claim for network in networks for claim in network.claims()],
    )


figure6 = Experiment("figure6", "size against bits per coefficient", _measure, _present)
