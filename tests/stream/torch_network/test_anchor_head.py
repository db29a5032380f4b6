"""What a detection head says before the last, fixed step is all that its predictions depend on."""

from __future__ import annotations

import torch

from tests.stream.torch_network.heads import head_and_features


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
