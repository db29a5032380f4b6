"""Tables I and II: what the pictures and the tensors take, before any coding.

The sizes follow from the networks' shapes alone, so that no weights are needed. Both tables are one, of two data sets:
the same rows and statements, which `_SizeTable` makes, so that they share this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from codec.layout import Layout, raw_bytes
from services.study.record import Settings, StudyRecord
from services.study.section import KIB, Claim, Section, Table, kibibytes
from services.study.study import Experiment, Study
from stream.network.cut import layout
from stream.network.names import DEFAULT_SPLIT
from stream.network.network import official_structure
from stream.torch_network.classifier import SIZE, classifier_skeleton

_INPUT_BYTES = 4 * 3 * prod(SIZE)

# The paper's rows: network, layer, size in what it calls kB, of 1024 bytes.
_TABLE_1 = (
    ("vgg16", "10", 1568.0),
    ("vgg16", "17", 784.0),
    ("resnet50", "4", 784.0),
    ("resnet50", "8", 1568.0),
    ("resnet152", "16", 784.0),
)
_JPEG_1, _INPUT_1, _BOTTLENECK_1 = 128.5, 588.0, 10.6
_TABLE_2 = (("yolov5m", DEFAULT_SPLIT, 1800.0),)
_JPEG_2, _BOTTLENECK_2 = 159.1, 101.8
_PICTURE_2 = (480, 640)  # (H, W) at which the paper's 1800 KiB come out
_DETECTORS = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")


def _measure_1(study: Study) -> None:
    for network, layer, _ in _TABLE_1:
        crossing = layout(classifier_skeleton(network), layer, SIZE)
        _write_tensor(study, "table1", {"network": network, "layer": layer, "size": list(SIZE)}, crossing)
    _write_jpeg(study, "table1", classification=True)


def _measure_2(study: Study) -> None:
    for network in _DETECTORS:
        crossing = layout(official_structure(network).graph, DEFAULT_SPLIT, _PICTURE_2)
        settings = {"network": network, "layer": DEFAULT_SPLIT, "size": list(_PICTURE_2)}
        _write_tensor(study, "table2", settings, crossing)
    _write_jpeg(study, "table2", classification=False)


def _write_tensor(study: Study, table: str, settings: Settings, crossing: Layout) -> None:
    if study.missing(table, None, None, [settings]):
        counted = next(spec for spec in crossing if spec.name == settings["layer"])
        values = {"shape": list(counted.shape), "bytes": counted.raw_bytes, "cut_bytes": raw_bytes(crossing)}
        study.write(table, None, None, settings, values=values)


def _write_jpeg(study: Study, table: str, classification: bool) -> None:
    pictures = (study.imagenet if classification else None) or study.images
    if pictures and study.missing(table, None, pictures, [{"row": "jpeg"}]):
        study.write(table, None, pictures, {"row": "jpeg"}, values={"bytes": pictures.jpeg_bytes()})


def _present_1(records: Sequence[StudyRecord]) -> Section:
    table = _SizeTable(records, _TABLE_1, "ImageNet", _JPEG_1)
    rows = [
        *table.pictures(_INPUT_BYTES),
        table.row("Input tensor", _INPUT_BYTES, _INPUT_1, _INPUT_BYTES),
        *(table.row(f"{network}, layer {layer}", values["bytes"], table.paper.get((network, layer)), _INPUT_BYTES)
          for (network, layer), values in table.tensors.items()),
        ["ResNet-152, bottleneck [4] (published)", "", f"{_BOTTLENECK_1}", "", ""],
    ]  # fmt: skip
    return Section(
        title="Classification: the picture, the input, and what crosses",
        paper="Table I",
        method="Sizes of float32 tensors follow from the networks' shapes. JPEG: mean size of the picture files.",
        tables=[Table("Table I", ["", "KiB", "KiB, paper", "times JPEG", "times input"], rows, _CAPTION)],
        claims=table.claims("Table I"),
        notes=[
            f"The paper prints {_BOTTLENECK_1} KiB as 0.014 of the input tensor; "
            f"{_BOTTLENECK_1} of {_INPUT_1} KiB are {_BOTTLENECK_1 / _INPUT_1:.3f}."
        ],
    )


def _present_2(records: Sequence[StudyRecord]) -> Section:
    table = _SizeTable(records, _TABLE_2, "COCO", _JPEG_2)
    rows = [[*row[:4], "", ""] for row in table.pictures(1)]
    for (network, layer), values in table.tensors.items():
        first = table.row(f"{network}, layer {layer}", values["bytes"], table.paper.get((network, layer)), 1)
        whole = values["cut_bytes"]
        rows.append([*first[:4], kibibytes(whole), f"{whole / values['bytes']:.2f}"])
    rows.append(["Faster R-CNN, bottleneck [9] (published)", "", f"{_BOTTLENECK_2}", "", "", ""])
    height, width = _PICTURE_2
    return Section(
        title="Detection: the picture, and what crosses",
        paper="Table II",
        method=(
            f"Sizes of float32 tensors for a network input of {height}x{width}. At {DEFAULT_SPLIT} two tensors cross, "
            "because the block's other branch has to arrive as well; the paper counts the one that the split is named "
            "after, this project sends and counts both."
        ),
        tables=[
            Table(
                "Table II",
                ["", "KiB", "KiB, paper", "times JPEG", "KiB, whole cut", "times the paper's tensor"],
                rows,
                _CAPTION,
            )
        ],
        claims=table.claims("Table II"),
        notes=[
            f"The paper gives its bottleneck as 0.066 of a tensor; {_BOTTLENECK_2} KiB are "
            f"{_BOTTLENECK_2 / _TABLE_2[0][2]:.3f} of the 1800 KiB of this table. The 0.066 is [9]'s own, of another "
            "network."
        ],
    )


_CAPTION = "KiB: 1024 bytes, which the paper calls kB. Paper: its own numbers."


class _SizeTable:
    """The records of one of the two tables."""

    def __init__(
        self,
        records: Sequence[StudyRecord],
        paper: Sequence[tuple[str, str, float]],
        dataset: str,
        jpeg_kib: float,
    ) -> None:
        self.paper = {(network, layer): size for network, layer, size in paper}
        self.tensors: dict[tuple[str, str], dict[str, Any]] = {}
        for record in records:
            if "layer" in record.settings:
                self.tensors[record.settings["network"], record.settings["layer"]] = dict(record.values)
        self._jpegs = {record.source: record.values["bytes"] for record in records if record.data}
        self._dataset, self._jpeg_kib = dataset, jpeg_kib

    def pictures(self, unit: int) -> list[list[str]]:
        """Rows of the user's pictures and of the paper's."""
        measured = [
            self.row(f"JPEG files: {source}", size, None, unit) for source, size in self._jpegs.items()
        ]
        return [*measured, [f"JPEG files: {self._dataset} (published)", "", f"{self._jpeg_kib}", "", ""]]

    def row(self, name: str, size: float, paper_kib: float | None, unit: int) -> list[str]:
        jpeg = next(iter(self._jpegs.values()), None)
        return [
            name,
            kibibytes(size),
            f"{paper_kib}" if paper_kib else "",
            f"{size / jpeg:.2f}" if jpeg else "",
            f"{size / unit:.2f}",
        ]

    def claims(self, where: str) -> list[Claim]:
        claims = []
        both = {row: size for row, size in self.paper.items() if row in self.tensors}
        if both:
            same = all(self.tensors[row]["bytes"] == size * KIB for row, size in both.items())
            theirs = ", ".join(
                f"{network} layer {layer} {size} KiB" for (network, layer), size in both.items()
            )
            ours = ", ".join(kibibytes(self.tensors[row]["bytes"]) for row in both)
            verdict = "These are the same, to the byte." if same else "These differ."
            claims.append(Claim(f"{where}: {theirs}.", f"{ours} KiB.", verdict))
        for source, size in self._jpegs.items():
            mean = f"{kibibytes(size)} KiB for {source}"
            close = abs(size / KIB / self._jpeg_kib - 1) <= 0.1
            claims.append(
                Claim(
                    f"A JPEG file of {self._dataset} takes {self._jpeg_kib} KiB in the mean.",
                    f"{mean}.",
                    f"{'Alike' if close else 'Other pictures, other sizes'}: "
                    f"{size / KIB / self._jpeg_kib:.2f} times the paper's (alike: within 10 %).",
                )
            )
        return claims


table1 = Experiment("table1", "classification: sizes of pictures and tensors", _measure_1, _present_1)
table2 = Experiment("table2", "detection: sizes of pictures and tensors", _measure_2, _present_2)
