"""What `stream.network.boxes` is held against: torch's own decoding of logits, and ultralytics' NMS."""

from __future__ import annotations

import numpy as np
import torch
import torchvision  # noqa: F401 # ultralytics then takes its compiled NMS: the same boxes, sooner
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.tal import dist2bbox, make_anchors

from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.levels import BINS, Levels, Logits


def predictions(logits: Logits, levels: Levels) -> torch.Tensor:
    """Float32 (1, 4 + classes, N): center x, y, width and height in pixels, then the classes' probabilities."""
    tensors = [torch.from_numpy(level)[None] for level in logits]
    return _anchor_based(tensors, levels) if levels.anchors else _anchor_free(tensors, levels)


def suppressed(prediction: torch.Tensor, letterbox: Letterbox, **options) -> Detections:
    """ultralytics' NMS of one picture's predictions; the options are those of `detect`."""
    settings = {"conf": 0.25, "iou": 0.45, "max_candidates": 30_000} | options
    conf, iou, most = (settings.pop(name) for name in ("conf", "iou", "max_candidates"))
    (kept,) = non_max_suppression(prediction, conf, iou, max_nms=most, max_time_img=float("inf"), **settings)
    rows = kept.numpy()
    return Detections(letterbox.to_frame(rows[:, :4]), rows[:, 4], rows[:, 5].astype(np.int64))


def _anchor_based(tensors: list[torch.Tensor], levels: Levels) -> torch.Tensor:
    rows = []
    for raw, anchors, stride in zip(tensors, levels.anchors, levels.strides, strict=True):
        outputs = raw.unflatten(1, (len(anchors), -1)).sigmoid()
        xy, wh, objectness, scores = outputs.split([2, 2, 1, levels.classes], 2)
        y, x = torch.meshgrid(
            *(torch.arange(side, dtype=torch.float32) for side in raw.shape[-2:]), indexing="ij"
        )
        center = (xy * 2 - 0.5 + torch.stack((x, y))) * stride
        extent = (wh * 2) ** 2 * torch.tensor(anchors).view(-1, 2, 1, 1)
        rows.append(torch.cat((center, extent, scores * objectness), 2).transpose(1, 2).flatten(2))
    return torch.cat(rows, 2)


def _anchor_free(tensors: list[torch.Tensor], levels: Levels) -> torch.Tensor:
    points, strides = make_anchors(tensors, torch.tensor(levels.strides))
    bins, scores = torch.cat([raw.flatten(2) for raw in tensors], 2).split([4 * BINS, levels.classes], 1)
    shares = bins.unflatten(1, (4, BINS)).softmax(2)
    distances = (shares * torch.arange(BINS).view(1, 1, -1, 1)).sum(2)
    boxes = dist2bbox(distances, points.T[None], xywh=True, dim=1) * strides.T
    return torch.cat((boxes, scores.sigmoid()), 1)
