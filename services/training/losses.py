"""What the demo network learns from: labels, as YOLOv5 learns from them, and its teacher's outputs and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from ultralytics.utils.metrics import bbox_iou

from stream.torch_network.anchor_head import AnchorDetect

USUAL_RANGE = 6.0  # of what crosses the default split in the official network, nearly always
LARGEST_RATIO = 4.0  # of an object's side to an anchor's for the anchor to answer for it


def head_logits(head: AnchorDetect, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The detection head's logits: (B, anchors, h, w, 5 + classes) float32 per level."""
    logits = []
    for feature, convolution in zip(features, head.m, strict=True):
        batch, _, height, width = feature.shape
        raw = convolution(feature).float()
        logits.append(raw.view(batch, -1, 5 + head.classes, height, width).permute(0, 1, 3, 4, 2))
    return logits


def label_loss(
    head: AnchorDetect, logits: Sequence[torch.Tensor], targets: torch.Tensor, labeled: torch.Tensor
) -> torch.Tensor:
    """YOLOv5's loss (CIoU, objectness, class) over the labeled images of a batch, per object.

    `targets` is float32 (N, 6): image, class, left, top, right, bottom in pixels; `labeled` is bool (B,).
    """
    total = logits[0].new_zeros(())
    for level, anchors, stride in zip(logits, head.anchors, head.stride, strict=True):
        image, anchor, row, column, kinds, boxes = assign(targets, anchors, stride, level.shape[2:4])
        objectness = torch.zeros_like(level[..., 4])
        weight = len(image) + 1
        if len(image):
            predicted = level[image, anchor, row, column]
            xy = predicted[:, :2].sigmoid() * 2 - 0.5
            wh = (predicted[:, 2:4].sigmoid() * 2) ** 2 * anchors[anchor]
            overlap = bbox_iou(torch.cat((xy, wh), 1), boxes, xywh=True, CIoU=True).squeeze(-1)
            total = total + 4.0 * (1 - overlap).sum() / weight
            objectness[image, anchor, row, column] = 0.5 + 0.5 * overlap.detach().clamp(0)
            one_hot = torch.zeros_like(predicted[:, 5:])
            one_hot[torch.arange(len(kinds)), kinds] = 1.0
            total = (
                total + binary_cross_entropy_with_logits(predicted[:, 5:], one_hot, reduction="sum") / weight
            )
        entropy = binary_cross_entropy_with_logits(level[..., 4], objectness, reduction="none")
        total = total + entropy[labeled].sum() / weight
    return total


def assign(
    targets: torch.Tensor, anchors: torch.Tensor, stride: float, cells: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which anchors of which cells answer for which objects, by YOLOv5's rule.

    An anchor answers if neither side differs from the object's by more than LARGEST_RATIO, in the object's own cell
    and in the two neighbors that its center is nearest to. Returns image, anchor, row, column and class, int64 (M,)
    each, and boxes float32 (M, 4): center relative to the cell, and size, in cells.
    """
    height, width = cells
    corners = targets[:, 2:] / stride
    center, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    ratio = size[None] / anchors[:, None]
    anchor, which = torch.where(torch.maximum(ratio, 1 / ratio).amax(2) < LARGEST_RATIO)
    center, size = center[which], size[which]
    inside, (x, y) = center % 1, center.T
    steps = [
        (torch.ones_like(x, dtype=torch.bool), 0, 0),
        ((inside[:, 0] < 0.5) & (x > 1), -1, 0),
        ((inside[:, 0] >= 0.5) & (x < width - 1), 1, 0),
        ((inside[:, 1] < 0.5) & (y > 1), 0, -1),
        ((inside[:, 1] >= 0.5) & (y < height - 1), 0, 1),
    ]
    parts = []
    for mask, right, down in steps:
        cell = (center[mask].long() + torch.tensor([right, down])).clamp(
            torch.tensor(0), torch.tensor([width - 1, height - 1])
        )
        rows = targets[which[mask]]
        boxes = torch.cat((center[mask] - cell, size[mask]), 1)
        parts.append((rows[:, 0].long(), anchor[mask], cell[:, 1], cell[:, 0], rows[:, 1].long(), boxes))
    image, anchor, row, column, kinds, boxes = (torch.cat(column) for column in zip(*parts, strict=True))
    return image, anchor, row, column, kinds, boxes


def output_loss(logits: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """Distance from the teacher's outputs, anchor by anchor, weighted by how sure it is of an object.

    Both are (B, anchors, h, w, 5 + classes) per level, of the same classes.
    """
    total = logits[0].new_zeros(())
    for ours, theirs in zip(logits, teacher, strict=True):
        target = theirs.sigmoid()
        sure = target[..., 4]
        weight = sure.sum() + 1
        total = total + binary_cross_entropy_with_logits(ours[..., 4], sure, reduction="sum") / weight
        box = (ours[..., :4].sigmoid() - target[..., :4]).abs().sum(-1)
        kind = binary_cross_entropy_with_logits(ours[..., 5:], target[..., 5:], reduction="none").sum(-1)
        total = total + ((8.0 * box + kind) * sure).sum() / weight
    return total


def feature_loss(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Squared distance from the teacher's features (B, C, h, w), in units of each channel's variance.

    The mean over channels, summed over the layers of `ours`, which may have fewer pictures: the first ones. A channel
    that hardly varies counts as if it did.
    """
    total = torch.zeros(())
    for name, feature in ours.items():
        target = theirs[name][: len(feature)].float()
        variance = target.var((0, 2, 3))
        variance = torch.maximum(variance, 0.05 * variance.mean()) + 1e-6
        distance = (feature.float() - target).square().mean((0, 2, 3))
        total = total + (distance / variance).mean()
    return total


def range_loss(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """What a picture's tensors (B, C, h, w) have beyond USUAL_RANGE, in sum.

    A quantizer with few levels spreads them over the range: a handful of outliers takes the levels of all the rest.
    """
    beyond = [(tensor.float().abs() - USUAL_RANGE).clamp(min=0).sum() / len(tensor) for tensor in tensors]
    return torch.stack(beyond).sum() / 1000


def initialize(modules: nn.Module, head: AnchorDetect, seed: int) -> None:
    """Random weights: He's for convolutions, objectness rare, as YOLOv5 starts."""
    generator = torch.Generator().manual_seed(seed)
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(std=(2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
            module.reset_parameters()
    for convolution in head.m:
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.data.mul_(0.1)
        bias = convolution.bias.data.view(len(head.anchors[0]), -1)
        bias[:, 4] = -5.0
        bias[:, 5:] = -2.0
