"""From torch's predictions to detections, where a program has those and no logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stream.detections import Detections
from stream.letterbox import Letterbox
from stream.network.boxes import MAX_CANDIDATES, most_confident, unsuppressed


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
    max_candidates: int = MAX_CANDIDATES,
) -> Detections:
    """The objects of one picture, for predictions (1, 4 + classes, N) of either family, on any device.

    All else is as in `stream.network.boxes.detect`.
    """
    rows = prediction[0].T
    if multi_label:
        place, class_id = (rows[:, 4:] > conf).nonzero(as_tuple=True)
    else:
        best, class_id = rows[:, 4:].max(1)
        (place,) = (best > conf).nonzero(as_tuple=True)
        class_id = class_id[place]
    if classes is not None:
        wanted = torch.isin(class_id, torch.tensor(classes, dtype=class_id.dtype, device=class_id.device))
        place, class_id = place[wanted], class_id[wanted]
    confidence = rows[place, 4 + class_id].cpu().numpy()
    order = most_confident(confidence, max_candidates)
    ids = class_id.cpu().numpy()[order]
    centers, halves = rows[place, :2], rows[place, 2:4] / 2
    corners = torch.cat((centers - halves, centers + halves), 1)
    boxes: NDArray[np.float32] = corners.cpu().numpy()[order]
    kept = unsuppressed(boxes, ids.astype(np.int32), iou, max_det)
    return Detections(
        boxes=letterbox.to_frame(boxes[kept]), confidence=confidence[order][kept], class_id=ids[kept]
    )
