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
        self._ignored: list[NDArray[np.bool_]] = []  # (N, 10): at which thresholds it counts neither way
        self._confidence: list[NDArray[np.float32]] = []
        self._found_class: list[NDArray[np.int64]] = []
        self._true_class: list[NDArray[np.int64]] = []

    def add(self, found: Detections, truth: Detections, crowd: Detections | None = None) -> None:
        """Match one frame's detections, down to a low confidence, to its objects; the truth's confidence is unread.

        As COCO counts, a detection that is no object's but lies in a crowd of its class is ignored at the
        thresholds that the share of it inside the crowd reaches.
        """
        overlap = box_iou(torch.from_numpy(truth.boxes), torch.from_numpy(found.boxes))
        correct = BaseValidator.match_predictions(
            _THRESHOLDS, torch.from_numpy(found.class_id), torch.from_numpy(truth.class_id), overlap
        )
        self.objects += len(truth)
        self._correct.append(correct.numpy())
        self._ignored.append(~correct.numpy() & _in_crowd(found, crowd))
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
        correct, ignored = np.concatenate(self._correct), np.concatenate(self._ignored)
        confidence, found_class = np.concatenate(self._confidence), np.concatenate(self._found_class)
        true_class = np.concatenate(self._true_class)

        def precision(kept: NDArray[np.bool_], thresholds: slice) -> NDArray[np.float64]:
            by_class: NDArray[np.float64] = ap_per_class(
                correct[kept, thresholds], confidence[kept], found_class[kept], true_class
            )[5]
            return by_class

        if ignored.any():  # what is ignored differs by threshold
            columns = (precision(~ignored[:, j], slice(j, j + 1)) for j in range(correct.shape[1]))
            by_class = np.hstack(list(columns))
        else:
            by_class = precision(~ignored[:, 0], slice(None))
        return by_class, np.unique(true_class, return_counts=True)[1]


def _in_crowd(found: Detections, crowd: Detections | None) -> NDArray[np.bool_]:
    """At which thresholds (N, 10) a detection lies in a crowd of its class."""
    thresholds = _THRESHOLDS.iouv.numpy()
    if crowd is None or not len(crowd):
        return np.zeros((len(found), len(thresholds)), np.bool_)
    corner = np.maximum(found.boxes[:, None, :2], crowd.boxes[None, :, :2])
    opposite = np.minimum(found.boxes[:, None, 2:], crowd.boxes[None, :, 2:])
    shared = (opposite - corner).clip(0).prod(2)
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1, keepdims=True)
    share = shared / np.maximum(area, np.finfo(np.float32).tiny)
    share[found.class_id[:, None] != crowd.class_id[None]] = 0
    inside: NDArray[np.bool_] = share.max(1)[:, None] >= thresholds
    return inside


def confident(found: Detections) -> Detections:
    """The detections above CONFIDENT: the truth that a codec is compared with."""
    keep = found.confidence > CONFIDENT
    return Detections(found.boxes[keep], found.confidence[keep], found.class_id[keep])


def _mean(by_class: NDArray[np.float64], weights: NDArray[np.float64] | NDArray[np.int64]) -> Precision:
    by_threshold = np.average(by_class, axis=0, weights=weights)
    return Precision(ap=float(by_threshold.mean()), ap50=float(by_threshold[0]))
