"""How well detections match those that should have been found: average precision by COCO's protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from stream.detections import Detections

CONFIDENT = 0.30  # what the unsplit network is this sure of, it should find again after coding
CEILING = 1.0  # AP of a perfect match
OVERLAPS = np.linspace(0.5, 0.95, 10)  # at which a detection is an object
RECALLS = np.linspace(0, 1, 101)  # at which precision is taken


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision, 0 to CEILING: over IoU thresholds from .50 to .95 in steps of .05, and at .50 alone."""

    ap: float
    ap50: float


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    detections: Detections
    truth: Detections
    crowd: Detections | None


class PrecisionMeter:
    """The detections of frame after frame, and the average precision of them all.

    It keeps every frame's boxes: about 7 kB where a frame has 300 detections.
    """

    def __init__(self) -> None:
        self._frames: list[_Frame] = []

    @property
    def objects(self) -> int:
        """How many objects there are to find."""
        return sum(len(frame.truth) for frame in self._frames)

    @property
    def frames(self) -> list[tuple[Detections, Detections]]:
        """Each frame's detections and objects, without crowds."""
        return [(frame.detections, frame.truth) for frame in self._frames]

    def add(self, detections: Detections, truth: Detections, crowd: Detections | None = None) -> None:
        """One frame's detections, down to a low confidence, and its objects, whose confidence is not read.

        As COCO counts, a detection that is no object's but lies in a crowd of its class is ignored at the
        thresholds that the share of it inside the crowd reaches. Unlike there, more than 100 of a class count, so
        that an exact copy is at the ceiling however much there is to see: on COCO's pictures AP moves by .0001 at most.
        """
        self._frames.append(_Frame(detections, truth, crowd))

    def over_classes(self) -> Precision | None:
        """Mean over the classes that occur, as COCO's mAP counts; None if there was no object."""
        if not self.objects:
            return None
        precision, _ = self._by_class()
        return _mean(precision, np.ones(len(precision)))

    def over_objects(self) -> Precision | None:
        """Mean over the objects: a class weighs as much as it occurs; None if there was no object.

        It is far smoother than the mean over classes, in which one missed object of a rare class is a jump.
        """
        return _mean(*self._by_class()) if self.objects else None

    def _by_class(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """AP (classes, 10 thresholds) and number of objects (classes,), for the classes that occur."""
        class_ids, objects = np.unique(
            np.concatenate([frame.truth.class_id for frame in self._frames]), return_counts=True
        )
        ground_truth = COCO(self._labels(class_ids))
        evaluation = COCOeval_faster(ground_truth, ground_truth.loadRes(self._results()), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.params.maxDets = [max(len(frame.detections) for frame in self._frames)]
        evaluation.evaluate()
        evaluation.accumulate()
        # Thresholds, 101 recalls, classes, one range of areas, one limit of detections.
        precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]
        return precision.mean(1).T, objects

    def _labels(self, class_ids: NDArray[np.int64]) -> dict[str, list[dict[str, Any]]]:
        """The objects and crowds as COCO's file of labels holds them, by the number of their frame."""
        annotations: list[dict[str, Any]] = []
        for number, frame in enumerate(self._frames):
            for objects, is_crowd in ((frame.truth, 0), (frame.crowd, 1)):
                if objects is None:
                    continue
                boxes = _corner_and_size(objects.boxes)
                for box, class_id in zip(boxes.tolist(), objects.class_id.tolist(), strict=True):
                    annotations.append(
                        {
                            "id": len(annotations) + 1,  # 0 would mean that nothing matched
                            "image_id": number,
                            "category_id": class_id,
                            "bbox": box,
                            "area": box[2] * box[3],
                            "iscrowd": is_crowd,
                        }
                    )
        return {
            "images": [{"id": number} for number in range(len(self._frames))],
            "categories": [{"id": class_id} for class_id in class_ids.tolist()],
            "annotations": annotations,
        }

    def _results(self) -> NDArray[np.float64]:
        """Rows of frame, left, top, width, height, confidence, class."""
        return np.concatenate(
            [
                np.column_stack(
                    (
                        np.full(len(frame.detections), number),
                        _corner_and_size(frame.detections.boxes),
                        frame.detections.confidence,
                        frame.detections.class_id,
                    )
                )
                for number, frame in enumerate(self._frames)
            ]
        )


def confident(detections: Detections) -> Detections:
    """The detections above CONFIDENT: the truth that a codec is compared with."""
    keep = detections.confidence > CONFIDENT
    return Detections(detections.boxes[keep], detections.confidence[keep], detections.class_id[keep])


def _corner_and_size(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Left, top, width, height of boxes (N, 4) given by their corners."""
    corners = boxes.astype(np.float64)
    return np.hstack((corners[:, :2], corners[:, 2:] - corners[:, :2]))


def _mean(by_class: NDArray[np.float64], weights: NDArray[np.float64] | NDArray[np.int64]) -> Precision:
    by_threshold = np.average(by_class, axis=0, weights=weights)
    return Precision(ap=float(by_threshold.mean()), ap50=float(by_threshold[0]))
