"""The anchor-based detection head of the original YOLOv5 (v6.0 to v7.0)."""

from __future__ import annotations

import torch
from torch import nn


class AnchorDetect(nn.Module):
    """Predicts, per grid cell and anchor, a box, an objectness and class probabilities.

    The parameters and the buffer `anchors` are named as in the checkpoints. Keeps nothing between calls, so one
    head serves pictures of any size, on any device.
    """

    anchors: torch.Tensor  # (levels, anchors, 2): width and height in units of the level's stride

    def __init__(self, classes: int, channels: list[int], anchors_per_level: int) -> None:
        super().__init__()
        self.classes = classes
        self.stride: tuple[float, ...] = ()  # pixels per cell of each level; set once the graph is known
        outputs = anchors_per_level * (5 + classes)
        self.m = nn.ModuleList(nn.Conv2d(level, outputs, 1) for level in channels)
        self.register_buffer("anchors", torch.ones(len(channels), anchors_per_level, 2))

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Predictions (B, 4 + classes, N) from one feature map (B, C, h, w) per level.

        Rows 0 to 3 are center x, center y, width and height in pixels of the canvas. The others are objectness
        times class probability, as ultralytics' anchor-free heads give them, so that one NMS serves both.
        """
        levels = []
        for raw, anchors, stride in zip(self.logits(features), self.anchors, self.stride, strict=True):
            xy, wh, objectness, scores = torch.split(raw.sigmoid(), [2, 2, 1, self.classes], 2)
            y, x = torch.meshgrid(
                torch.arange(raw.shape[-2], device=raw.device, dtype=raw.dtype),
                torch.arange(raw.shape[-1], device=raw.device, dtype=raw.dtype),
                indexing="ij",
            )
            center = (xy * 2 - 0.5 + torch.stack((x, y))) * stride
            extent = (wh * 2) ** 2 * (anchors * stride).view(-1, 2, 1, 1)
            level = torch.cat((center, extent, scores * objectness), 2)
            levels.append(level.transpose(1, 2).flatten(2))
        return torch.cat(levels, 2)

    def logits(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """What the sigmoid has yet to be taken of, (B, anchors, 5 + classes, h, w) per level.

        Along the third axis: center x and y, width, height, objectness, classes.
        """
        return [
            level.unflatten(1, (len(anchors), 5 + self.classes))  # type: ignore[no-untyped-call]
            for level, anchors in zip(self.level_logits(features), self.anchors, strict=True)
        ]

    def level_logits(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """The same as the convolutions put it out, (B, channels, h, w) per level, see `Levels`."""
        return [convolution(feature) for feature, convolution in zip(features, self.m, strict=True)]
