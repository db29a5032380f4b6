"""Which detections find which objects, kept by frame, so that agreement can be had for any choice of the frames.

Counting average precision anew for every choice would take as long as all else together; matching is done once, because
no frame changes what is matched in another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.evaluation.agreement import OVERLAPS, RECALLS
from stream.detections import Detections

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _ClassMatches:
    """Detections of one class in all frames, the most confident first."""

    frame: NDArray[np.int64]  # (N,): each detection's
    found: _Bools  # (N, OVERLAPS): whether it is an object at this overlap
    objects: _Floats  # (frames,)


class Matches:
    """What was found in each frame of a source, by class."""

    def __init__(self, frames: Sequence[tuple[Detections, Detections]]) -> None:
        """Each frame's detections, and its objects."""
        kinds = np.unique(np.concatenate([truth.class_id for _, truth in frames])).tolist()
        self._classes = [_class_matches(kind, frames) for kind in kinds]

    def agreement(self, weights: _Floats) -> _Floats:
        """Average precision, over overlaps and objects alike, (B,) for each choice (B, frames) of frames.

        A choice tells how often each frame counts. Where it holds no object, NaN.
        """
        total, objects = np.zeros(len(weights)), np.zeros(len(weights))
        for kind in self._classes:
            held = weights @ kind.objects
            total += held * _precision(kind, weights, held)
            objects += held
        with np.errstate(invalid="ignore"):
            shares: _Floats = total / objects
        return shares


def _class_matches(kind: int, frames: Iterable[tuple[Detections, Detections]]) -> _ClassMatches:
    confidence, frame, found, objects = [], [], [], []
    for number, (detections, truth) in enumerate(frames):
        ours, theirs = detections.class_id == kind, truth.class_id == kind
        objects.append(float(theirs.sum()))
        scores = detections.confidence[ours]
        order = np.argsort(-scores, kind="stable")
        confidence.append(scores[order])
        frame.append(np.full(len(order), number))
        found.append(_matched(detections.boxes[ours][order], truth.boxes[theirs]))
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    hits = np.concatenate(found)[order]
    # What comes after the last hit lowers no precision that counts.
    last = int(np.flatnonzero(hits.any(1)).max(initial=-1)) + 1
    return _ClassMatches(np.concatenate(frame)[order][:last], hits[:last], np.array(objects))


def _matched(boxes: NDArray[np.float32], objects: NDArray[np.float32]) -> _Bools:
    """Whether each box (N, 4), the most confident first, takes an object (M, 4) that is free, at each of OVERLAPS."""
    found = np.zeros((len(boxes), len(OVERLAPS)), np.bool_)
    overlaps = _overlaps(boxes.astype(np.float64), objects.astype(np.float64))
    free = np.ones((len(objects), len(OVERLAPS)), np.bool_)
    levels = np.arange(len(OVERLAPS))
    for n in np.flatnonzero(overlaps.max(1, initial=0) >= OVERLAPS[0]).tolist():
        candidates = np.where(free & (overlaps[n][:, None] >= OVERLAPS), overlaps[n][:, None], -1.0)
        best = len(objects) - 1 - candidates[::-1].argmax(0)  # of equals the last, as COCO does
        found[n] = candidates[best, levels] >= 0
        free[best[found[n]], levels[found[n]]] = False
    return found


def _overlaps(boxes: _Floats, objects: _Floats) -> _Floats:
    """Intersection over union (N, M)."""
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas = [(some[:, 2:] - some[:, :2]).prod(1) for some in (boxes, objects)]
    union = areas[0][:, None] + areas[1][None] - shared
    overlaps: _Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _precision(kind: _ClassMatches, weights: _Floats, objects: _Floats) -> _Floats:
    """Mean over OVERLAPS of COCO's average precision, (B,), 0 where there is no object of the class."""
    each = weights[:, kind.frame]  # (B, N)
    total = np.zeros(len(weights))
    for hits in kind.found.T:
        if not hits.any():
            continue
        right = np.cumsum(each * hits, 1)
        seen = np.cumsum(each, 1)
        precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        recall = np.divide(right, objects[:, None], out=np.zeros_like(right), where=objects[:, None] > 0)
        # How many of RECALLS a detection is the first to reach: 0 is reached by the first of all.
        new = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=1, prepend=0)
        total += (best_from_here * new).sum(1) / len(RECALLS)
    return total / len(OVERLAPS)
