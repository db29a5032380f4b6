"""From the logits of a network's levels to detections: candidates, the best of them, and non-maximum suppression.

What a picture costs is bounded whatever its logits are: every cell is looked at once, of the candidates the most
confident are kept, and each of these is compared with no more boxes than may come out.

The kernels use nothing of other files, since numba's cache looks at the file that a kernel is written in.
"""

# ruff: noqa: PLR0912, PLR0917 - a kernel's state travels as numbers, and a call costs more than a line

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import boolean, float32, float64, int32, int64
from numba.types import Array
from numba.types import NamedTuple as NamedTupleType
from numpy.typing import NDArray

from codec.jit import inlined, kernel
from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.levels import BINS, Levels, Logits

MAX_CANDIDATES = 3000
"""How many of a picture's candidates compete: more change no detection of a real picture."""

_BLOCK = 32  # cells that are looked at together: what vector instructions take, and two cache lines of each channel
_CLASS_OFFSET = 7680  # pixels

Floats: TypeAlias = NDArray[np.float32]


class _BoxCandidates(NamedTuple):
    """Boxes that may be detections, in the order of levels, anchors, rows and columns."""

    confidence: Floats  # (N,)
    place: NDArray[
        np.int32
    ]  # (N,): anchor times cells of the level, plus cell, counted on from level to level
    class_id: NDArray[np.int32]  # (N,)


class _BestClasses(NamedTuple):
    """What a search works in: the most probable class so far of each cell of a block."""

    logit: Floats  # (_BLOCK,)
    class_id: NDArray[np.int32]  # (_BLOCK,)


class _Search(NamedTuple):
    """What is a candidate."""

    anchors: int  # of each level
    box_channels: int
    objectness: bool  # whether there is such a channel between box and classes
    multi_label: bool
    wanted: NDArray[np.bool_]  # (classes,)
    least: np.float32  # confidence, which a candidate exceeds
    least_logit: np.float32  # that objectness and class exceed, wherever their product is confident enough


_PLANES = Array(float32, 2, "C", readonly=True)  # (channels, cells)
_FLOATS, _INTS = Array(float32, 1, "C"), Array(int32, 1, "C")
_CANDIDATES = NamedTupleType((_FLOATS, _INTS, _INTS), _BoxCandidates)
_BEST = NamedTupleType((_FLOATS, _INTS), _BestClasses)
_SEARCH = NamedTupleType((int64, int64, boolean, boolean, Array(boolean, 1, "C"), float32, float32), _Search)


def detect(
    logits: Logits,
    levels: Levels,
    letterbox: Letterbox,
    *,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
    multi_label: bool = False,
    max_candidates: int = MAX_CANDIDATES,
) -> Detections:
    """The objects of one picture, found as ultralytics' `non_max_suppression` finds them, but without its time limit.

    `conf` is the least confidence, `iou` the overlap above which the weaker of two boxes of a class goes, and
    `classes` the class indices to keep. `multi_label` keeps every class of a box above `conf` instead of the best
    one, which is how mAP is measured. The `max_candidates` most confident boxes compete, and the `max_det` most
    confident of what is left come out. Logits that are not finite never make a box that is not.
    """
    candidates = _search(logits, levels, conf, classes, multi_label)
    order = most_confident(candidates.confidence, max_candidates)
    confidence, class_id = candidates.confidence[order], candidates.class_id[order]
    boxes = boxes_at(logits, levels, candidates.place[order])
    kept = unsuppressed(boxes, class_id, iou, max_det)
    return Detections(
        boxes=letterbox.to_frame(boxes[kept]),
        confidence=confidence[kept],
        class_id=class_id[kept].astype(np.int64),
    )


def places_above(logits: Logits, levels: Levels, conf: float) -> NDArray[np.int32]:
    """Places of the boxes whose most probable class has a confidence above `conf`, before any is suppressed.

    A place (N,) is anchor times cells of the level, plus cell, counted on from level to level; places come in rising
    order.
    """
    return _search(logits, levels, conf).place


def boxes_at(logits: Logits, levels: Levels, places: NDArray[np.int32]) -> Floats:
    """The boxes (N, 4) of these places in pixels of the canvas: left, top, right, bottom. They may not be finite."""
    boxes = np.empty((len(places), 4), np.float32)
    first = 0
    for level, stride, anchors in zip(logits, levels.strides, _anchors(levels), strict=True):
        first = _decode(_planes(level, levels), level.shape[-1], stride, anchors, first, places, boxes)
    return boxes


def _planes(level: Floats, levels: Levels) -> Floats:
    """A level's logits as (channels, cells), as kernels take them."""
    assert level.shape[0] == levels.channels, (level.shape, levels)
    return np.ascontiguousarray(level, np.float32).reshape(levels.channels, -1)


def _least_logit(conf: float) -> np.float32:
    """What the logit of any probability above `conf` exceeds, with room for the rounding of float32."""
    share = min(max(conf, 0.0), 1.0) * (1 - 1e-6)
    return np.float32(math.log(share / (1 - share)) if share else -math.inf)


def _search(
    logits: Logits,
    levels: Levels,
    conf: float,
    classes: Sequence[int] | None = None,
    multi_label: bool = False,
) -> _BoxCandidates:
    """What `detect` calls candidates, as it is told."""
    wanted = np.ones(levels.classes, np.bool_)
    if classes is not None:
        wanted[:] = np.isin(np.arange(levels.classes), classes)
    search = _Search(
        anchors=levels.anchors_per_level,
        box_channels=levels.box_channels,
        objectness=levels.family == "yolov5",
        multi_label=multi_label,
        wanted=wanted,
        least=np.float32(conf),
        least_logit=_least_logit(conf),
    )
    planes = [_planes(level, levels) for level in logits]
    lent = _BestClasses(np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32))
    room = sum(search.anchors * level.shape[1] for level in planes)
    while True:
        candidates = _BoxCandidates(
            np.empty(room, np.float32), np.empty(room, np.int32), np.empty(room, np.int32)
        )
        found = first = 0
        for level in planes:
            found = _find(level, search, first, found, lent, candidates)
            first += search.anchors * level.shape[1]
        if found <= room:
            confidence, place, class_id = candidates
            return _BoxCandidates(confidence[:found], place[:found], class_id[:found])
        room = found  # several classes of one box: they are found again, now that there is room for them


def most_confident(confidence: Floats, most: int) -> NDArray[np.intp]:
    """Indices of at most so many, the most confident first, and of equals the first first."""
    # The bits of a positive float32 are ordered as its value is. One number for both is quicker to sort than two.
    keys = ~confidence.view(np.uint32) & np.uint64(2**32 - 1)
    keys = keys << np.uint64(32) | np.arange(len(keys), dtype=np.uint64)
    if len(keys) > most:
        keys = np.partition(keys, most)[:most]
    keys.sort()
    return (keys & np.uint64(2**32 - 1)).astype(np.intp)


def unsuppressed(boxes: Floats, class_id: NDArray[np.int32], iou: float, max_det: int) -> NDArray[np.int64]:
    """Indices of the first `max_det` boxes that overlap no earlier one of their class by more than `iou`.

    Boxes (N, 4) are given as left, top, right, bottom, the most confident first. One that is not finite is left out.
    """
    kept = np.empty(min(max_det, len(boxes)), np.int64)
    return kept[: _suppress(boxes, class_id, iou, np.empty((5, len(kept)), np.float32), kept)]


def _anchors(levels: Levels) -> list[Floats]:
    """(A, 2) of each level: width and height in pixels; (0, 2) for YOLOv5u."""
    return [
        np.array(anchors, np.float32).reshape(-1, 2)
        for anchors in levels.anchors or [()] * len(levels.strides)
    ]


@inlined
def _sigmoid(logit: np.float32) -> np.float32:
    return np.float32(1) / (np.float32(1) + np.float32(math.exp(-logit)))


@inlined
def _append(
    found: int, confidence: np.float32, place: int, class_id: int, search: _Search, candidates: _BoxCandidates
) -> int:
    if not (confidence > search.least and search.wanted[class_id]):
        return found
    if found < candidates.confidence.size:
        candidates.confidence[found] = confidence
        candidates.place[found] = place
        candidates.class_id[found] = class_id
    return found + 1


@kernel(int64(_PLANES, _SEARCH, int64, int64, _BEST, _CANDIDATES), error_model="numpy")
def _find(
    planes: Floats, search: _Search, first: int, found: int, lent: _BestClasses, candidates: _BoxCandidates
) -> int:
    """Append a level's candidates, whose places count from `first`, to the `found` ones; returns how many there are.

    What there is no room for is counted, but not written.
    """
    cells = planes.shape[1]
    channels = planes.shape[0] // search.anchors
    least = search.least_logit
    for anchor in range(search.anchors):
        objectness = anchor * channels + search.box_channels  # of YOLOv5; of YOLOv5u it is the first class
        first_class = objectness + np.int64(search.objectness)
        classes = (anchor + 1) * channels - first_class
        for start in range(0, cells, lent.logit.size):
            logit, class_id = lent.logit[: cells - start], lent.class_id[: cells - start]
            block = slice(start, start + logit.size)
            if search.objectness:
                promising = False
                for value in planes[objectness, block]:
                    promising |= value > least
                if not promising:
                    continue
            for i in range(logit.size):
                logit[i], class_id[i] = -np.inf, 0
            for c in range(classes):
                row = planes[first_class + c, block]
                for i in range(logit.size):
                    better = row[i] > logit[i]  # which NaN never is
                    logit[i] = row[i] if better else logit[i]
                    class_id[i] = np.int32(c) if better else class_id[i]
            for i in range(logit.size):
                if not logit[i] > least:
                    continue
                cell = start + i
                place = first + anchor * cells + cell
                certainty = _sigmoid(planes[objectness, cell]) if search.objectness else np.float32(1)
                if search.multi_label:
                    for c in range(classes):
                        if planes[first_class + c, cell] > least:  # which most are not
                            confidence = _sigmoid(planes[first_class + c, cell]) * certainty
                            found = _append(found, confidence, place, c, search, candidates)
                else:
                    confidence = _sigmoid(logit[i]) * certainty
                    found = _append(found, confidence, place, class_id[i], search, candidates)
    return found


@inlined
def _distance(planes: Floats, side: int, cell: int) -> np.float32:
    """From a cell's center to a side of its box, in cells: the mean of what the softmax of the bins tells."""
    most = np.float32(-np.inf)
    for channel in range(side * BINS, (side + 1) * BINS):
        most = max(most, planes[channel, cell])
    total = weighted = np.float32(0)
    for bin in range(BINS):
        share = np.float32(math.exp(planes[side * BINS + bin, cell] - most))
        total += share
        weighted += share * np.float32(bin)
    return weighted / total


@kernel(
    int64(
        _PLANES, int64, float32, Array(float32, 2, "C", readonly=True), int64, _INTS, Array(float32, 2, "C")
    ),
    error_model="numpy",
)
def _decode(
    planes: Floats,
    width: int,
    stride: float,
    anchors: Floats,
    first: int,
    places: NDArray[np.int32],
    boxes: Floats,
) -> int:
    """Fill in the boxes whose places are of this level, which counts from `first`; returns the first of the next.

    `width` is that of the level in cells, `stride` and `anchors` are in pixels.
    """
    cells = planes.shape[1]
    end: int = first + max(anchors.shape[0], 1) * cells
    half, two = np.float32(0.5), np.float32(2)
    for n in range(places.size):
        if not first <= places[n] < end:
            continue
        anchor, cell = divmod(places[n] - first, cells)
        y, x = divmod(cell, width)
        if anchors.shape[0]:
            box = anchor * (planes.shape[0] // anchors.shape[0])
            center_x = (_sigmoid(planes[box, cell]) * two - half + np.float32(x)) * stride
            center_y = (_sigmoid(planes[box + 1, cell]) * two - half + np.float32(y)) * stride
            across = (_sigmoid(planes[box + 2, cell]) * two) ** 2 * anchors[anchor, 0]
            down = (_sigmoid(planes[box + 3, cell]) * two) ** 2 * anchors[anchor, 1]
            boxes[n, 0] = center_x - across / two
            boxes[n, 1] = center_y - down / two
            boxes[n, 2] = center_x + across / two
            boxes[n, 3] = center_y + down / two
        else:
            boxes[n, 0] = (np.float32(x) + half - _distance(planes, 0, cell)) * stride
            boxes[n, 1] = (np.float32(y) + half - _distance(planes, 1, cell)) * stride
            boxes[n, 2] = (np.float32(x) + half + _distance(planes, 2, cell)) * stride
            boxes[n, 3] = (np.float32(y) + half + _distance(planes, 3, cell)) * stride
    return end


@kernel(
    int64(Array(float32, 2, "C"), _INTS, float64, Array(float32, 2, "C"), Array(int64, 1, "C")),
    error_model="numpy",
)
def _suppress(
    boxes: Floats, class_id: NDArray[np.int32], iou: float, rivals: Floats, kept: NDArray[np.int64]
) -> int:
    """Write the indices that `unsuppressed` gives; returns how many.

    `rivals` (5, as many as may be kept) is lent: sides and area of the boxes kept.
    """
    found = 0
    for n in range(boxes.shape[0]):
        if found == kept.size:
            break
        # ultralytics keeps classes apart by moving their boxes: so moved, rounding leaves the same overlap.
        offset = np.float32(class_id[n]) * np.float32(_CLASS_OFFSET)
        left, top = boxes[n, 0] + offset, boxes[n, 1] + offset
        right, bottom = boxes[n, 2] + offset, boxes[n, 3] + offset
        area = (right - left) * (bottom - top)
        if not np.isfinite(area):
            continue  # made of logits that are not finite
        overlapped = False
        for i in range(found):
            across = max(min(right, rivals[2, i]) - max(left, rivals[0, i]), np.float32(0))
            down = max(min(bottom, rivals[3, i]) - max(top, rivals[1, i]), np.float32(0))
            shared = across * down
            overlapped |= shared / (area + rivals[4, i] - shared) > iou
        if not overlapped:
            rivals[0, found], rivals[1, found] = left, top
            rivals[2, found], rivals[3, found] = right, bottom
            rivals[4, found] = area
            kept[found] = n
            found += 1
    return found
