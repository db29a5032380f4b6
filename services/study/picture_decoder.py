"""A small convolutional network that draws pictures from what crosses the split, as somebody who reads the link would.

A. Dosovitskiy and T. Brox, Inverting Visual Representations with Convolutional Networks, CVPR 2016; the loss is that of
H. Zhao, O. Gallo, I. Frosio and J. Kautz, Loss Functions for Image Restoration with Neural Networks, IEEE Transactions
on Computational Imaging 3(1), 2017: absolute error and structural similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from services.study.likeness import ssim
from services.study.subject import Tensors

SIDE = 160  # of the square cutouts that it is trained on, in pixels
BATCH = 8
_WIDTH, _LEAST_WIDTH = 64, 16  # channels at the split, halved whenever the resolution doubles
_RATE = 2e-3
_SSIM_SHARE = 0.2  # of the loss


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPair:
    """What a thief has of one picture that they sent through a camera of their own."""

    features: torch.Tensor  # float16 (C, h, w), as `stacked` makes them
    picture: torch.Tensor  # uint8 (3, H, W), RGB; H and W are the same multiple of h and w

    @property
    def stride(self) -> int:
        """Pixels of the picture for one of the features, along a side."""
        return self.picture.shape[1] // self.features.shape[1]


def stacked(tensors: Tensors) -> torch.Tensor:
    """All tensors that cross as one, float32 (C, h, w): coarser ones are repeated to the size of the finest."""
    parts = [torch.from_numpy(np.ascontiguousarray(tensor))[None] for tensor in tensors.values()]
    size = max(tuple(part.shape[2:]) for part in parts)
    return torch.cat([functional.interpolate(part, size=size) for part in parts], 1)[0]


class PictureDecoder(nn.Module):
    """Features float32 (B, C, h, w) to pictures (B, 3, H, W), RGB, about 0 to 1, `stride` times as large."""

    def __init__(self, channels: int, stride: int) -> None:
        """`stride` is a power of two."""
        super().__init__()
        width = _WIDTH
        layers: list[nn.Module] = [nn.BatchNorm2d(channels, affine=False), _conv(channels, width)]
        layers += [nn.SiLU(), _Residual(width), _Residual(width)]
        while stride > 2:
            finer = max(width // 2, _LEAST_WIDTH)
            layers += [_conv(width, 4 * finer), nn.PixelShuffle(2), nn.SiLU(), _Residual(finer)]
            width, stride = finer, stride // 2
        layers += [_conv(width, 3 * stride**2), nn.PixelShuffle(stride)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        pictures: torch.Tensor = self.layers(features)
        return pictures

    @torch.inference_mode()
    def draw(self, features: torch.Tensor) -> torch.Tensor:
        """The picture float32 (1, 3, H, W), in steps of 1/255, for one picture's features float32 (C, h, w)."""
        self.eval()
        drawn: torch.Tensor = self(features[None].to(self._device))
        return (drawn.clamp(0, 1) * 255).round() / 255

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def learn(
        self, examples: Sequence[TrainingPair], steps: int, seed: int, watch: Callable[[], None]
    ) -> None:
        """Train for so many steps of BATCH cutouts each. The same examples and seed give the same weights."""
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.Adam(self.parameters(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=max(steps, 2))
        self.train()
        for _ in range(steps):
            features, pictures = (part.to(self._device) for part in _batch(examples, rng))
            drawn = self(features)
            error = functional.l1_loss(drawn, pictures)
            loss = (1 - _SSIM_SHARE) * error + _SSIM_SHARE * (1 - ssim(drawn, pictures))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's
            optimizer.step()
            schedule.step()
            watch()


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(_conv(width, width), nn.SiLU(), _conv(width, width))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = features + self.change(features)
        return changed


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


def _batch(examples: Sequence[TrainingPair], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Cutouts of pictures drawn by lot: features (BATCH, C, s, s) and pictures (BATCH, 3, S, S)."""
    chosen = [examples[number] for number in rng.integers(len(examples), size=BATCH)]
    stride = chosen[0].stride
    side = min(SIDE // stride, *(length for example in examples for length in example.features.shape[1:]))
    features, pictures = [], []
    for example in chosen:
        top, left = (int(rng.integers(length - side + 1)) for length in example.features.shape[1:])
        cut = slice(top, top + side), slice(left, left + side)
        features.append(example.features[:, *cut].float())
        seen = (slice(stride * part.start, stride * part.stop) for part in cut)
        pictures.append(example.picture[:, *seen].float() / 255)
    return torch.stack(features), torch.stack(pictures)
