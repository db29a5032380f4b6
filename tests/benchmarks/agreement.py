"""What each engine finds with our boxes, against torch's unsplit network with ultralytics' NMS.

    python -m tests.benchmarks.agreement yolov5n.pt --data images/val2017 --clip vehicles.mp4 --max-frames 100

Agreement and mAP are as `splitcast evaluate` counts them: down to a confidence of .001, several classes a box.
`confident` is the largest difference in pixels of a box that both are sure of, at a service's settings; `other` is how
many boxes only one of them finds there.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from services.evaluation.agreement import PrecisionMeter, confident
from services.evaluation.dataset import Dataset, LetterboxedPicture, letterboxed, read_clip, read_images
from services.evaluation.labels import ClassMap
from services.evaluation.runs import SCORABLE
from stream.detections import Detections
from stream.network.boxes import MAX_CANDIDATES, detect
from stream.network.engine import open_network
from stream.network.names import DEFAULT_SPLIT
from stream.torch_network.model import load_model
from stream.torch_network.split import Unsplit
from tests.stream.network.reference_boxes import suppressed

CAPS = (SCORABLE["max_candidates"], MAX_CANDIDATES, 1000)
SAME = 1.0  # pixel: boxes that are farther apart are two


class Meter:
    """What one way to find objects scores against the reference."""

    def __init__(self) -> None:
        self.agreement, self.accuracy = PrecisionMeter(), PrecisionMeter()
        self.difference, self.other = 0.0, 0

    def compare(self, found: Detections, expected: Detections) -> None:
        """Count boxes at a service's settings, each with the nearest of its class."""
        away = np.abs(found.boxes[:, None] - expected.boxes[None]).max(2, initial=0)
        away[found.class_id[:, None] != expected.class_id[None]] = np.inf
        for nearest in (away.min(1, initial=np.inf), away.min(0, initial=np.inf)):
            self.other += int((nearest > SAME).sum())
            self.difference = max(self.difference, nearest[nearest <= SAME].max(initial=0))


def measure(weights: Path, dataset: Dataset, size: int = 640) -> dict[str, Meter]:
    """A meter of every engine and cap, by name."""
    reference = load_model(weights)
    unsplit = Unsplit(reference)
    engines = {name: open_network(weights, name) for name in ("torch", "torch-half", "onnxruntime")}
    tails = {name: network.tail(DEFAULT_SPLIT) for name, network in engines.items()}
    meters = {"torch unsplit, ultralytics' NMS": Meter()}
    for picture in pictures(dataset, reference.names, size, reference.stride):
        letterbox, prediction = picture.letterbox, unsplit(picture.canvas)
        scored = {"torch unsplit, ultralytics' NMS": suppressed(prediction, letterbox, **SCORABLE)}
        truth = confident(scored["torch unsplit, ultralytics' NMS"])
        for name, network in engines.items():
            tensors = network.head(DEFAULT_SPLIT, letterbox.canvas)(picture.canvas)
            (logits,) = tails[name]([tensors])
            for cap in CAPS:
                way = f"{name}, {cap:,} candidates"
                search = {**SCORABLE, "max_candidates": cap}
                scored[way] = detect(logits, network.levels, letterbox, **search)
                found = detect(logits, network.levels, letterbox, max_candidates=cap)
                meters.setdefault(way, Meter()).compare(found, suppressed(prediction, letterbox))
        for way, detections in scored.items():
            meters[way].agreement.add(detections, truth)
            if picture.labels is not None:
                meters[way].accuracy.add(detections, picture.labels.single, picture.labels.crowd)
    return meters


def pictures(
    dataset: Dataset, names: tuple[str, ...], size: int, stride: int
) -> Iterator[LetterboxedPicture]:
    """The dataset's pictures, with a bar that tells how far they are."""
    classes = ClassMap(dataset.classes, names)
    yield from track(letterboxed(dataset, classes, size, stride), dataset.name, total=dataset.expected)


def main() -> None:
    parser = ArgumentParser(prog="python -m tests.benchmarks.agreement", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder of images")
    parser.add_argument("--clip", type=Path, action="append", default=[])
    parser.add_argument("--max-frames", type=int, help="of each source")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources = [read_images(folder, max_frames=options.max_frames) for folder in options.data]
    sources += [read_clip(clip, max_frames=options.max_frames) for clip in options.clip]
    for dataset in sources:
        table = Table("", "agreement", "mAP50-95", "mAP50", "confident, px", "other", title=dataset.name)
        for way, meter in measure(options.weights, dataset).items():
            agreement, accuracy = meter.agreement.over_objects(), meter.accuracy.over_classes()
            table.add_row(
                way,
                f"{agreement.ap:.4f}" if agreement else "",
                f"{accuracy.ap:.4f}" if accuracy else "",
                f"{accuracy.ap50:.4f}" if accuracy else "",
                f"{meter.difference:.4f}",
                str(meter.other),
            )
        Console(markup=False, emoji=False).print(table)


if __name__ == "__main__":
    main()
