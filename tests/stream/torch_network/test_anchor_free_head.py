"""What a detection head says before the last, fixed step is all that its predictions depend on."""

from __future__ import annotations

import torch

from tests.stream.torch_network.heads import head_and_features


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
