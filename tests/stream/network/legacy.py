"""The original YOLOv5 v6.0, written again from its published layers: an oracle, and a writer of its checkpoints.

Shares no code with the package. The classes say that they live in `models.common` and `models.yolo`, where the
original's pickles look for them.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

torch.set_num_threads(1)

ANCHORS = [
    [10, 13, 16, 30, 33, 23],
    [30, 61, 62, 45, 59, 119],
    [116, 90, 156, 198, 373, 326],
]
MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75)}


def description(scale: str = "n", classes: int = 80) -> dict[str, Any]:
    """yolov5n.yaml and its sisters, as the checkpoints carry them."""
    depth, width = MULTIPLES[scale]
    return {
        "nc": classes,
        "depth_multiple": depth,
        "width_multiple": width,
        "anchors": ANCHORS,
        "ch": 3,
        "backbone": [
            [-1, 1, "Conv", [64, 6, 2, 2]],
            [-1, 1, "Conv", [128, 3, 2]],
            [-1, 3, "C3", [128]],
            [-1, 1, "Conv", [256, 3, 2]],
            [-1, 6, "C3", [256]],
            [-1, 1, "Conv", [512, 3, 2]],
            [-1, 9, "C3", [512]],
            [-1, 1, "Conv", [1024, 3, 2]],
            [-1, 3, "C3", [1024]],
            [-1, 1, "SPPF", [1024, 5]],
        ],
        "head": [
            [-1, 1, "Conv", [512, 1, 1]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 6], 1, "Concat", [1]],
            [-1, 3, "C3", [512, False]],
            [-1, 1, "Conv", [256, 1, 1]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 4], 1, "Concat", [1]],
            [-1, 3, "C3", [256, False]],
            [-1, 1, "Conv", [256, 3, 2]],
            [[-1, 14], 1, "Concat", [1]],
            [-1, 3, "C3", [512, False]],
            [-1, 1, "Conv", [512, 3, 2]],
            [[-1, 10], 1, "Concat", [1]],
            [-1, 3, "C3", [1024, False]],
            [[17, 20, 23], 1, "Detect", ["nc", "anchors"]],
        ],
    }


def deep_description(levels: int = 4, classes: int = 80) -> dict[str, Any]:
    """yolov5n6.yaml (four levels, strides 8 to 64) or yolov5n-p7.yaml (five, to 128), as the checkpoints carry them."""
    widths = [256, 512, 768, 1024, 1280][:levels]
    plain = description("n", classes)
    backbone = plain["backbone"][:7]  # to 1/16
    for width in widths[2:]:
        backbone += [[-1, 1, "Conv", [width, 3, 2]], [-1, 3, "C3", [width]]]
    backbone.append([-1, 1, "SPPF", [widths[-1], 5]])
    rows: list[list[Any]] = []
    lateral = []  # the 1x1 convolutions on the way up
    for level in reversed(range(levels - 1)):
        lateral.append(len(backbone) + len(rows))
        rows += [
            [-1, 1, "Conv", [widths[level], 1, 1]],
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 4 + 2 * level], 1, "Concat", [1]],
            [-1, 3, "C3", [widths[level], False]],
        ]
    outputs = [len(backbone) + len(rows) - 1]
    for level in range(1, levels):
        rows += [
            [-1, 1, "Conv", [widths[level - 1], 3, 2]],
            [[-1, lateral[levels - 1 - level]], 1, "Concat", [1]],
            [-1, 3, "C3", [widths[level], False]],
        ]
        outputs.append(len(backbone) + len(rows) - 1)
    rows.append([outputs, 1, "Detect", ["nc", "anchors"]])
    anchors = [[8 << level, 12 << level] * 3 for level in range(levels)]
    return {**plain, "backbone": backbone, "head": rows, "anchors": anchors}


class Conv(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(c, c)
        self.cv2 = Conv(c, c, 3)
        self.add = shortcut

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, n: int, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2 // 2)
        self.cv2 = Conv(c1, c2 // 2)
        self.cv3 = Conv(c2, c2)
        self.m = nn.Sequential(*(Bottleneck(c2 // 2, shortcut) for _ in range(n)))

    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))


class SPPF(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 * 2, c2)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat([x, y1, y2, self.m(y2)], 1))


class Concat(nn.Module):
    def __init__(self, d: int = 1) -> None:
        super().__init__()
        self.d = d

    def forward(self, x):
        return torch.cat(x, self.d)


class Detect(nn.Module):
    def __init__(self, nc: int, ch: list[int], anchors: list[list[int]] = ANCHORS) -> None:
        super().__init__()
        self.no = nc + 5
        self.stride = torch.tensor([8.0 * 2**level for level in range(len(ch))])
        anchors = torch.tensor(anchors).float().view(len(ch), 3, 2) / self.stride.view(-1, 1, 1)
        self.register_buffer("anchors", anchors)
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * 3, 1) for c in ch)

    def forward(self, xs):
        z = []
        for i, feature in enumerate(xs):
            x = self.m[i](feature)
            bs, _, ny, nx = x.shape
            y = x.view(bs, 3, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            grid = torch.stack((xv, yv), 2).view(1, 1, ny, nx, 2).float()
            anchor_grid = (self.anchors[i] * self.stride[i]).view(1, 3, 1, 1, 2)
            y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + grid) * self.stride[i]
            y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * anchor_grid
            z.append(y.view(bs, -1, self.no))
        return torch.cat(z, 1)


class Model(nn.Module):
    """Runs its layers one after the other, as the original does. Returns (B, N, 5 + classes)."""

    def __init__(self, yaml: dict[str, Any], seed: int = 0) -> None:
        super().__init__()
        self.yaml = yaml
        self.names = [f"thing {index}" for index in range(yaml["nc"])]
        layers: list[nn.Module] = []
        channels: list[int] = []
        for index, (source, repeats, kind, args) in enumerate(yaml["backbone"] + yaml["head"]):
            n = max(round(repeats * yaml["depth_multiple"]), 1) if repeats > 1 else repeats
            inputs = (
                [channels[i] for i in (source if isinstance(source, list) else [source])] if index else [3]
            )
            c1 = c2 = inputs[0]
            if kind in {"Conv", "C3", "SPPF"}:
                c2 = int(-(-args[0] * yaml["width_multiple"] // 8) * 8)
            match kind:
                case "Conv":
                    layer = Conv(c1, c2, *args[1:])
                case "C3":
                    layer = C3(c1, c2, n, *args[1:])
                case "SPPF":
                    layer = SPPF(c1, c2, *args[1:])
                case "nn.Upsample":
                    layer = nn.Upsample(None, *args[1:])
                case "Concat":
                    layer, c2 = Concat(*args), sum(inputs)
                case "Detect":
                    layer = Detect(yaml["nc"], inputs, yaml["anchors"])
            layer.f = source
            layers.append(layer)
            channels.append(c2)
        self.model = nn.Sequential(*layers)
        randomize(self, seed)
        self.eval()

    @torch.inference_mode()
    def forward(self, x):
        y: list[torch.Tensor] = []
        for m in self.model:
            if m.f != -1:
                x = y[m.f] if isinstance(m.f, int) else [x if j == -1 else y[j] for j in m.f]
            x = m(x)
            y.append(x)
        return x


def as_predictions(z: torch.Tensor) -> torch.Tensor:
    """The original's (B, N, 5 + classes) as (B, 4 + classes, N), with scores objectness times class."""
    return torch.cat((z[..., :4], z[..., 4:5] * z[..., 5:]), -1).transpose(1, 2)


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """Weights for which batch normalization, and the order of everything, matter."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.7, 1.3, generator=generator)
            module.weight.uniform_(0.7, 1.3, generator=generator)
            module.bias.normal_(std=0.1, generator=generator)


def save(model: Model, path: Path, pickle_protocol: int = 2, **others: object) -> Path:
    """Writes a checkpoint as the original's training does, with classes of the original's modules."""
    common, yolo = types.ModuleType("models.common"), types.ModuleType("models.yolo")
    for module, members in ((common, (Conv, Bottleneck, C3, SPPF, Concat)), (yolo, (Detect, Model))):
        for member in members:
            member.__module__ = module.__name__
            setattr(module, member.__name__, member)
    stubs = {"models": types.ModuleType("models"), "models.common": common, "models.yolo": yolo}
    with patch.dict(sys.modules, stubs):
        torch.save(
            {"epoch": -1, "model": model, "ema": None, "optimizer": None, **others},
            path,
            pickle_protocol=pickle_protocol,
        )
    return path
