"""What a detection head says before the last, fixed step is all that its predictions depend on."""

from __future__ import annotations

import torch

from stream.network.graph import INPUT, run
from stream.network.model import random_model

SIZE = (64, 96)  # (H, W) of the picture: 8x12, 4x6 and 2x3 cells


def head_and_features(name):
    """The detection head, what it reads, and what it predicts; a batch of two."""
    graph = random_model(name).graph
    *body, detect = graph.nodes
    picture = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = list(run(body, {INPUT: picture}, detect.inputs).values())
        return detect.module, features, detect.module(features)


@torch.inference_mode()
def test_anchor_based_predictions_follow_from_the_logits():
    head, features, predictions = head_and_features("yolov5n")
    levels = head.logits(features)
    assert [tuple(level.shape) for level in levels] == [
        (2, 3, 85, 8, 12),
        (2, 3, 85, 4, 6),
        (2, 3, 85, 2, 3),
    ]
    anchor, y, x = 2, 1, 0
    p = levels[2][1, anchor, :, y, x].double().sigmoid()
    stride, (width, height) = 32, head.anchors[2, anchor].double()
    expected = [
        (2 * p[0] - 0.5 + x) * stride,
        (2 * p[1] - 0.5 + y) * stride,
        (2 * p[2]) ** 2 * width * stride,
        (2 * p[3]) ** 2 * height * stride,
        *p[4] * p[5:],
    ]
    cell = 3 * (8 * 12 + 4 * 6) + anchor * 2 * 3 + y * 3 + x
    torch.testing.assert_close(predictions[1, :, cell].double(), torch.stack(expected), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_anchor_free_predictions_follow_from_distances_and_logits():
    head, features, predictions = head_and_features("yolov5nu")
    distances, scores = head.raw(features)
    assert distances.shape == (2, 4, 8 * 12 + 4 * 6 + 2 * 3)
    assert scores.shape == (2, 80, 8 * 12 + 4 * 6 + 2 * 3)
    assert distances.min() >= 0
    assert distances.max() <= 15  # the last of 16 bins
    y, x, stride = 1, 2, 16
    cell = 8 * 12 + y * 6 + x
    left, top, right, bottom = distances[1, :, cell]
    expected = [
        (x + 0.5 + (right - left) / 2) * stride,
        (y + 0.5 + (bottom - top) / 2) * stride,
        (left + right) * stride,
        (top + bottom) * stride,
    ]
    torch.testing.assert_close(predictions[1, :4, cell], torch.stack(expected), rtol=1e-4, atol=1e-3)
    assert torch.equal(predictions[:, 4:], scores.sigmoid())
