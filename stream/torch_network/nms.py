"""From raw predictions to detections: non-maximum suppression, and back to the frame's own pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import pad
from ultralytics.utils.nms import non_max_suppression

from stream.detections import Detections
from stream.letterbox import Letterbox


@torch.inference_mode()
def detect(
    prediction: torch.Tensor,
    letterbox: Letterbox,
    *,
    conf: float = 0.25,
    iou: float = 0.45,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
    multi_label: bool = False,
) -> Detections:
    """The objects of one picture, for predictions (1, 4 + classes, N) of either family, on any device.

    `conf` is the least confidence, `iou` the overlap above which the weaker of two boxes of a class goes, and
    `classes` the class indices to keep. `multi_label` keeps every class of a box above `conf` instead of the best
    one, which is how mAP is measured.
    """
    if prediction.shape[-1] == 6:
        prediction = pad(
            prediction, (0, 1)
        )  # six columns would be taken for the output of an end-to-end model
    (kept,) = non_max_suppression(
        prediction,
        conf,
        iou,
        classes=None if classes is None else list(classes),
        multi_label=multi_label,
        max_det=max_det,
        max_time_img=float("inf"),  # a slow machine must find what a fast one finds
    )
    rows = kept.float().cpu().numpy()
    return Detections(
        boxes=letterbox.to_frame(rows[:, :4]),
        confidence=np.ascontiguousarray(rows[:, 4]),
        class_id=rows[:, 5].astype(np.int64),
    )
