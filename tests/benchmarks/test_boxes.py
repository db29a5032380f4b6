"""Boxes from logits, whatever a picture's logits are, beside ultralytics' NMS: `make bench`.

640 x 640 pixels and COCO's 80 classes. A picture of a street has some tens of candidates, in clusters; one of noise has
as many as there are boxes: 25,200.
"""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
import torch

from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.levels import Levels
from tests.benchmarks.timing import ROUNDS, show, timed
from tests.stream.network.reference_boxes import predictions, suppressed
from tests.stream.network.test_boxes import ANCHORS

LEVELS = Levels("yolov5", 80, (8, 16, 32), ANCHORS)
CELLS = (80, 40, 20)  # along one side, of each level
BOXES = 25_200
LETTERBOX = Letterbox((640, 640), (640, 640))


def picture(candidates):
    """Logits with so many candidates: clusters of 8 boxes in one cell and its neighbors, or all there are."""
    generator = np.random.default_rng(1)
    chosen = np.zeros(BOXES, np.bool_)
    clusters = generator.choice(BOXES // 8, candidates // 8, replace=False)
    chosen[(clusters[:, None] * 8 + np.arange(8)).ravel()] = True
    logits, first = [], 0
    for side in CELLS:
        level = generator.standard_normal((3, 85, side, side), np.float32)
        cells = chosen[first : first + 3 * side**2].reshape(3, side, side)
        level[:, 4] += np.where(cells, 6, -12)
        level[:, 5:] -= 6
        level[:, 5] += 12
        logits.append(level.reshape(255, side, side))
        first += 3 * side**2
    return tuple(logits)


@pytest.mark.parametrize("candidates", [40, 3_000, BOXES])
def test_boxes(benchmark, capsys, candidates):
    if benchmark.disabled and candidates == BOXES:
        pytest.skip("ultralytics' NMS takes seconds: make bench")
    torch.set_num_threads(1)
    logits = picture(candidates)
    prediction = predictions(logits, LEVELS)
    assert int((prediction[:, 4:].amax(1) > 0.25).sum()) == candidates
    times_s = {"boxes": [], "decode": [], "nms": []}

    def one_frame():
        times_s["boxes"].append(timed(lambda given: detect(given, LEVELS, LETTERBOX), logits))
        times_s["decode"].append(timed(lambda given: predictions(given, LEVELS), logits))
        times_s["nms"].append(timed(lambda given: suppressed(given, LETTERBOX), prediction))

    benchmark.group = "one frame, logits to boxes"
    benchmark.pedantic(one_frame, rounds=ROUNDS, warmup_rounds=1)
    ms = {stage: 1e3 * median(times) for stage, times in times_s.items()}
    figures = {
        "ms here": ms["boxes"],
        "ms of torch's sigmoid and boxes": ms["decode"],
        "and of ultralytics' NMS": ms["nms"],
        "times as long": (ms["decode"] + ms["nms"]) / ms["boxes"],
    }
    benchmark.extra_info.update(figures)
    show(capsys, f"{candidates:,} candidates", figures, "{:.2f}")
