"""How good the demo network is on pictures that it was not trained on: the figures of its model card."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from services.evaluation.agreement import PrecisionMeter
from services.evaluation.dataset import read_images
from services.training.pictures import CLASSES, demo_boxes
from stream.canvas import canvas_for
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.download import find_weights
from stream.network.names import DEMO
from stream.torch_network.model import Model, load_model
from stream.torch_network.nms import detect
from stream.torch_network.split import Unsplit

LEAST_CONFIDENCE = 0.001  # as COCO's mAP is measured


def main() -> None:
    parser = ArgumentParser(prog="python -m services.training.assess", description=__doc__)
    parser.add_argument("images", type=Path, help="folder of COCO images, with YOLO labels beside it")
    parser.add_argument("--model", action="append", help="network by name or path; may be repeated")
    parser.add_argument("--size", type=int, default=640)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("model", "class", "objects", "AP50", "AP50-95")
    for name in options.model or [DEMO]:
        for kind, meters in assess(load_model(find_weights(name)), options.images, options.size).items():
            if (precision := meters.over_classes()) is not None:
                figures = f"{precision.ap50:.3f}", f"{precision.ap:.3f}"
                table.add_row(Path(name).stem, kind, str(meters.objects), *figures)
    Console(markup=False, emoji=False).print(table)


def assess(model: Model, images: Path, size: int = 640) -> dict[str, PrecisionMeter]:
    """Average precision of the demo's classes on labeled COCO images: over all (`all`), then of each class.

    The network may know other classes too; what it finds of them is not counted.
    """
    network = Unsplit(model)
    known = [model.names.index(name) for name in CLASSES]
    meters = {kind: PrecisionMeter() for kind in ("all", *CLASSES)}
    dataset = read_images(images)
    for picture in tqdm(dataset.pictures, total=dataset.expected):
        height, width = picture.image.shape[:2]
        letterbox = Letterbox((height, width), canvas_for(size, height, width, model.stride))
        prediction = network(letterbox.apply(picture.image))
        detections = detect(
            prediction, letterbox, conf=LEAST_CONFIDENCE, iou=0.6, classes=known, multi_label=True
        )
        classes = np.array([known.index(kind) for kind in detections.class_id], np.int64)
        detections = Detections(detections.boxes, detections.confidence, classes)
        rows = demo_boxes(picture.labels)
        if rows is None:
            raise SystemExit(f"{images} has no labels beside it")
        truth = Detections(rows[:, 1:], np.ones(len(rows), np.float32), rows[:, 0].astype(np.int64))
        meters["all"].add(detections, truth)
        for kind, name in enumerate(CLASSES):
            meters[name].add(_of(detections, kind), _of(truth, kind))
    return meters


def _of(objects: Detections, kind: int) -> Detections:
    keep = objects.class_id == kind
    return Detections(objects.boxes[keep], objects.confidence[keep], objects.class_id[keep])


if __name__ == "__main__":
    main()
