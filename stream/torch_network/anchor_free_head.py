"""The anchor-free detection head of ultralytics' YOLOv5u."""

from __future__ import annotations

import torch
from ultralytics.nn.modules import Detect
from ultralytics.utils.tal import dist2bbox, make_anchors


class AnchorFreeDetect(Detect):  # type: ignore[misc] # ultralytics ships without types
    """Predicts, per grid cell, a distribution of distances to a box's sides, and class probabilities.

    ultralytics' own head keeps the last picture's anchor points, whatever the device; this one keeps nothing
    between calls, so one head serves pictures of any size from any thread.
    """

    legacy = True  # plain convolutions in cv3, as YOLOv5u was trained with; later models have depthwise ones

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Predictions (B, 4 + classes, N) from one feature map (B, C, h, w) per level.

        Rows 0 to 3 are center x, center y, width and height in pixels of the canvas, the others class
        probabilities.
        """
        distances, scores = self.raw(features)
        points, strides = make_anchors(features, self.stride)  # (N, 2) in cells, (N, 1) in pixels
        boxes = dist2bbox(distances, points.T[None], xywh=True, dim=1) * strides.T
        return torch.cat((boxes, scores.sigmoid()), 1)

    def raw(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances (B, 4, N) in cells, from a cell's center to left, top, right, bottom; class logits (B, classes, N).

        A distance is the mean of its distribution, and the logits are what the sigmoid has yet to be taken of.
        """
        sides = torch.cat([head(x).flatten(2) for head, x in zip(self.cv2, features, strict=True)], 2)
        scores = torch.cat([head(x).flatten(2) for head, x in zip(self.cv3, features, strict=True)], 2)
        return self.dfl(sides), scores

    def level_logits(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Bins of the distances and class logits, (B, channels, h, w) per level, see `Levels`."""
        return [
            torch.cat((sides(x), scores(x)), 1)
            for sides, scores, x in zip(self.cv2, self.cv3, features, strict=True)
        ]
