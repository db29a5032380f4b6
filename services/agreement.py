"""How well detections match those that should have been found, by ultralytics' own matching and AP."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import ap_per_class, box_iou

from stream.detections import Detections

CONFIDENT = 0.30  # what the unsplit network is this sure of, it should find again after coding
CEILING = 0.995  # AP of a perfect match: the curve falls to zero at recall 1, the last of its 101 points

_THRESHOLDS = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision, 0 to CEILING: over IoU thresholds from .50 to .95 in steps of .05, and at .50 alone."""

    ap: float
    ap50: float


class Matches:
    """Which of the objects that there are were found, gathered frame by frame; keeps no boxes."""

    def __init__(self) -> None:
        self.objects = 0
        self._correct: list[NDArray[np.bool_]] = []  # (N, 10) a frame: which thresholds a detection meets
        self._confidence: list[NDArray[np.float32]] = []
        self._found_class: list[NDArray[np.int64]] = []
        self._true_class: list[NDArray[np.int64]] = []

    def add(self, found: Detections, truth: Detections) -> None:
        """Match one frame's detections, down to a low confidence, to its objects; the truth's confidence is unread."""
        overlap = box_iou(torch.from_numpy(truth.boxes), torch.from_numpy(found.boxes))
        correct = BaseValidator.match_predictions(
            _THRESHOLDS, torch.from_numpy(found.class_id), torch.from_numpy(truth.class_id), overlap
        )
        self.objects += len(truth)
        self._correct.append(correct.numpy())
        self._confidence.append(found.confidence)
        self._found_class.append(found.class_id)
        self._true_class.append(truth.class_id)

    def over_classes(self) -> Precision | None:
        """Mean over the classes that occur, as COCO's mAP counts; None if there was no object."""
        if not self.objects:
            return None
        by_class, _ = self._by_class()
        return _mean(by_class, np.ones(len(by_class)))

    def over_objects(self) -> Precision | None:
        """Mean over the objects: a class weighs as much as it occurs; None if there was no object.

        It is far smoother than the mean over classes, in which one missed object of a rare class is a jump.
        """
        return _mean(*self._by_class()) if self.objects else None

    def _by_class(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """AP (classes, 10) and number of objects (classes,), for the classes that occur."""
        true_class = np.concatenate(self._true_class)
        by_class: NDArray[np.float64] = ap_per_class(
            np.concatenate(self._correct),
            np.concatenate(self._confidence),
            np.concatenate(self._found_class),
            true_class,
        )[5]
        return by_class, np.unique(true_class, return_counts=True)[1]


def confident(found: Detections) -> Detections:
    """The detections above CONFIDENT: the truth that a codec is compared with."""
    keep = found.confidence > CONFIDENT
    return Detections(found.boxes[keep], found.confidence[keep], found.class_id[keep])


def _mean(by_class: NDArray[np.float64], weights: NDArray[np.float64] | NDArray[np.int64]) -> Precision:
    by_threshold = np.average(by_class, axis=0, weights=weights)
    return Precision(ap=float(by_threshold.mean()), ap50=float(by_threshold[0]))
