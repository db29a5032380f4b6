"""What the numbers mean that a network puts out before boxes are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from codec.layout import FloatArray

Family: TypeAlias = Literal["yolov5", "yolov5u"]

Logits: TypeAlias = tuple[FloatArray, ...]
"""One picture's, an array float32 (channels, h, w) per level, finest first, of which no sigmoid has been taken yet."""

BINS = 16  # of the distribution of each distance in YOLOv5u: 0 to 15 cells


@dataclass(frozen=True, slots=True)
class Levels:
    """How the channels of each level's logits are read.

    The original YOLOv5 has, for one anchor after the other, center x and y, width, height, objectness and the
    classes. YOLOv5u has a distribution over BINS distances each to the left, top, right and bottom side, then the
    classes.
    """

    family: Family
    classes: int
    strides: tuple[int, ...]  # pixels per cell along one side, of each level
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    """(width, height) in pixels of each level's anchors, equally many for every level; empty for YOLOv5u."""

    @property
    def anchors_per_level(self) -> int:
        """Boxes that a cell predicts; 1 for YOLOv5u, which has no anchors."""
        return len(self.anchors[0]) if self.anchors else 1

    @property
    def box_channels(self) -> int:
        """Channels that describe one box, before its objectness and classes."""
        return 4 if self.family == "yolov5" else 4 * BINS

    @property
    def channels(self) -> int:
        """Of each level's logits."""
        return self.anchors_per_level * (self.box_channels + (self.family == "yolov5") + self.classes)
