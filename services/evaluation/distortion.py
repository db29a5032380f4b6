"""How far a network's logits are from those of the unsplit network: a measure that every small damage moves a little.

Average precision counts the few objects that the network is sure of, and only whether they are matched; the distortion
adds up what happened to every box that might have been a detection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.network.boxes import boxes_at, places_above
from stream.network.levels import Levels, Logits

FLOOR = 0.03  # score below which nothing counts: no service shows such a box

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredAnchors:
    """The anchors of one picture, before suppression, of which some class scores above FLOOR, in rising order.

    The score of a class is objectness times class probability; YOLOv5u has the latter alone.
    """

    places: NDArray[np.int32]  # (N,), as `places_above` counts
    scores: _Floats  # (N, classes): not below FLOOR
    boxes: _Floats  # (N, 4): left, top, right, bottom in pixels of the canvas

    @classmethod
    def of(cls, logits: Logits, levels: Levels) -> ScoredAnchors:
        """Those of a picture's logits."""
        places = places_above(logits, levels, FLOOR)
        return cls(
            places, _scores(logits, levels, places), boxes_at(logits, levels, places).astype(np.float64)
        )

    def __len__(self) -> int:
        return len(self.places)


def distortion(reference: ScoredAnchors, logits: Logits, levels: Levels) -> float:
    """Sum over the anchors of how far one picture's logits are from the unsplit network's; 0 for the same.

    Over all anchors that score above FLOOR in either: the Hellinger distance of their classes, 0 to 1. Each class is a
    Bernoulli variable, whose probability is its score, or FLOOR if that is more; the classes are independent.
    Over those of the unsplit network: its highest score times (1 - IoU) of the box with its own.

    So what stays below FLOOR changes nothing, and what crosses it changes the sum without a jump. An anchor that only
    the coded picture raises has no box to compare: its classes count alone.
    """
    raised = places_above(logits, levels, FLOOR)
    places = np.union1d(reference.places, raised).astype(np.int32)
    before = np.full((len(places), levels.classes), FLOOR)
    before[np.searchsorted(places, reference.places)] = reference.scores
    classes = _hellinger(before, _scores(logits, levels, places)).sum()
    boxes = boxes_at(logits, levels, reference.places).astype(np.float64)
    moved = reference.scores.max(1, initial=0) @ (1 - _overlap(reference.boxes, boxes))
    return float(classes + moved)


def _scores(logits: Logits, levels: Levels, places: NDArray[np.int32]) -> _Floats:
    """Scores (N, classes) of these places, FLOOR where they are below."""
    first_class = levels.box_channels + (levels.family == "yolov5")
    scores = np.empty((len(places), levels.classes))
    first = 0
    for level in logits:
        planes = level.reshape(levels.anchors_per_level, levels.channels // levels.anchors_per_level, -1)
        end = first + planes.shape[0] * planes.shape[2]
        here = (first <= places) & (places < end)
        anchor, cell = np.divmod(places[here] - first, planes.shape[2])
        score = _sigmoid(planes[anchor, first_class:, cell])
        if levels.family == "yolov5":
            score *= _sigmoid(planes[anchor, levels.box_channels, cell])[:, None]
        scores[here] = score
        first = end
    floored: _Floats = np.fmax(scores, FLOOR)  # FLOOR for NaN too
    return floored


def _sigmoid(logits: NDArray[np.float32]) -> _Floats:
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))  # which overflows nowhere


def _hellinger(some: _Floats, others: _Floats) -> _Floats:
    """Distances (N,) of vectors (N, classes) of independent Bernoulli variables."""
    # One minus the Bhattacharyya coefficient of a class, in a form that loses no digits where the two are near.
    both, neither = np.sqrt(some) - np.sqrt(others), np.sqrt(1 - some) - np.sqrt(1 - others)
    with np.errstate(divide="ignore"):  # where one is sure of what the other excludes
        alike = np.log1p(-0.5 * (both**2 + neither**2)).sum(1)
    distances: _Floats = np.sqrt(-np.expm1(alike))
    return distances


def _overlap(some: _Floats, others: _Floats) -> _Floats:
    """Intersection over union (N,) of boxes (N, 4) each with the other's of its row; 0 where it is not finite."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        sides = np.minimum(some[:, 2:], others[:, 2:]) - np.maximum(some[:, :2], others[:, :2])
        shared = np.maximum(sides, 0).prod(1)
        union = (some[:, 2:] - some[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - shared
        overlap = np.where((some == others).all(1), 1.0, shared / union)
    return np.where(np.isfinite(overlap), np.clip(overlap, 0, 1), 0.0)
